"""The conversations with a node, without any I/O: generators that yield redis operations and are sent the replies.

`Client` and `AsyncClient` drive the same generators; they differ in how they wait. Blocking operations are cut in
slices shorter than the socket's time-out, so a wait can be as long as the caller wants and as short as a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import InvalidArgument, JobNotFound, NodeError, ProtocolError, TimeoutError
from .result import Result, parse_result
from .stream import BEGINNING, End, Message, parse_entries, parse_result_stream
from .wire import MAX_SECONDS, Command, Keys

T = TypeVar("T")

SLICE_SECONDS = 5.0
"""Longest single blocking operation."""

SOCKET_TIMEOUT_SECONDS = 10.0
"""A connection that is silent for longer, though the node should have answered, is given up."""

READ_COUNT = 256
"""Entries of a stream that are read at once."""

TAIL_SECONDS = 2.0
"""How long the last output of a job may come after its result: the node writes them side by side."""


@dataclass(frozen=True)
class Op:
    """One redis operation. A broken connection is mended and the operation sent again until `deadline`, at most."""

    args: tuple[str | bytes | int, ...]
    deadline: float | None = None


Steps = Generator[Op, Any, T]
Clock = Callable[[], float]


@dataclass
class Job:
    """What is known here about a job."""

    id: str
    submitted: bool
    """Whether we sent it: then it may be waiting for the node to take it in."""
    accepted: bool = False
    result: Result | None = None


def submit(keys: Keys, command: Command) -> Steps[Job]:
    """Sends a command. Sending it again after a broken connection is safe: the node runs no id twice."""
    yield Op(("RPUSH", keys.commands, command.payload))
    return Job(command.id, submitted=True)


def exists(keys: Keys, job: Job) -> Steps[bool]:
    """Whether the node knows the job: it waits, runs, or has a result that can be read."""
    count = yield Op(("EXISTS", keys.flag(job.id), keys.result(job.id)))
    return int(count) > 0


def running(keys: Keys, job: Job) -> Steps[bool]:
    """Whether the node took the job in and it has not ended."""
    ttl = yield Op(("TTL", keys.flag(job.id)))
    return int(ttl) == -1


def check_timeout(timeout: float) -> float:
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not number or not 0 <= timeout <= MAX_SECONDS:
        raise InvalidArgument(f"timeout {timeout!r} is not a number of seconds from 0 on")
    return float(timeout)


def wait_result(keys: Keys, job: Job, timeout: float, clock: Clock) -> Steps[Result]:
    """Waits for the result and leaves it where it is, for others and for later."""
    if job.result is not None:
        return job.result
    deadline = clock() + check_timeout(timeout)
    known = job.submitted or (yield from exists(keys, job))
    while known:
        left = deadline - clock()
        # Whoever came back late, or does not want to wait, still gets what is there.
        raw = yield from _read_result(keys, job.id, min(left, SLICE_SECONDS), deadline)
        if raw is not None:
            job.result = parse_result(raw, job.id)
            return job.result
        known = yield from _still_known(keys, job)
        if known and left <= 0:
            raise _timed_out(job, timeout)
    # The node sets the result before the flag expires; look once more, since we asked one after the other.
    raw = yield from _read_result(keys, job.id, 0, deadline)
    if raw is not None:
        job.result = parse_result(raw, job.id)
        return job.result
    raise _not_found(job)


def _read_result(keys: Keys, job_id: str, seconds: float, deadline: float) -> Steps[bytes | str | None]:
    """What lies under the key of a result, and stays there; waits for it if `seconds` are more than none."""
    key = keys.result(job_id)
    # A time-out of 0 would mean for ever.
    seconds = max(0.001, seconds) if seconds > 0 else 0
    if keys.results_are_streams:
        block = ("BLOCK", max(1, int(1000 * seconds))) if seconds else ()
        reply = yield Op(("XREAD", *block, "STREAMS", key, BEGINNING), deadline)
        return parse_result_stream(reply)
    if seconds:
        raw = yield Op(("BRPOPLPUSH", key, key, f"{seconds:.3f}"), deadline)
    else:
        raw = yield Op(("LINDEX", key, -1), deadline)
    return None if raw is None else _bytes(raw, key)


def _still_known(keys: Keys, job: Job) -> Steps[bool]:
    if (yield from exists(keys, job)):
        job.accepted = True
        return True
    # Not there: either not taken in yet, or already forgotten.
    return job.submitted and not job.accepted


def _timed_out(job: Job, timeout: float) -> TimeoutError:
    if job.accepted or not job.submitted:
        return TimeoutError(
            f"job {job.id} gave no result within {timeout:g} s; it runs on",
            job_id=job.id,
            hint="wait longer, or kill it",
        )
    return TimeoutError(
        f"the node gave no sign of job {job.id} within {timeout:g} s",
        job_id=job.id,
        hint="its redis answers but core0 does not: it is busy with this, or does not run",
    )


class Follower:
    """Reads the live output of a job, from any point on: `read` until `ended`."""

    def __init__(self, keys: Keys, job: Job, after: str, timeout: float | None, patience: float, clock: Clock) -> None:
        """`timeout` is for all of it; within `patience` seconds a job that we sent must have been taken in."""
        self._keys = keys
        self._patience = patience
        self._taken_in_by = clock() + patience
        self._job = job
        self._timeout = timeout
        self._clock = clock
        self._deadline = None if timeout is None else clock() + check_timeout(timeout)
        self._from_beginning = after == BEGINNING
        self._received = 0
        self.last_id = after
        self.ended = False
        self.state: str | None = None
        """How the job ended, once it has and its stream says so."""
        self.lost: int | None = None
        """Then also how many messages the node had dropped before they were read, if it began at the beginning."""

    def read(self) -> Steps[list[Message]]:
        """What comes within some seconds, which may be nothing. Sets `ended` when no more can come."""
        had_ended = yield from self._job_ended()
        left = SLICE_SECONDS if self._deadline is None else self._deadline - self._clock()
        if left <= 0 and not had_ended:
            raise _timed_out(self._job, self._timeout or 0)
        if not self._job.accepted:
            left = min(left, self._taken_in_by - self._clock())
        # A time-out of 0 would mean for ever.
        millis = max(1, int(1000 * (TAIL_SECONDS if had_ended else min(left, SLICE_SECONDS))))
        key = self._keys.stream(self._job.id)
        reply = yield Op(("XREAD", "COUNT", READ_COUNT, "BLOCK", millis, "STREAMS", key, self.last_id), self._deadline)
        messages, end = _split(parse_entries(reply))
        self._received += len(messages)
        if end is not None:
            self.ended, self.state = True, end.state
            self.lost = yield from self._count_lost(key)
        elif messages:
            self.last_id = messages[-1].id
        elif had_ended:
            # Nothing more, and no end either: the stream has expired, or the job was started without one.
            self.ended = True
        return messages

    def _count_lost(self, key: str) -> Steps[int | None]:
        """A node keeps the last messages only; redis counts all that there ever were."""
        if not self._from_beginning:
            return None
        try:
            reply = yield Op(("XINFO", "STREAM", key), self._deadline)
        except NodeError:  # it has expired meanwhile, or is that of an older redis
            return None
        facts = dict(zip(reply[::2], reply[1::2], strict=True)) if isinstance(reply, list) else {}
        added = facts.get(b"entries-added")
        # The end is an entry too.
        return max(0, added - 1 - self._received) if isinstance(added, int) else None

    def _job_ended(self) -> Steps[bool]:
        ttl = int((yield Op(("TTL", self._keys.flag(self._job.id)), self._deadline)))
        if ttl == -2 and not self._job.accepted:
            # No flag. Ours may be waiting to be taken in; others are unknown, or forgotten.
            if not self._job.submitted:
                raise _not_found(self._job)
            if self._clock() >= self._taken_in_by:
                raise _timed_out(self._job, self._patience)
            return False
        self._job.accepted = True
        return ttl != -1


class Tail:
    """Reads a stream that is no job's own, such as one of `logger.subscribe`: until an end comes, or time is up."""

    def __init__(self, key: str, after: str, timeout: float | None, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        self._deadline = None if timeout is None else clock() + check_timeout(timeout)
        self.last_id = after
        self.ended = False

    def read(self) -> Steps[list[Message]]:
        """What comes within some seconds, which may be nothing."""
        left = SLICE_SECONDS if self._deadline is None else self._deadline - self._clock()
        millis = max(1, int(1000 * min(left, SLICE_SECONDS)))
        reply = yield Op(("XREAD", "COUNT", READ_COUNT, "BLOCK", millis, "STREAMS", self._key, self.last_id))
        messages, end = _split(parse_entries(reply))
        if messages:
            self.last_id = messages[-1].id
        # Time may be up while messages keep coming.
        self.ended = end is not None or left <= 0 or (not messages and left <= millis / 1000)
        return messages


def _split(entries: list[Message | End]) -> tuple[list[Message], End | None]:
    """The messages up to the end, and the end if it came."""
    messages: list[Message] = []
    for entry in entries:
        if isinstance(entry, End):
            return messages, entry
        messages.append(entry)
    return messages, None


def _not_found(job: Job) -> JobNotFound:
    return JobNotFound(
        f"the node knows no job {job.id}",
        job_id=job.id,
        hint="results are kept for 300 s; jobs of other users are not visible",
    )


def _bytes(raw: Any, key: str) -> bytes | str:
    if not isinstance(raw, bytes | str):
        raise ProtocolError(f"{key} holds {type(raw).__name__}, not text")
    return raw
