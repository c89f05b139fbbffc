"""The command line of `g8`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from ..errors import InvalidArgument
from . import commands, containers

EPILOG = """\
the node:
  --node, else G8_NODE, names it: redis://[USER]:PASSWORD@HOST:PORT, unix:///PATH, the ready line
  of `core0 run --dev`, a file with one of these, or the folder of `core0 run --dev`. Without either
  it is this machine, if it is a node. Other users see what is in --node; a file keeps passwords.

exit codes:
  0 done, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 no connection, 124 time-out;
  exec ends with the code of its program; 128 and a signal's number when that ended g8, and then
  its program ends too

examples:
  g8 --node ./dev ping
  g8 exec -- ls -l /
  g8 logs -f web
  g8 call filesystem.mkdir path=/mnt/data
  g8 run --storage http://10.0.0.1:8080 bafy... -- cat /etc/os-release
  g8 run -d -p 8080:80 --name web bafy...; g8 exec -it -c web -- sh; g8 rm web
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    return _parser().parse_args(argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="g8",
        description="Commands a g8os node.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    from .. import __version__

    parser.add_argument("--version", action="version", version=f"g8 {__version__}")
    parser.add_argument("--node", metavar="NODE", help="the node (see below)")
    _add_output(parser, defaults=True)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    ping = _verb(verbs, "ping", commands.ping, "ask whether the node answers, and how fast")
    ping.add_argument("-c", "--count", metavar="N", type=_count, default=1, help="ask so many times (1)")

    _verb(verbs, "ps", containers.ps, "list the containers")
    _verb(verbs, "jobs", commands.jobs, "list the jobs that run")

    info = _verb(verbs, "info", commands.info, "show what the node is")
    info.add_argument("topic", nargs="?", choices=commands.TOPICS, help="show all of one topic")

    _verb(verbs, "services", commands.services, "list the services and their states")

    logs = _verb(verbs, "logs", commands.logs, "show messages of a service, of a job, or of all")
    logs.add_argument("service", nargs="?", metavar="SERVICE", help="only what this service says")
    logs.add_argument("--job", metavar="ID", help="only what this job says, while it runs")
    logs.add_argument("-c", "--container", metavar="CONTAINER", help="only what the entrypoint of this container says")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until interrupted")
    logs.add_argument(
        "-n",
        "--lines",
        metavar="N",
        type=_count,
        default=20,
        help="so many of the last lines of a service (20); with -f, the last few",
    )

    run = _verb(verbs, "exec", commands.execute, "run a program on the node and show its output")
    run.add_argument("-d", "--dir", metavar="DIR", default="", help="folder to start in")
    run.add_argument("-e", "--env", metavar="K=V", action="append", default=[], type=_pair, help="set a variable")
    run.add_argument("-i", "--stdin", action="store_true", help="pass on what comes on stdin, up to 1 MiB")
    run.add_argument("--max-time", metavar="S", type=_seconds, help="kill it after so many seconds, and end with 124")
    run.add_argument("--queue", metavar="NAME", help="run it after the other jobs of this queue")
    run.add_argument("-c", "--container", metavar="CONTAINER", help="run it in this container, a number or a name")
    run.add_argument("-t", "--tty", action="store_true", help="give it this terminal; -it does, too")
    run.add_argument("argv", nargs="+", metavar="CMD", help="the program and its arguments, after --")

    summary = "make a container from an flist, and run a command in it; or `call`, when it is given the name of a command"
    create = _verb(verbs, "run", containers.run, summary)
    create.add_argument(
        "-d", "--detach", action="store_true", help="the command is its entrypoint, for the image's; do not wait"
    )
    create.add_argument("-i", "--stdin", action="store_true", help="pass on what comes on stdin, up to 1 MiB")
    create.add_argument("-t", "--tty", action="store_true", help="give the command this terminal")
    create.add_argument("--name", metavar="NAME", help="call it so")
    create.add_argument("--hostname", metavar="NAME", help="its host name")
    create.add_argument("--storage", metavar="SPEC", action="append", default=[], help="a source of blocks, as http://HOST")
    create.add_argument(
        "--upper", choices=("memory", "disk"), help="where it lies what it writes, until it ends; memory by default"
    )
    create.add_argument("-e", "--env", metavar="K=V", action="append", default=[], type=_pair, help="set a variable")
    create.add_argument("-w", "--dir", metavar="DIR", default="", help="folder inside to start in; the image's by default")
    create.add_argument(
        "-p", "--port", metavar="NODE:INSIDE", action="append", default=[], type=_port, help="lead a port of the node into it"
    )
    create.add_argument(
        "-v",
        "--mount",
        metavar="WHAT:PLACE",
        action="append",
        default=[],
        type=_mount,
        help="show a path of the node, or an flist",
    )
    create.add_argument("--net", choices=("default", "none", "host"), default="default", help="its network")
    create.add_argument(
        "reference", metavar="FLIST", help="the address of its root filesystem, or a tag; or, as core.state, a command"
    )
    create.add_argument(
        "argv", nargs="*", metavar="CMD", help="program and arguments, after --; without it, the container stays"
    )
    create.set_defaults(max_time=None, queue=None, as_call=_as_call)

    rm = _verb(verbs, "rm", containers.rm, "end containers")
    rm.add_argument("containers", nargs="+", metavar="CONTAINER", help="a number, or a name that no other has")

    call = _verb(verbs, "call", commands.call, "send any command and show the answer")
    call.add_argument("command", metavar="NAME", help="such as core.state; system.commands lists all")
    call.add_argument(
        "arguments",
        nargs="*",
        metavar="K=V",
        type=_argument,
        help="an argument; V is JSON if it can be, else text, and K.L=V is L within K",
    )
    return parser


def _as_call(arguments: argparse.Namespace) -> argparse.Namespace:
    """What `call` makes of the same words."""
    try:
        pairs = [_argument(word) for word in arguments.argv]
    except argparse.ArgumentTypeError as error:
        raise InvalidArgument(str(error)) from None
    return argparse.Namespace(command=arguments.reference, arguments=pairs)


def _verb(verbs: Any, name: str, run: commands.Verb, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=summary.capitalize() + ".")
    parser.set_defaults(run=run)
    _add_output(parser, defaults=False)
    return parser


def _add_output(parser: argparse.ArgumentParser, *, defaults: bool) -> None:
    """Options that may stand before the verb or after it; what stands before must not be reset by the verb's default."""

    def default(value: object) -> object:
        return value if defaults else argparse.SUPPRESS

    parser.add_argument("--json", action="store_true", default=default(False), help="print JSON")
    parser.add_argument("--no-headers", action="store_true", default=default(False), help="print tables without headers")
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=_seconds,
        default=default(None),
        help="wait so many seconds for an answer (10); exec and logs go on for longer",
    )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1000000")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 10 * 365 * 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not K=V")
    return name, value


def _port(text: str) -> tuple[int, int]:
    node, colon, inside = text.partition(":")
    if not colon or not all(part.isascii() and part.isdigit() and 0 < int(part) < 65536 for part in (node, inside)):
        raise argparse.ArgumentTypeError(f"{text!r} is not NODE:INSIDE, two ports from 1 to 65535")
    return int(node), int(inside)


def _mount(text: str) -> tuple[str, str]:
    what, colon, place = text.rpartition(":")
    if not what or not colon or not place.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not WHAT:PLACE, with an absolute place")
    return what, place


def _argument(text: str) -> tuple[list[str], Any]:
    name, value = _pair(text)
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        parsed = value
    path = name.split(".")
    if not all(path):
        raise argparse.ArgumentTypeError(f"{name!r} is no name of an argument")
    return path, parsed
