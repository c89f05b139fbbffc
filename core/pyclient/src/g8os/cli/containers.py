"""What `g8` does with containers: makes them, lists them, runs programs in them, ends them."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import threading
import time
import tty
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from ..client import Client, ContainerClient, Response
from ..errors import G8Error, InvalidArgument, NotFound, ProtocolError
from .output import Output, age, printable, size

# As much as the node takes at once.
_TYPED_MAX = 4096
# How often who types looks whether the program has ended.
_LOOK_SECONDS = 0.2


def run(client: Client, arguments: Namespace, output: Output) -> int:
    """Without a command, or detached, the container stays, and its number is said; else it goes with the command.

    Detached, the command is the entrypoint in place of the image's; else it runs beside none. Both are root, and start in the
    image's folder. `flist run` is another thing: it gives the command to the image's entrypoint, as the image's user.

    A name of a command of the node, such as `core.state`, is no flist: it is called. That is what `run` was before there were
    containers. Those without a dot are flists, as `bash` is likely to be one.
    """
    if "." in arguments.reference and arguments.reference in _commands(client):
        from . import commands

        return commands.call(client, arguments.as_call(arguments), output)
    stays = arguments.detach or not arguments.argv
    if stays and (arguments.stdin or arguments.tty):
        raise InvalidArgument(
            "-i and -t are for a command that is waited for",
            hint="leave out -d and give one, or enter the container with `g8 exec -it -c CONTAINER -- CMD`",
        )
    entrypoint: list[str] | None = None
    if arguments.argv:
        entrypoint = list(arguments.argv) if arguments.detach else []
    number = client.container.create(
        arguments.reference,
        mount=dict(arguments.mount) or None,
        host_network=arguments.net == "host",
        nics=[] if arguments.net == "none" else None,
        port=dict(arguments.port) or None,
        hostname=arguments.hostname,
        storage=",".join(arguments.storage) or None,
        name=arguments.name,
        env=dict(arguments.env) or None,
        entrypoint=entrypoint,
        workdir=arguments.dir or None,
        upper=arguments.upper,
    )
    if stays:
        output.value(number)
        return 0
    try:
        return _run_in(client, number, arguments, output)
    finally:
        with contextlib.suppress(NotFound):
            client.container.terminate(number)


def _commands(client: Client) -> set[str]:
    listed = client.core.commands()
    if not isinstance(listed, dict) or not isinstance(listed.get("commands"), list):
        raise ProtocolError("system.commands answered with something that is no list of commands")
    return {str(command.get("command")) for command in listed["commands"] if isinstance(command, dict)}


def ps(client: Client, arguments: Namespace, output: Output) -> int:
    answer = client.container.list()
    if not isinstance(answer, dict):
        raise ProtocolError("corex.list answered with something that is no object")
    if output.json:
        output.document(answer)
        return 0
    now = time.time()
    rows = []
    for number, listed in sorted(answer.items(), key=lambda item: int(item[0])):
        what = listed["container"]
        asked = what["arguments"]
        nics = (what.get("network") or {}).get("nics") or []
        addresses = [nic["address"].partition("/")[0] for nic in nics if nic["address"]]
        rows.append(
            [
                number,
                printable(asked.get("name") or "-"),
                printable(asked["root"][-16:]) + (" lost" if what.get("image") == "lost" else ""),
                age(now - what["starttime"] / 1000),
                size(listed["rss"]),
                ",".join(addresses) or ("host" if what.get("network") is None else "-"),
                printable(" ".join(asked.get("entrypoint") or []) or "-"),
            ]
        )
    output.table(["CONTAINER", "NAME", "FLIST", "AGE", "MEMORY", "ADDRESS", "ENTRYPOINT"], rows)
    return 0


def rm(client: Client, arguments: Namespace, output: Output) -> int:
    numbers = [_only(client, query) for query in arguments.containers]
    for number in dict.fromkeys(numbers):
        client.container.terminate(number)
    return 0


def _only(client: Client, query: str) -> int:
    """The number of a container that nobody can take for another one: several may have one name."""
    number = find(client, query)
    if query == str(number):
        return number
    listed = client.container.list()
    if not isinstance(listed, dict):
        raise ProtocolError("corex.list answered with something that is no object")
    named = [other for other, what in listed.items() if what["container"]["arguments"].get("name") == query]
    if len(named) > 1:
        numbers = ", ".join(sorted(named, key=int))
        raise InvalidArgument(
            f"{len(named)} containers are called {query}: {numbers}", hint="name those that you mean by number"
        )
    return number


def execute(client: Client, arguments: Namespace, output: Output) -> int:
    return _run_in(client, find(client, arguments.container), arguments, output)


def find(client: Client, query: str, *, ended: bool = False) -> int:
    """The number of a container, by its number or its name; with `ended`, also of one that does not run any more."""
    found = client.container.get(int(query) if query.isascii() and query.isdigit() else query, ended=ended)
    return int(found["id"])


def _run_in(client: Client, number: int, arguments: Namespace, output: Output) -> int:
    from . import commands

    inside = client.inside(number)
    if not arguments.tty:
        return commands.run_program(client, inside, arguments, output)
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise InvalidArgument("-t needs a terminal, on stdin and on stdout")
    response = _start_on_terminal(inside, arguments)
    try:
        with _raw(sys.stdin.fileno()):
            _talk(client, response)
    except KeyboardInterrupt:
        with contextlib.suppress(G8Error):
            client.job.kill(response.id)
        raise
    return commands.status(response, output)


def _start_on_terminal(inside: ContainerClient, arguments: Namespace) -> Response:
    program = {
        "name": arguments.argv[0],
        "args": list(arguments.argv[1:]),
        "dir": arguments.dir,
        "env": {"TERM": os.environ.get("TERM", "dumb"), **dict(arguments.env)},
        "terminal": _window(),
    }
    return inside.raw("core.system", program, stream=True)


def _window() -> dict[str, int]:
    window = shutil.get_terminal_size()
    return {"rows": min(max(window.lines, 1), 4096), "cols": min(max(window.columns, 1), 4096)}


@contextlib.contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """What is typed goes to the program as it is, Ctrl-C too."""
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _talk(client: Client, response: Response) -> None:
    """Shows what the program shows, until it ends; another thread passes on what is typed."""
    ended, resized = threading.Event(), threading.Event()
    before: Any = signal.signal(signal.SIGWINCH, lambda *_: resized.set())
    typist = threading.Thread(target=_type, args=(client, response.id, ended, resized), daemon=True)
    typist.start()
    try:
        for message in response.stream():
            sys.stdout.write(message.text)
            sys.stdout.flush()
    finally:
        ended.set()
        typist.join()
        signal.signal(signal.SIGWINCH, before)


def _type(client: Client, job: str, ended: threading.Event, resized: threading.Event) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    terminal = sys.stdin.fileno()
    listening = True
    while not ended.is_set():
        window = None
        if resized.is_set():
            resized.clear()
            window = _window()
        typed = ""
        if select.select([terminal] if listening else [], [], [], _LOOK_SECONDS)[0]:
            data = os.read(terminal, _TYPED_MAX)
            typed = decoder.decode(data)
            # Whoever was at the terminal is gone: the program hears of it.
            listening = bool(data)
            typed = typed if data else "\x04"
        if typed or window:
            try:
                client.job.input(job, typed or None, window)
            except G8Error:
                # It has just ended, or the node is away, of which the stream knows more.
                ended.wait(_LOOK_SECONDS)
