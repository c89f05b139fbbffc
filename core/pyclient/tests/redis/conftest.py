"""A real redis-server of its own for each test module, with a password and a user."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.flavours import FLAVOURS, Clients

from .scripted import ScriptedNode, no_retry

TLS = Path(__file__).parent / "tls"
PASSWORD = "pass/word@1"
USER_PASSWORD = "alice-1"


def _free_port() -> int:
    """Below the ports that connections get, so that none of them takes it while redis is restarted."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class NoStart(Exception):
    """redis-server ended at once."""


class RedisServer:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.port = _free_port()
        self.tls_port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD.replace('/', '%2F').replace('@', '%40')}@127.0.0.1:{self.port}"

    @property
    def user_url(self) -> str:
        return f"redis://alice:{USER_PASSWORD}@127.0.0.1:{self.port}"

    @property
    def socket_url(self) -> str:
        return f"unix://{self.socket}?password={PASSWORD.replace('/', '%2F').replace('@', '%40')}"

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program, "redis-server is not installed: apt-get install redis-server"
        config = self.folder / "redis.conf"
        config.write_text(
            f"tls-port {self.tls_port}\ntls-cert-file {TLS}/cert.pem\ntls-key-file {TLS}/key.pem\n"
            f"tls-ca-cert-file {TLS}/cert.pem\ntls-auth-clients no\n"
            f"bind 127.0.0.1\nport {self.port}\nunixsocket {self.socket}\nsave ''\nappendonly no\n"
            f"dir {self.folder}\nrequirepass {PASSWORD}\n"
            # As core0 sets its named users up.
            f"user alice on >{USER_PASSWORD} resetchannels %R~result:alice:* %R~stream:alice:* -@all "
            "+exists +ttl +lindex +xread +xinfo|stream +ping (%W~core:user:alice -@all +rpush)\n"
        )
        self._process = subprocess.Popen([program, str(config)], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while self._process.poll() is None:
            try:
                with self.admin() as admin:
                    admin.ping()
                return
            except redis.RedisError:
                assert time.monotonic() < deadline, "redis-server did not start within 30 s"
                time.sleep(0.02)
        raise NoStart(f"redis-server ended with {self._process.returncode}, on port {self.port} or {self.tls_port}")

    @contextmanager
    def admin(self) -> Iterator[Any]:
        """redis-py itself, whose types differ from version to version."""
        admin: Any = redis.Redis(unix_socket_path=str(self.socket), password=PASSWORD, retry=no_retry())
        try:
            yield admin
        finally:
            admin.close()

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)
        self._process = None
        self.socket.unlink(missing_ok=True)

    def stop(self) -> None:
        if self._process is not None:
            self.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    try:
        try:
            server.start()
        except NoStart:
            # Somebody else, as another run of these tests, took a port after it was found free.
            server.port, server.tls_port = _free_port(), _free_port()
            server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def node(server: RedisServer) -> Iterator[ScriptedNode]:
    node = ScriptedNode(server.url, users=("alice",)).start()
    yield node
    node.stop()


@pytest.fixture(params=FLAVOURS)
def clients(request: pytest.FixtureRequest) -> Iterator[Clients]:
    clients = Clients(request.param)
    yield clients
    clients.close()
