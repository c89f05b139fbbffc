"""What each command of `g8` does: asks the node, shows the answer, says how to end."""

from __future__ import annotations

import contextlib
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

from ..client import Client, ContainerClient, Response
from ..errors import G8Error, InvalidArgument, JobTimeout, NotFound, ProtocolError, job_error
from ..result import Result
from ..stream import LEVEL_STDERR, LEVEL_STDOUT, Message
from ..wire import new_id
from . import containers
from .output import GREEN, RED, YELLOW, Output, age, printable, size

Verb = Callable[[Client, Namespace, Output], int]

TOPICS = ("cpu", "mem", "disk", "nic", "os", "port", "version")

STATE_COLOURS = {"ready": GREEN, "done": GREEN, "failed": RED}

STDIN_MAX = 1024 * 1024

# How long the few messages that a new listener gets first may take to come.
_BACKLOG_SECONDS = 0.5
_BACKLOG_MAX = 1000


def ping(client: Client, arguments: Namespace, output: Output) -> int:
    for _ in range(arguments.count):
        began = time.perf_counter()
        answer = client.ping()
        millis = (time.perf_counter() - began) * 1000
        if output.json:
            output.document({"answer": answer, "node": str(client.address), "milliseconds": round(millis, 3)})
        else:
            output.line(f"{printable(answer)} from {client.address} in {millis:.1f} ms")
    return 0


def jobs(client: Client, arguments: Namespace, output: Output) -> int:
    response = client.raw("job.list", {})
    # The question is a job too.
    jobs = [job for job in _objects(response.json(), "job.list") if _object(job.get("cmd")).get("id") != response.id]
    if output.json:
        output.document(jobs)
        return 0
    now = time.time()
    rows = []
    for job in jobs:
        command = _object(job.get("cmd"))
        rows.append(
            [
                printable(str(job.get("id") or command.get("id") or "-")),
                str(job.get("pid") or "-"),
                age(now - _number(job.get("starttime")) / 1000),
                f"{_number(job.get('cpu')):.1f}",
                size(_number(job.get("rss"))),
                printable(_what(command)),
            ]
        )
    output.table(["ID", "PID", "AGE", "CPU%", "MEMORY", "COMMAND"], rows)
    return 0


def info(client: Client, arguments: Namespace, output: Output) -> int:
    if arguments.topic:
        output.value(getattr(client.info, arguments.topic)())
        return 0
    answers = {topic: getattr(client.info, topic)() for topic in ("os", "version", "cpu", "mem")}
    if output.json:
        output.document(answers)
        return 0
    output.pairs(_summary(**answers))
    return 0


def services(client: Client, arguments: Namespace, output: Output) -> int:
    answer = client.service.list()
    if not isinstance(answer, dict):
        raise ProtocolError("service.list answered with something that is no object")
    if output.json:
        output.document(answer)
        return 0
    now = time.time()
    rows = []
    for name, status in sorted(answer.items()):
        status = _object(status)
        state = printable(str(status.get("state", "-")))
        rows.append(
            [
                printable(name),
                output.coloured(state, STATE_COLOURS.get(state, YELLOW)),
                age(now - _number(status.get("since")) / 1000),
                str(status.get("pid") or "-"),
                str(status.get("restarts", "-")),
                printable(str(status.get("reason") or "-")),
            ]
        )
    output.table(["NAME", "STATE", "SINCE", "PID", "RESTARTS", "REASON"], rows)
    return 0


def logs(client: Client, arguments: Namespace, output: Output) -> int:
    if sum(bool(one) for one in (arguments.service, arguments.job, arguments.container)) > 1:
        raise InvalidArgument("SERVICE, --job and --container exclude each other")
    patience = None if arguments.follow else _BACKLOG_SECONDS
    if arguments.job:
        _job_logs(client, arguments.job, patience, output)
        return 0
    if arguments.service and not arguments.follow:
        for record in _records(arguments.service, client.service.logs(arguments.service, arguments.lines)):
            _show(record, output)
        return 0
    if arguments.service:
        client.service.status(arguments.service)  # a name that is none would be followed for ever
    source = f"service {arguments.service}" if arguments.service else None
    if arguments.container:
        source = f"container {containers.find(client, arguments.container, ended=True)}"
    # The node keeps some thousand messages of all, and gives so many at most.
    backlog = min(arguments.lines, _BACKLOG_MAX) if arguments.container else None
    with _listening(client, source, backlog) as stream:
        for message in client.tail(stream, timeout=patience):
            _show(message, output)
    return 0


def _job_logs(client: Client, job_id: str, patience: float | None, output: Output) -> None:
    """What a job says from now on; what it said, if it has ended."""
    try:
        stream = client.core.subscribe(job_id)
    except NotFound:
        result = client.response_for(job_id).get()
        for level, text in ((LEVEL_STDOUT, result.stdout), (LEVEL_STDERR, result.stderr)):
            ended = result.starttime + result.time / 1000
            for line in text.splitlines():
                _show(Message("", level, line, ended, f"job {job_id}"), output)
        return
    for message in client.tail(stream, timeout=patience):
        _show(message, output)


def execute(client: Client, arguments: Namespace, output: Output) -> int:
    if arguments.container:
        return containers.execute(client, arguments, output)
    if arguments.tty:
        raise InvalidArgument("-t is for programs in a container: name it with -c")
    return run_program(client, client, arguments, output)


