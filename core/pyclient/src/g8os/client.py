"""The client that blocks. May be shared by threads: each operation takes a connection of its own from the pool."""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import redis

from . import steps, wire
from .address import Address
from .call import Call, Flow, Runner
from .connection import MAX_CONNECTIONS, PLACE_SECONDS, RECONNECT_SECONDS, Failure, Mender, all_in_use, pool
from .result import Result
from .steps import Job, Op, Steps
from .stream import BEGINNING, Message, check_entry_id
from .surface import DEFAULT_TIMEOUT_SECONDS, Domains, InsideDomains, Starter

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")


class Response:
    """A job that was started."""

    def __init__(self, client: Client, job: Job) -> None:
        self._client = client
        self._job = job
        self.state: str | None = None
        """How the job ended, once `stream` has come to its end."""
        self.lost: int | None = None
        """How many messages `stream` missed, as the node keeps the last 1,000 only; None if it cannot tell."""

    @property
    def id(self) -> str:
        return self._job.id

    @property
    def exists(self) -> bool:
        return self._client._drive(steps.exists(self._client.keys, self._job))

    @property
    def running(self) -> bool:
        return self._client._drive(steps.running(self._client.keys, self._job))

    def get(self, timeout: float | None = None) -> Result:
        """The result, whatever it is; waits so many seconds for it. May be called again: the result stays."""
        timeout = self._client.timeout if timeout is None else timeout
        return self._client._drive(steps.wait_result(self._client.keys, self._job, timeout, time.monotonic))

    def check(self, timeout: float | None = None) -> Result:
        """Like get, but raises a JobError unless the job succeeded."""
        return self.get(timeout).check()

    def json(self, timeout: float | None = None) -> Any:
        """What a built-in command answered."""
        return self.get(timeout).json()

    def stream(self, after: str = BEGINNING, timeout: float | None = None) -> Iterator[Message]:
        """Live output, from the beginning or after the message of this id, until the job ends.

        The job must have been started with `stream=True`. Raises TimeoutError when it takes longer than `timeout`
        seconds; the time is not limited if that is None.
        """
        follower = steps.Follower(
            self._client.keys, self._job, check_entry_id(after), timeout, self._client.timeout, time.monotonic
        )
        while not follower.ended:
            yield from self._client._drive(follower.read())
        self.state, self.lost = follower.state, follower.lost

    def __repr__(self) -> str:
        return f"<Response {self.id}>"


class Commands(Starter[Response], Runner):
    """Commands whose end is waited for."""

    def sync(
        self, command: str, arguments: Mapping[str, Any], timeout: float | None = None, **options: Unpack[wire.JobOptions]
    ) -> Result:
        """Sends a command and waits for its success."""
        return self.raw(command, arguments, **options).check(timeout)

    def json(
        self, command: str, arguments: Mapping[str, Any], timeout: float | None = None, **options: Unpack[wire.JobOptions]
    ) -> Any:
        """Sends a command and waits for its answer."""
        return self.raw(command, arguments, **options).json(timeout)

    def ping(self, timeout: float | None = None) -> str:
        """`PONG` and the node's version."""
        return str(self.json("core.ping", {}, timeout))

    def run(self, work: Call[T] | Flow[T]) -> T:
        if isinstance(work, Call):
            return work.read(self.raw(work.command, work.arguments).get())
        return _drive(work, self.run)


