"""What breaks between a client and a node, or in it: every command is answered, and nothing is done twice."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

import g8os
from g8os import Address
from tests.cutter import Cutter
from tests.flavours import Clients

# Far more than there are: a command, its stream and its result are some four, and connecting again is two or so.
REQUESTS = 40


@pytest.fixture
def cutter(address: str, tmp_path: Path) -> Iterator[Cutter]:
    cutter = Cutter(tmp_path, Path(address) / "redis.sock")
    yield cutter
    cutter.close()


@pytest.fixture
def url(address: str, cutter: Cutter) -> str:
    password = Address.find(address).password
    assert password
    return f"unix://{cutter.path}?password={quote(password)}"


@pytest.mark.parametrize("forward_first", [False, True], ids=["before", "after"])
def test_a_connection_cut_at_the_nth_request_loses_and_doubles_nothing(
    clients: Clients, cutter: Cutter, url: str, tmp_path: Path, forward_first: bool
) -> None:
    cut = 0
    for nth in range(1, REQUESTS):
        client = clients(url, timeout=60)
        client.ping()
        file = tmp_path / f"{nth}"
        cutter.arm(nth, forward_first=forward_first)
        response = client.bash(f"echo done >> {file}; echo said", stream=True)
        texts = [message.text for message in response.stream(timeout=60)]
        result = response.check()
        cutter.disarm()
        assert (texts, result.stdout, file.read_text()) == (["said"], "said\n", "done\n"), f"cut at request {nth}"
        if not cutter.cuts:
            break
        cut += 1
    else:
        pytest.fail(f"request {REQUESTS} was still one of the command")
    assert cut >= 3, "the requests that were cut are those of the command"


def test_a_redis_that_is_killed_loses_and_doubles_nothing(clients: Clients, address: str, tmp_path: Path) -> None:
    client = clients(address, timeout=60, reconnect=50)
    client.ping()
    files = [tmp_path / str(n) for n in range(20)]
    jobs = [client.bash(f"sleep 0.{n:02}; echo done >> {file}") for n, file in enumerate(files)]
    killer = threading.Timer(0.2, os.kill, (listener(Path(address) / "redis.sock"), signal.SIGKILL))
    killer.start()
    assert [job.get().state for job in jobs] == ["SUCCESS"] * len(jobs)
    killer.join()
    assert [file.read_text() for file in files] == ["done\n"] * len(files)
    deadline = time.monotonic() + 60
    while True:
        try:
            assert client.ping().startswith("PONG")
            return
        except g8os.ConnectionError:
            assert time.monotonic() < deadline


def listener(path: Path) -> int:
    """Which process it is that listens there: unix(7), SO_PEERCRED."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)
