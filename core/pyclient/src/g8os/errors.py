"""What can go wrong, as types that a caller can act on.

Every error is a `G8Error`; those with a counterpart among Python's own are that too, so `except TimeoutError` does what
it says. A job that ended badly is a `JobError` with the node's code, its message and the end of stderr. An error that
knows what to try next says so in `hint`.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .result import Result

STDERR_TAIL_LINES = 10


class G8Error(Exception):
    """Base of all errors of this package."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class InvalidArgument(G8Error, ValueError):
    """Refused here, before anything was sent."""


class ConnectionError(G8Error, builtins.ConnectionError):
    """The node's redis cannot be reached, or went away and did not come back in time."""


class Unauthorized(G8Error):
    """The node refuses the user or the password, or this user may not do this."""


class TimeoutError(G8Error, builtins.TimeoutError):
    """No answer within the time the caller gave. The job may still run: its id is in `job_id`."""

    def __init__(self, message: str, *, job_id: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.job_id = job_id


class JobNotFound(G8Error, LookupError):
    """The node knows no job of this id: there never was one, or its result has expired."""

    def __init__(self, message: str, *, job_id: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.job_id = job_id


class ProtocolError(G8Error):
    """The node answered something that is no answer."""


class NodeError(G8Error):
    """The node's redis refused an operation, for want of memory for example."""


class JobError(G8Error, RuntimeError):
    """A job ended, and not well. Scripts for g8core expect a RuntimeError."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.code = result.code
        self.state = result.state
        self.stderr_tail = "\n".join(result.stderr.splitlines()[-STDERR_TAIL_LINES:])
        super().__init__(_describe(result, self.stderr_tail))


class UnknownCommand(JobError):
    """This node has no such command."""


class DuplicateId(JobError):
    """A job of this id runs or ran: the command was not executed again."""


class JobTimeout(JobError, builtins.TimeoutError):
    """The job took longer than its `max_time` and was killed."""


class JobKilled(JobError):
    """Somebody killed the job."""


class BadArguments(JobError):
    """The command does not take these arguments (code 400)."""


class Forbidden(JobError, Unauthorized):
    """The user's role does not allow this command (codes 401, 403)."""


class NotFound(JobError, LookupError):
    """What the command should act on is not there (code 404)."""


class Conflict(JobError):
    """It is there already, or in the way (code 409)."""


class NotSupported(JobError):
    """This node cannot do it, or not like this (code 406)."""


class Precondition(JobError):
    """The node's state does not allow it, a disk in use for example (code 412)."""


class Unavailable(JobError):
    """The node could not do it now: it was interrupted, or is busy (code 503)."""


_BY_STATE: dict[str, type[JobError]] = {
    "UNKNOWN_CMD": UnknownCommand,
    "DUPLICATE_ID": DuplicateId,
    "TIMEOUT": JobTimeout,
    "KILLED": JobKilled,
}

_BY_CODE: dict[int, type[JobError]] = {
    400: BadArguments,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    406: NotSupported,
    409: Conflict,
    412: Precondition,
    503: Unavailable,
}


def job_error(result: Result) -> JobError:
    """The error for a result whose state is not SUCCESS."""
    kind = _BY_STATE.get(result.state) or _BY_CODE.get(result.code) or JobError
    return kind(result)


def _describe(result: Result, stderr_tail: str) -> str:
    command = result.command or "job"
    what = f"{command} ended with {result.state}"
    status = result.exit_status
    if status is not None:
        what += f", exit status {status}"
    elif result.code:
        what += f" {result.code}"
    why = result.error_text() or stderr_tail
    return f"{what}: {why}" if why else what