class Client(Domains[Runner], Commands):
    """A node.

    `Client("10.0.0.1", password="...")`, `Client.connect("redis://:...@10.0.0.1:6379")`, or `Client.connect()` for the
    node that G8_NODE names. Nothing is sent before the first command.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 6379,
        password: str | None = None,
        db: int = 0,
        timeout: float | None = None,
        *,
        user: str = wire.DEFAULT_USER,
        address: Address | None = None,
        reconnect: float = RECONNECT_SECONDS,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        Domains.__init__(self, self)
        self.address = address or Address(host=host, port=port, password=password or None, db=db, user=user)
        self.keys = wire.Keys(self.address.user)
        self.timeout = steps.check_timeout(DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout)
        self._mender = Mender(self.address, reconnect)
        self._max_connections = max_connections
        # No semaphore: those of `threading` are Python, and an interrupt (Ctrl-C) in there leaves them locked for ever.
        self._places: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(max_connections):
            self._places.put(None)
        self._pool = pool(self.address, max_connections)
        self._execute: Callable[..., Any] = redis.Redis(connection_pool=self._pool).execute_command

    @classmethod
    def connect(cls, node: str | Address | None = None, timeout: float | None = None, **options: Any) -> Client:
        """The node of a URL, a ready line, a file with one of these, or of G8_NODE."""
        address = node if isinstance(node, Address) else Address.find(node)
        return cls(address=address, timeout=timeout, **options)

    def response_for(self, id: str) -> Response:
        """A job that somebody started."""
        return Response(self, Job(wire.check_id(id), submitted=False))

    def tail(self, stream: str, after: str = BEGINNING, timeout: float | None = None) -> Iterator[Message]:
        """Messages of a stream, such as one of `logger.subscribe`; for ever, or as long as `timeout` says."""
        tail = steps.Tail(stream, check_entry_id(after), timeout, time.monotonic)
        while not tail.ended:
            yield from self._drive(tail.read())

    def inside(self, container: int) -> ContainerClient:
        """What has a container of this node carry out commands; `cl.container.client(number)` is the same."""
        return ContainerClient(self, container)

    def close(self) -> None:
        """Gives the connections back. Jobs run on."""
        self._pool.disconnect()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self.address}>"

    def _start(self, command: str, arguments: Mapping[str, Any], options: wire.Options) -> Response:
        return Response(self, self._drive(steps.submit(self.keys, wire.command(command, arguments, options))))

    def _drive(self, work: Steps[T]) -> T:
        return _drive(work, self._perform)

    def _perform(self, op: Op) -> Any:
        since: float | None = None
        attempt = 0
        handled = sys.exc_info()[1]
        while True:
            try:
                reply = self._send(op)
            except (redis.RedisError, OSError) as error:
                now = time.monotonic()
                since = now if since is None else since
                left = None if op.deadline is None else op.deadline - now
                time.sleep(self._mender.delay(Failure(error, handled, attempt, now - since, left)))
                attempt += 1
            else:
                self._mender.worked()
                return reply

    def _send(self, op: Op) -> Any:
        try:
            self._places.get(timeout=PLACE_SECONDS)
        except queue.Empty:
            raise all_in_use(self.address, self._max_connections) from None
        try:
            return self._execute(*op.args)
        except BaseException as error:
            if not isinstance(error, Exception):
                # An interrupt between question and answer: redis-py would give the connection to the next one as it is.
                self._pool.disconnect(inuse_connections=False)
            raise
        finally:
            self._places.put(None)


class ContainerClient(InsideDomains[Runner], Commands):
    """A container of a node: `system`, `bash`, `raw` and the like run in it; `info`, `process` and `filesystem` are its."""

    def __init__(self, client: Client, container: int) -> None:
        InsideDomains.__init__(self, self)
        self._client = client
        self.container = container

    def _start(self, command: str, arguments: Mapping[str, Any], options: wire.Options) -> Response:
        return self._client._start(command, arguments, replace(options, container=self.container))

    def __repr__(self) -> str:
        return f"<ContainerClient {self.container} of {self._client.address}>"


def _drive(work: Flow[T] | Steps[T], perform: Callable[[Any], Any]) -> T:
    """Runs a generator to its end: performs what it yields and sends back the answers, or the errors."""
    try:
        wanted = next(work)
        while True:
            try:
                answer = perform(wanted)
            except Exception as error:
                wanted = work.throw(error)
            else:
                wanted = work.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value
