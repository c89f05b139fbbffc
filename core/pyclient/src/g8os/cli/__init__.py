"""The program `g8`: commands a node from a terminal. Results go to stdout, all else to stderr.

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 no connection, 124 time-out; `exec` ends as its program.
A signal that asks it to end is 128 and its number, as in a shell: 130 for Ctrl-C. What it began on the node ends with it.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from ..client import Client
from ..errors import (
    ConnectionError,
    G8Error,
    InvalidArgument,
    JobNotFound,
    JobTimeout,
    NotFound,
    TimeoutError,
    Unauthorized,
    UnknownCommand,
)
from .arguments import parse
from .output import Output

OK, FAILURE, USAGE, NOT_FOUND, UNAUTHORIZED, NO_CONNECTION, TIMED_OUT = 0, 1, 2, 3, 4, 5, 124


class Ended(KeyboardInterrupt):
    """A signal asks us to end: as Ctrl-C does, but with another exit code."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def main(argv: Sequence[str] | None = None) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Who started us under nohup wants us to go on.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that knows less than UTF-8 shows question marks.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    arguments = parse(sys.argv[1:] if argv is None else argv)
    if sys.stdout is None or sys.stderr is None:
        # Closed by who started us: there is nobody to show anything.
        null = open(os.devnull, "w")  # noqa: SIM115
        sys.stdout, sys.stderr = sys.stdout or null, sys.stderr or null
    output = Output(json=arguments.json, headers=not arguments.no_headers)
    try:
        with Client.connect(arguments.node, arguments.timeout) as client:
            status: int = arguments.run(client, arguments, output)
        sys.stdout.flush()
        return status
    except G8Error as error:
        output.error(error.message, error.hint)
        return exit_code(error)
    except KeyboardInterrupt as ended:
        return 128 + (ended.number if isinstance(ended, Ended) else signal.SIGINT)
    except OSError as error:
        # Whoever read the output has seen enough, or its disk is full. Python would complain once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            output.error(f"the output cannot be written: {error.strerror or error}")
        return FAILURE


def _end(number: int, frame: FrameType | None) -> None:
    raise Ended(number)


def exit_code(error: G8Error) -> int:
    """Forbidden is a JobError and Unauthorized, JobTimeout one and a TimeoutError: what says more comes first."""
    if isinstance(error, InvalidArgument):
        return USAGE
    if isinstance(error, NotFound | JobNotFound | UnknownCommand):
        return NOT_FOUND
    if isinstance(error, Unauthorized):
        return UNAUTHORIZED
    if isinstance(error, ConnectionError):
        return NO_CONNECTION
    if isinstance(error, TimeoutError | JobTimeout):
        return TIMED_OUT
    return FAILURE