def run_program(client: Client, place: Client | ContainerClient, arguments: Namespace, output: Output) -> int:
    """On the node, or in a container of it."""
    stdin = _stdin() if arguments.stdin else ""
    response = place.system(
        arguments.argv,
        dir=arguments.dir,
        stdin=stdin,
        env=dict(arguments.env) or None,
        stream=True,
        max_time=arguments.max_time,
        queue=arguments.queue,
    )
    try:
        for message in response.stream():
            if not output.json:
                _pass_on(message, output)
        result = _result(response)
    except KeyboardInterrupt:
        with contextlib.suppress(G8Error):
            client.job.kill(response.id)
        raise
    if output.json:
        output.document(result.payload)
    elif response.lost:
        output.error(
            f"{response.lost} lines were printed faster than they could be shown, and are lost here",
            "let it write to a file on the node, and download that",
        )
    return _status(result, output)


def call(client: Client, arguments: Namespace, output: Output) -> int:
    result = client.raw(arguments.command, _assemble(arguments.arguments)).get()
    if output.json and not (result.ok and result.level == 20):
        # A failure too: its code and its message are in there.
        output.document(result.payload)
    elif result.ok and result.level == 20:
        output.value(result.json())
    else:
        sys.stdout.write(result.stdout)
        sys.stdout.flush()
        # That of a built-in command is in the error.
        if result.ok or result.exit_status is not None:
            sys.stderr.write(result.stderr)
    result.check()
    return 0


def _assemble(pairs: list[tuple[list[str], Any]]) -> dict[str, Any]:
    """`network.nat=true` is {"network": {"nat": true}}."""
    arguments: dict[str, Any] = {}
    for path, value in pairs:
        place = arguments
        for name in path[:-1]:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise InvalidArgument(f"{'.'.join(path)} lies within something that is a value already")
        if path[-1] in place:
            raise InvalidArgument(f"{'.'.join(path)} is given twice")
        place[path[-1]] = value
    return arguments


def _stdin() -> str:
    data = sys.stdin.buffer.read(STDIN_MAX + 1)
    if len(data) > STDIN_MAX:
        raise InvalidArgument(f"stdin has more than {STDIN_MAX} bytes", hint="upload a file instead")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"stdin is not UTF-8: {error}", hint="upload a file instead") from None


def _pass_on(message: Message, output: Output) -> None:
    """A program's lines go where they came from; messages of other levels are for the log."""
    if message.is_stdout or message.is_stderr:
        output.text(message.text, error=message.is_stderr)


def _result(response: Response) -> Result:
    """The result of a job whose stream has ended, or that is waited for as long as it takes."""
    while True:
        try:
            return response.get(3600)
        except TimeoutError:
            continue


def status(response: Response, output: Output) -> int:
    """How a program ended whose output was shown."""
    return _status(_result(response), output)


def _status(result: Result, output: Output) -> int:
    if result.ok:
        return 0
    error = job_error(result)
    if isinstance(error, JobTimeout):
        output.error(f"{error}")
        return 124
    if result.exit_status is not None:
        return min(result.exit_status, 255)
    raise error


@contextlib.contextmanager
def _listening(client: Client, source: str | None, backlog: int | None) -> Iterator[str]:
    name = f"g8-{new_id()}"
    stream = client.logger.subscribe(name, source=source, backlog=backlog)
    try:
        yield stream
    finally:
        # Also when interrupted, which is how following ends. An error on the way is what matters to the user then.
        with contextlib.suppress(G8Error):
            client.logger.unsubscribe(name)


def _show(message: Message, output: Output) -> None:
    if output.json:
        fields = {"time": message.time, "source": message.source, "level": message.level, "text": message.text}
        output.document(fields)
        return
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(message.time))
    colour = {2: YELLOW, 7: YELLOW, 8: RED, 9: RED}.get(message.level)
    text = "".join(char if char.isprintable() or char in "\t\n" else "\ufffd" for char in message.text)
    output.text(f"{clock} {printable(message.source)}: {output.coloured(text, colour) if colour else text}")


def _records(service: str, answer: Any) -> list[Message]:
    try:
        return [
            Message("", int(record["level"]), str(record["text"]), _number(record["time"]) / 1000, f"service {service}")
            for record in _objects(answer, "service.logs")
        ]
    except (KeyError, ValueError, TypeError) as error:
        raise ProtocolError(f"service.logs answered with records without {error}") from error


def _what(command: dict[str, Any]) -> str:
    """A job in a few words: the program of a process, else the command."""
    arguments = _object(command.get("arguments"))
    if command.get("command") == "core.system":
        words = [arguments.get("name", ""), *(arguments.get("args") or [])]
        return " ".join(str(word) for word in words)
    if command.get("command") == "bash":
        return "bash: " + str(arguments.get("script", "")).strip().split("\n")[0]
    return str(command.get("command", "-"))


def _summary(os: Any, version: Any, cpu: Any, mem: Any) -> dict[str, Any]:
    os, mem = _object(os), _object(mem)
    processors = cpu if isinstance(cpu, list) else []
    first = _object(processors[0]) if processors else {}
    return {
        "host": os.get("hostname"),
        "os": " ".join(str(os[key]) for key in ("platform", "platformVersion") if os.get(key)),
        "kernel": os.get("kernelVersion"),
        "uptime": age(_number(os.get("uptime"))),
        "processors": f"{len(processors)} x {first.get('modelName', '?')}",
        "memory": f"{size(_number(mem.get('available')))} of {size(_number(mem.get('total')))} available",
        "core0": version if isinstance(version, str) else _object(version).get("version"),
    }


def _objects(answer: Any, command: str) -> list[dict[str, Any]]:
    if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
        raise ProtocolError(f"{command} answered with something that is no list of objects")
    return answer


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
