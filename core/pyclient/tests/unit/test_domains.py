"""Calls and flows of the domains, without a node."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest

import g8os
from g8os import AsyncClient, Client, Result
from g8os.call import AsyncRunner, Call, Domain, Flow, Runner, command
from g8os.surface import Domains
from tests.calls import CALLS, Send

# What a method looks into before it gives it on.
ANSWERS: dict[str, Any] = {"logger.subscribe": {"stream": "x"}, "core.subscribe": {"stream": "x"}, "filesystem.read": ""}


class Recorder(Runner):
    """A runner that keeps what it is to run, and answers with what it is told to."""

    def __init__(self, *answers: Any) -> None:
        self.calls: list[Call[Any]] = []
        self._answers = list(answers)

    def run(self, work: Call[Any] | Flow[Any]) -> Any:
        if not isinstance(work, Call):
            return self._flow(work)
        self.calls.append(work)
        answer = self._answers.pop(0) if self._answers else "anything"
        if isinstance(answer, Exception):
            raise answer
        return work.read(Result(id="a", state="SUCCESS", level=20, data=json.dumps(answer)))

    def _flow(self, flow: Flow[Any]) -> Any:
        from g8os.client import _drive

        return _drive(flow, self.run)

    def names(self) -> list[str]:
        return [call.command for call in self.calls]


class AsyncRecorder(AsyncRunner):
    def __init__(self, *answers: Any) -> None:
        self.inner = Recorder(*answers)

    async def run(self, work: Call[Any] | Flow[Any]) -> Any:
        await asyncio.sleep(0)
        return self.inner.run(work)


@pytest.mark.parametrize(("send", "name", "arguments"), CALLS, ids=[f"{n}-{name}" for n, (_, name, _) in enumerate(CALLS)])
def test_both_clients_send_the_same(send: Send, name: str, arguments: dict[str, Any]) -> None:
    answer = ANSWERS.get(name, "anything")
    recorder, waiting = Recorder(answer), AsyncRecorder(answer)
    send(Domains(recorder))
    asyncio.run(send(Domains(waiting)))
    for calls in (recorder.calls, waiting.inner.calls):
        assert [(call.command, dict(call.arguments)) for call in calls] == [(name, arguments)]


def test_every_method_is_among_them() -> None:
    methods = set()
    for name, domain in vars(Domains(Recorder())).items():
        nested = {f"{name}.{key}": value for key, value in vars(domain).items() if isinstance(value, Domain)}
        for path, each in {name: domain, **nested}.items():
            methods |= {f"{path}.{key}" for key, value in vars(type(each)).items() if isinstance(value, command)}
    flows = {f"filesystem.{way}load{kind}" for way in ("up", "down") for kind in ("", "_file")}
    called = set()
    for send, _, _ in CALLS:
        called.add(".".join(Path().follow(send)))
    assert methods - called == flows


class Path:
    """Stands for a client, and notes which attribute of which domain is called."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def follow(self, send: Send) -> list[str]:
        send(self)
        return self.names

    def __getattr__(self, name: str) -> Path:
        self.names.append(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        return None


def test_an_upload_goes_in_blocks_and_closes_the_file() -> None:
    recorder = Recorder("fd", None, None, None)
    Domains(recorder).filesystem.upload("/f", io.BytesIO(b"x" * (512 * 1024 + 1)))
    assert recorder.names() == ["filesystem.open", "filesystem.write", "filesystem.write", "filesystem.close"]
    assert recorder.calls[0].arguments["mode"] == "wx"


def test_a_download_reads_to_the_end_and_closes_the_file() -> None:
    recorder, writer = Recorder("fd", "YWJj\n", "ZA==", "", None), io.BytesIO()
    Domains(recorder).filesystem.download("/f", writer)
    assert writer.getvalue() == b"abcd"
    assert recorder.names()[-2:] == ["filesystem.read", "filesystem.close"]


def test_a_transfer_that_fails_closes_the_file_and_tells_the_first_error() -> None:
    recorder = Recorder("fd", g8os.NodeError("disk full"), g8os.NodeError("no such fd"))
    with pytest.raises(g8os.NodeError, match="disk full"):
        Domains(recorder).filesystem.upload("/f", io.BytesIO(b"x"))
    assert recorder.names() == ["filesystem.open", "filesystem.write", "filesystem.close"]


def test_a_block_that_is_not_base64_is_told() -> None:
    for answer in ("!!!!", "YWJ", 7, None):
        with pytest.raises(g8os.ProtocolError):
            Domains(Recorder(answer)).filesystem.read("fd")


@pytest.mark.parametrize(
    "send",
    [
        lambda cl: cl.btrfs.create("l", "/dev/a"),
        lambda cl: cl.btrfs.create("l", []),
        lambda cl: cl.btrfs.device_add("/mnt"),
        lambda cl: cl.disk.mount("/dev/a", "/mnt", "ro"),
        lambda cl: cl.filesystem.write("fd", "text"),
    ],
)
def test_what_would_mean_something_else_is_refused_here(send: Send) -> None:
    recorder = Recorder()
    with pytest.raises(g8os.InvalidArgument):
        send(Domains(recorder))
    assert recorder.calls == []


def test_a_method_is_documented_and_named() -> None:
    method = Domains(Recorder()).filesystem.mkdir
    assert (method.__name__, method.__doc__) == ("mkdir", "Makes a directory and those above it.")
    assert isinstance(Domains(Recorder()).filesystem, Domain)


@pytest.mark.parametrize("argv", ["", "   ", "'open", [], ["a", 1], ["a\0b"]])
def test_a_program_that_is_none_is_refused_before_anything_is_sent(argv: Any) -> None:
    # Port 1 is nobody's: whatever is sent fails otherwise.
    with pytest.raises(g8os.InvalidArgument):
        Client(port=1).system(argv)


def test_wrong_environments_and_scripts_are_refused() -> None:
    client = Client(port=1)
    with pytest.raises(g8os.InvalidArgument):
        client.system("x", env={"A": 1})  # type: ignore[dict-item]
    with pytest.raises(g8os.InvalidArgument):
        client.bash(b"x")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        client.system("x", maxtime=1)  # type: ignore[call-arg]
    assert "password" not in repr(Client(password="password")) + repr(AsyncClient(password="password"))
