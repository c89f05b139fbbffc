"""The client for asyncio: `Client` with awaits. To be used within one event loop."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import redis
import redis.asyncio

from . import steps, wire
from .address import Address
from .call import AsyncRunner, Call, Flow
from .connection import MAX_CONNECTIONS, PLACE_SECONDS, RECONNECT_SECONDS, Failure, Mender, all_in_use, async_pool
from .result import Result
from .steps import Job, Op, Steps
from .stream import BEGINNING, Message, check_entry_id
from .surface import DEFAULT_TIMEOUT_SECONDS, Domains, InsideDomains, Starter

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")


class AsyncResponse:
    """A job that was started."""

    def __init__(self, client: AsyncClient, job: Job) -> None:
        self._client = client
        self._job = job
        self.state: str | None = None
        """How the job ended, once `stream` has come to its end."""
        self.lost: int | None = None
        """How many messages `stream` missed, as the node keeps the last 1,000 only; None if it cannot tell."""

    @property
    def id(self) -> str:
        return self._job.id

    async def exists(self) -> bool:
        return await self._client._drive(steps.exists(self._client.keys, self._job))

    async def running(self) -> bool:
        return await self._client._drive(steps.running(self._client.keys, self._job))

    async def get(self, timeout: float | None = None) -> Result:
        """The result, whatever it is; waits so many seconds for it. May be called again: the result stays."""
        timeout = self._client.timeout if timeout is None else timeout
        return await self._client._drive(steps.wait_result(self._client.keys, self._job, timeout, time.monotonic))

    async def check(self, timeout: float | None = None) -> Result:
        """Like get, but raises a JobError unless the job succeeded."""
        return (await self.get(timeout)).check()

    async def json(self, timeout: float | None = None) -> Any:
        """What a built-in command answered."""
        return (await self.get(timeout)).json()

    async def stream(self, after: str = BEGINNING, timeout: float | None = None) -> AsyncIterator[Message]:
        """Live output, as `Response.stream`."""
        follower = steps.Follower(
            self._client.keys, self._job, check_entry_id(after), timeout, self._client.timeout, time.monotonic
        )
        while not follower.ended:
            for message in await self._client._drive(follower.read()):
                yield message
        self.state, self.lost = follower.state, follower.lost

    def __repr__(self) -> str:
        return f"<AsyncResponse {self.id}>"


class AsyncCommands(Starter[Coroutine[Any, Any, AsyncResponse]], AsyncRunner):
    """Commands whose end is awaited."""

    async def sync(
        self, command: str, arguments: Mapping[str, Any], timeout: float | None = None, **options: Unpack[wire.JobOptions]
    ) -> Result:
        """Sends a command and waits for its success."""
        return await (await self.raw(command, arguments, **options)).check(timeout)

    async def json(
        self, command: str, arguments: Mapping[str, Any], timeout: float | None = None, **options: Unpack[wire.JobOptions]
    ) -> Any:
        """Sends a command and waits for its answer."""
        return await (await self.raw(command, arguments, **options)).json(timeout)

    async def ping(self, timeout: float | None = None) -> str:
        """`PONG` and the node's version."""
        return str(await self.json("core.ping", {}, timeout))

    async def run(self, work: Call[T] | Flow[T]) -> T:
        if isinstance(work, Call):
            return work.read(await (await self.raw(work.command, work.arguments)).get())
        return await _drive(work, self.run)


class AsyncClient(Domains[AsyncRunner], AsyncCommands):
    """A node, as `Client`: `async with AsyncClient.connect() as cl: await cl.info.cpu()`."""

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
        self._places = asyncio.Semaphore(max_connections)
        self._pool = async_pool(self.address, max_connections)
        self._execute: Callable[..., Awaitable[Any]] = redis.asyncio.Redis(connection_pool=self._pool).execute_command

    @classmethod
    def connect(cls, node: str | Address | None = None, timeout: float | None = None, **options: Any) -> AsyncClient:
        """The node of a URL, a ready line, a file with one of these, or of G8_NODE."""
        address = node if isinstance(node, Address) else Address.find(node)
        return cls(address=address, timeout=timeout, **options)

    def response_for(self, id: str) -> AsyncResponse:
        """A job that somebody started."""
        return AsyncResponse(self, Job(wire.check_id(id), submitted=False))

    async def tail(self, stream: str, after: str = BEGINNING, timeout: float | None = None) -> AsyncIterator[Message]:
        """Messages of a stream, as `Client.tail`."""
        tail = steps.Tail(stream, check_entry_id(after), timeout, time.monotonic)
        while not tail.ended:
            for message in await self._drive(tail.read()):
                yield message

    def inside(self, container: int) -> AsyncContainerClient:
        """What has a container of this node carry out commands, as `Client.inside`."""
        return AsyncContainerClient(self, container)

    async def close(self) -> None:
        """Gives the connections back. Jobs run on."""
        await self._pool.disconnect()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncClient {self.address}>"

    async def _start(self, command: str, arguments: Mapping[str, Any], options: wire.Options) -> AsyncResponse:
        job = await self._drive(steps.submit(self.keys, wire.command(command, arguments, options)))
        return AsyncResponse(self, job)

    async def _drive(self, work: Steps[T]) -> T:
        return await _drive(work, self._perform)

    async def _perform(self, op: Op) -> Any:
        since: float | None = None
        attempt = 0
        handled = sys.exc_info()[1]
        while True:
            try:
                reply = await self._send(op)
            except (redis.RedisError, OSError) as error:
                now = time.monotonic()
                since = now if since is None else since
                left = None if op.deadline is None else op.deadline - now
                await asyncio.sleep(self._mender.delay(Failure(error, handled, attempt, now - since, left)))
                attempt += 1
            else:
                self._mender.worked()
                return reply

    async def _send(self, op: Op) -> Any:
        if self._places.locked():
            try:
                await asyncio.wait_for(self._places.acquire(), PLACE_SECONDS)
            except asyncio.TimeoutError:
                raise all_in_use(self.address, self._max_connections) from None
        else:
            await self._places.acquire()
        try:
            return await self._execute(*op.args)
        finally:
            self._places.release()


class AsyncContainerClient(InsideDomains[AsyncRunner], AsyncCommands):
    """A container of a node, as `ContainerClient`."""

    def __init__(self, client: AsyncClient, container: int) -> None:
        InsideDomains.__init__(self, self)
        self._client = client
        self.container = container

    async def _start(self, command: str, arguments: Mapping[str, Any], options: wire.Options) -> AsyncResponse:
        return await self._client._start(command, arguments, replace(options, container=self.container))

    def __repr__(self) -> str:
        return f"<AsyncContainerClient {self.container} of {self._client.address}>"


async def _drive(work: Flow[T] | Steps[T], perform: Callable[[Any], Awaitable[Any]]) -> T:
    """Runs a generator to its end: performs what it yields and sends back the answers, or the errors."""
    try:
        wanted = next(work)
        while True:
            try:
                answer = await perform(wanted)
            except Exception as error:
                wanted = work.throw(error)
            else:
                wanted = work.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value
