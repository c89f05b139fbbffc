"""Files of the node: `cl.filesystem`. Contents travel as base64, in blocks."""

from __future__ import annotations

import base64
import binascii
import contextlib
from os import PathLike
from typing import Protocol

from ..call import Call, Domain, Flow, Json, R_co, ask, command, json_call, plain_call, text_call
from ..errors import G8Error, InvalidArgument, ProtocolError
from ..result import Result

BLOCK_BYTES = 512 * 1024


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Writer(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Filesystem(Domain[R_co]):
    @command
    def open(self, file: str, mode: str = "r", perm: int = 0o644) -> Call[str]:
        """Opens a file: r read, w write, a append, + both, x create. Minutes unused, a descriptor is closed."""
        return _open(file, mode, perm)

    @command
    def read(self, fd: str) -> Call[bytes]:
        """The next block; empty at the end."""
        return _read(fd)

    @command
    def write(self, fd: str, block: bytes) -> Call[None]:
        """Writes a block, of at most 1 MiB."""
        return _write(fd, block)

    @command
    def close(self, fd: str) -> Call[None]:
        return plain_call("filesystem.close", fd=fd)

    @command
    def exists(self, path: str) -> Call[Json]:
        return json_call("filesystem.exists", path=path)

    @command
    def list(self, path: str) -> Call[Json]:
        return json_call("filesystem.list", path=path)

    @command
    def mkdir(self, path: str) -> Call[None]:
        """Makes a directory and those above it."""
        return plain_call("filesystem.mkdir", path=path)

    @command
    def remove(self, path: str) -> Call[None]:
        """Removes a file, or a directory with all that is in it."""
        return plain_call("filesystem.remove", path=path)

    @command
    def move(self, path: str, destination: str) -> Call[None]:
        return plain_call("filesystem.move", path=path, destination=destination)

    @command
    def chmod(self, path: str, mode: int, recursive: bool = False) -> Call[None]:
        return plain_call("filesystem.chmod", path=path, mode=mode, recursive=recursive)

    @command
    def chown(self, path: str, user: str, group: str, recursive: bool = False) -> Call[None]:
        return plain_call("filesystem.chown", path=path, user=user, group=group, recursive=recursive)

    @command
    def upload(self, remote: str, reader: Reader) -> Flow[None]:
        """Writes what `reader` gives to a file of the node, which is created if need be."""
        return _upload(remote, reader)

    @command
    def download(self, remote: str, writer: Writer) -> Flow[None]:
        """Gives a file of the node to `writer`."""
        return _download(remote, writer)

    @command
    def upload_file(self, remote: str, local: str | PathLike[str]) -> Flow[None]:
        return _upload_file(remote, local)

    @command
    def download_file(self, remote: str, local: str | PathLike[str]) -> Flow[None]:
        return _download_file(remote, local)


def _open(file: str, mode: str, perm: int) -> Call[str]:
    return text_call("filesystem.open", file=file, mode=mode, perm=perm)


def _read(fd: str) -> Call[bytes]:
    return Call("filesystem.read", {"fd": fd}, _block)


def _write(fd: str, block: bytes) -> Call[None]:
    if not isinstance(block, bytes | bytearray | memoryview):
        raise InvalidArgument(f"a block is bytes, not {type(block).__name__}", hint="open local files with 'rb'")
    return plain_call("filesystem.write", fd=fd, block=base64.b64encode(block).decode())


def _block(result: Result) -> bytes:
    text = result.json()
    try:
        # Nodes of old put newlines between.
        return base64.b64decode("".join(text.split()), validate=True)
    except (AttributeError, binascii.Error, ValueError) as error:
        raise ProtocolError(f"filesystem.read {result.id} answered with something that is not base64") from error


def _closing(fd: str, work: Flow[None]) -> Flow[None]:
    """Does the work, then closes the descriptor, also when the work failed; of two errors the first is told."""
    try:
        yield from work
    except Exception:
        # The node closes what nobody uses; the caller wants to know what went wrong first.
        with contextlib.suppress(G8Error):
            yield from ask(plain_call("filesystem.close", fd=fd))
        raise
    yield from ask(plain_call("filesystem.close", fd=fd))


def _upload(remote: str, reader: Reader) -> Flow[None]:
    fd = yield from ask(_open(remote, "wx", 0o644))
    yield from _closing(fd, _send(fd, reader))


def _send(fd: str, reader: Reader) -> Flow[None]:
    while block := reader.read(BLOCK_BYTES):
        yield from ask(_write(fd, block))


def _download(remote: str, writer: Writer) -> Flow[None]:
    fd = yield from ask(_open(remote, "r", 0o644))
    yield from _closing(fd, _receive(fd, writer))


def _receive(fd: str, writer: Writer) -> Flow[None]:
    while block := (yield from ask(_read(fd))):
        writer.write(block)


def _upload_file(remote: str, local: str | PathLike[str]) -> Flow[None]:
    with open(local, "rb") as reader:
        yield from _upload(remote, reader)


def _download_file(remote: str, local: str | PathLike[str]) -> Flow[None]:
    with open(local, "wb") as writer:
        yield from _download(remote, writer)
