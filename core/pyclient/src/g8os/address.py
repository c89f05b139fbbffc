"""Where a node is, and as whom to speak to it.

A node is named by a URL (`redis://:password@host:port`, `rediss://`, `unix:///path/redis.sock?password=...`), by the
line that `core0 run --dev` prints when it is ready (`ready {"host":...}`), by a bare `host:port`, by the path of a file
that holds one of these, or by the folder of `core0 run --dev`. Passwords never show in texts or errors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from .errors import InvalidArgument
from .wire import DEFAULT_USER, Keys

ENVIRONMENT = "G8_NODE"
DEFAULT_PORT = 6379
LOCAL_NODE = Path("/run/core0")
"""Where a node has its socket and its password."""

_SOCKET = "redis.sock"
_FILE_MAX = 64 * 1024
_FORMS = (
    "redis://[USER]:PASSWORD@HOST:PORT, unix:///PATH, a ready line of core0, a file with one of these, "
    "or the folder of core0 run --dev"
)


@dataclass(frozen=True)
class Address:
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    user: str = DEFAULT_USER
    password: str | None = field(default=None, repr=False)
    db: int = 0
    socket: str | None = None
    """Path of a unix socket; host and port mean nothing then."""
    tls: bool = False

    def __post_init__(self) -> None:
        Keys(self.user)
        if not 0 < self.port < 65536:
            raise InvalidArgument(f"port {self.port} is not in 1 to 65535")
        if self.db < 0:
            raise InvalidArgument(f"database {self.db} is negative")

    def __str__(self) -> str:
        """The place without the password."""
        user = "" if self.user == DEFAULT_USER else f"{self.user}@"
        if self.socket is not None:
            return f"unix://{user}{quote(self.socket)}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{user}{host}:{self.port}"

    @staticmethod
    def parse(text: str) -> Address:
        """Reads any of the forms but a file."""
        text = text.strip()
        if not text:
            raise InvalidArgument("the node's address is empty", hint=f"it is {_FORMS}")
        if text.startswith("ready ") or text.startswith("{"):
            return _from_ready_line(text)
        if "://" in text:
            return _from_url(text)
        return _from_url(f"redis://{text}")

    @staticmethod
    def find(text: str | None = None, environment: Mapping[str, str] | None = None) -> Address:
        """The node that `text` names, else the one that G8_NODE names, else this machine if it is one."""
        environment = os.environ if environment is None else environment
        origin = "the given node"
        if text is None:
            origin, text = ENVIRONMENT, environment.get(ENVIRONMENT)
            if (not text or not text.strip()) and (LOCAL_NODE / _SOCKET).exists():
                return _of_folder(LOCAL_NODE)
        if not text or not text.strip():
            raise InvalidArgument("no node is named", hint=f"set {ENVIRONMENT} or pass --node: {_FORMS}")
        text = text.strip()
        if _is_path(text):
            path = Path(text).expanduser()
            if path.is_dir():
                return _of_folder(path)
            origin, text = text, _read(path)
        try:
            return Address.parse(text)
        except InvalidArgument as error:
            raise InvalidArgument(f"{origin}: {error.message}", hint=error.hint) from None


def _is_path(text: str) -> bool:
    if "://" in text or text.startswith(("ready ", "{")):
        return False
    if text.startswith(("/", "./", "../", "~")):
        return True
    # `target/node` is a path when it is there, and `node` when it is the folder of a node. Else they are hosts.
    try:
        return (Path(text) / "password").exists() or ("/" in text and Path(text).exists())
    except (OSError, ValueError):
        return False


def _of_folder(folder: Path) -> Address:
    """The folder of `core0 run --dev`, or that of a node: its socket, and its administrator's password."""
    return Address(socket=str(folder.resolve() / _SOCKET), password=_read(folder / "password").strip())


def _read(path: Path) -> str:
    """The last line of the file that is not empty: a log of core0 run may precede its ready line."""
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_MAX + 1)
        text = raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"cannot read the node's address from {path}: {error}") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if len(raw) > _FILE_MAX or not lines:
        raise InvalidArgument(f"{path} holds no address", hint=f"it is {_FORMS}")
    return lines[-1]


def _from_ready_line(text: str) -> Address:
    try:
        ready = json.loads(text.removeprefix("ready "))
    except (ValueError, RecursionError):
        ready = None
    if not isinstance(ready, dict):
        raise InvalidArgument('this is no ready line of core0: it looks like `ready {"host":"127.0.0.1",...}`')
    host, port, password = ready.get("host"), ready.get("port"), ready.get("password")
    if not isinstance(host, str) or not isinstance(port, int) or not isinstance(password, str | None):
        raise InvalidArgument("the ready line needs host (text), port (number) and password (text)")
    user = ready.get("user")
    return Address(host=host, port=port, password=password, user=user if isinstance(user, str) else DEFAULT_USER)


def _from_url(text: str) -> Address:
    # Errors of urlsplit quote the text, and with it the password: hence `from None` and words of our own.
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise InvalidArgument("the node's address is no URL", hint=f"it is {_FORMS}") from None
    user = unquote(url.username) if url.username else DEFAULT_USER
    password = unquote(url.password) if url.password else None
    query = parse_qs(url.query)
    if url.scheme == "unix":
        if not url.path.startswith("/") or url.hostname:
            raise InvalidArgument("a unix address is unix:///PATH, with the whole path")
        password = password or query.get("password", [None])[0]
        return Address(socket=unquote(url.path), user=user, password=password, db=_number(query.get("db", ["0"])[0]))
    if url.scheme not in ("redis", "rediss"):
        raise InvalidArgument(f"scheme {url.scheme!r} is not redis, rediss or unix", hint=f"it is {_FORMS}")
    if not url.hostname:
        raise InvalidArgument("the node's address names no host", hint=f"it is {_FORMS}")
    return Address(
        host=url.hostname,
        port=DEFAULT_PORT if port is None else port,
        user=user,
        password=password,
        db=_number(url.path.strip("/") or "0"),
        tls=url.scheme == "rediss",
    )


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise InvalidArgument("the database of a redis address is a number")
    return int(text)
