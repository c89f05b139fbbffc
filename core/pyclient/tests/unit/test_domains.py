"""What every method of a domain sends: for those that g8core has too, word for word what g8core sends."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

import g8os
from g8os import AsyncClient, Client, Result
from g8os.call import AsyncRunner, Call, Domain, Flow, Runner
from g8os.surface import Domains

Send = Callable[[Any], Any]

CALLS: list[tuple[Send, str, dict[str, Any]]] = [
    (lambda cl: cl.info.cpu(), "info.cpu", {}),
    (lambda cl: cl.info.nic(), "info.nic", {}),
    (lambda cl: cl.info.mem(), "info.mem", {}),
    (lambda cl: cl.info.disk(), "info.disk", {}),
    (lambda cl: cl.info.os(), "info.os", {}),
    (lambda cl: cl.process.list(), "process.list", {"id": None}),
    (lambda cl: cl.process.list("a"), "process.list", {"id": "a"}),
    (lambda cl: cl.process.list(pid=7), "process.list", {"pid": 7}),
    (lambda cl: cl.process.kill("a"), "process.kill", {"id": "a", "signal": 15}),
    (lambda cl: cl.process.kill("a", 9), "process.kill", {"id": "a", "signal": 9}),
    (lambda cl: cl.process.kill(pid=7), "process.kill", {"pid": 7, "signal": 15}),
    (lambda cl: cl.filesystem.open("/f"), "filesystem.open", {"file": "/f", "mode": "r", "perm": 0o644}),
    (lambda cl: cl.filesystem.exists("/f"), "filesystem.exists", {"path": "/f"}),
    (lambda cl: cl.filesystem.list("/d"), "filesystem.list", {"path": "/d"}),
    (lambda cl: cl.filesystem.mkdir("/d"), "filesystem.mkdir", {"path": "/d"}),
    (lambda cl: cl.filesystem.remove("/d"), "filesystem.remove", {"path": "/d"}),
    (lambda cl: cl.filesystem.move("/a", "/b"), "filesystem.move", {"path": "/a", "destination": "/b"}),
    (lambda cl: cl.filesystem.chmod("/f", 0o600), "filesystem.chmod", {"path": "/f", "mode": 0o600, "recursive": False}),
    (
        lambda cl: cl.filesystem.chown("/f", "u", "g", True),
        "filesystem.chown",
        {"path": "/f", "user": "u", "group": "g", "recursive": True},
    ),
    (lambda cl: cl.filesystem.close("fd"), "filesystem.close", {"fd": "fd"}),
    (lambda cl: cl.filesystem.write("fd", b"x"), "filesystem.write", {"fd": "fd", "block": "eA=="}),
    (
        lambda cl: cl.bridge.create("br", network="static", settings={"cidr": "10.0.0.1/24"}),
        "bridge.create",
        {"name": "br", "hwaddr": None, "network": {"mode": "static", "nat": False, "settings": {"cidr": "10.0.0.1/24"}}},
    ),
    (lambda cl: cl.bridge.list(), "bridge.list", {}),
    (lambda cl: cl.bridge.delete("br"), "bridge.delete", {"name": "br"}),
    (lambda cl: cl.disk.list(), "disk.list", {}),
    (lambda cl: cl.disk.mktable("sda"), "disk.mktable", {"disk": "sda", "table_type": "gpt"}),
    (lambda cl: cl.disk.getinfo("sda"), "disk.getinfo", {"disk": "sda", "part": ""}),
    (
        lambda cl: cl.disk.mkpart("sda", 1, "50%"),
        "disk.mkpart",
        {"disk": "sda", "start": 1, "end": "50%", "part_type": "primary"},
    ),
    (lambda cl: cl.disk.rmpart("sda", 1), "disk.rmpart", {"disk": "sda", "number": 1}),
    (lambda cl: cl.disk.mount("/dev/sda1", "/mnt"), "disk.mount", {"options": "auto", "source": "/dev/sda1", "target": "/mnt"}),
    (
        lambda cl: cl.disk.mount("/dev/sda1", "/mnt", ["ro", "noatime"]),
        "disk.mount",
        {"options": "ro,noatime", "source": "/dev/sda1", "target": "/mnt"},
    ),
    (lambda cl: cl.disk.umount("/dev/sda1"), "disk.umount", {"source": "/dev/sda1"}),
    (lambda cl: cl.btrfs.list(), "btrfs.list", {}),
    (
        lambda cl: cl.btrfs.create("l", ["/dev/a"], "raid1", "single"),
        "btrfs.create",
        {"label": "l", "metadata": "raid1", "data": "single", "devices": ["/dev/a"], "overwrite": False},
    ),
    (
        lambda cl: cl.btrfs.device_add("/mnt", "/dev/a", "/dev/b"),
        "btrfs.device_add",
        {"mountpoint": "/mnt", "devices": ["/dev/a", "/dev/b"]},
    ),
    (lambda cl: cl.btrfs.device_remove("/mnt", "/dev/a"), "btrfs.device_remove", {"mountpoint": "/mnt", "devices": ["/dev/a"]}),
    (lambda cl: cl.btrfs.subvol_create("/s"), "btrfs.subvol_create", {"path": "/s"}),
    (lambda cl: cl.btrfs.subvol_list("/s"), "btrfs.subvol_list", {"path": "/s"}),
    (lambda cl: cl.btrfs.subvol_delete("/s"), "btrfs.subvol_delete", {"path": "/s"}),
    (lambda cl: cl.btrfs.subvol_quota("/s", "10M"), "btrfs.subvol_quota", {"path": "/s", "limit": "10M"}),
    (
        lambda cl: cl.btrfs.subvol_snapshot("/s", "/t", True),
        "btrfs.subvol_snapshot",
        {"source": "/s", "destination": "/t", "read_only": True},
    ),
]


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
    recorder, waiting = Recorder(), AsyncRecorder()
    send(Domains(recorder))
    asyncio.run(send(Domains(waiting)))
    for calls in (recorder.calls, waiting.inner.calls):
        assert [(call.command, dict(call.arguments)) for call in calls] == [(name, arguments)]


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


@pytest.mark.parametrize("command", ["", "   ", "'open", [], ["a", 1], ["a\0b"]])
def test_a_program_that_is_none_is_refused_before_anything_is_sent(command: Any) -> None:
    # Port 1 is nobody's: whatever is sent fails otherwise.
    with pytest.raises(g8os.InvalidArgument):
        Client(port=1).system(command)


def test_wrong_environments_and_scripts_are_refused() -> None:
    client = Client(port=1)
    with pytest.raises(g8os.InvalidArgument):
        client.system("x", env={"A": 1})  # type: ignore[dict-item]
    with pytest.raises(g8os.InvalidArgument):
        client.bash(b"x")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        client.system("x", maxtime=1)  # type: ignore[call-arg]
    assert "password" not in repr(Client(password="password")) + repr(AsyncClient(password="password"))
