"""The program `g8`: commands a node from a terminal. Results go to stdout, all else to stderr.

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 no connection, 124 time-out; `exec` ends as its program.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

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

OK, FAILURE, USAGE, NOT_FOUND, UNAUTHORIZED, NO_CONNECTION, TIMED_OUT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 124, 130


def main(argv: Sequence[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        # A terminal that knows less than UTF-8 shows question marks.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    arguments = parse(sys.argv[1:] if argv is None else argv)
    output = Output(json=arguments.json, headers=not arguments.no_headers)
    try:
        with Client.connect(arguments.node, arguments.timeout) as client:
            status: int = arguments.run(client, arguments, output)
        sys.stdout.flush()
        return status
    except G8Error as error:
        output.error(error.message, error.hint)
        return exit_code(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough. Python would complain once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE


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
