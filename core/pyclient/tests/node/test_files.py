"""Files of a real node."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

import g8os


def test_a_file_is_written_read_and_closed(cl: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    fd = cl.filesystem.open(path, "w", 0o600)
    cl.filesystem.write(fd, b"some\0bytes\xff")
    cl.filesystem.close(fd)
    assert Path(path).read_bytes() == b"some\0bytes\xff"
    assert os.stat(path).st_mode & 0o777 == 0o600
    fd = cl.filesystem.open(path)
    assert cl.filesystem.read(fd) == b"some\0bytes\xff"
    assert cl.filesystem.read(fd) == b""
    cl.filesystem.close(fd)
    with pytest.raises(g8os.NotFound):
        cl.filesystem.read(fd)


def test_files_go_up_and_down_whole(cl: Any, tmp_path: Path) -> None:
    content = os.urandom(3 * 512 * 1024 + 17)
    remote, local = str(tmp_path / "remote"), tmp_path / "local"
    cl.filesystem.upload(remote, io.BytesIO(content))
    assert Path(remote).read_bytes() == content
    cl.filesystem.download_file(remote, local)
    assert local.read_bytes() == content
    local.write_bytes(b"short")
    cl.filesystem.upload_file(remote, local)
    assert Path(remote).read_bytes() == b"short", "what was there is replaced"
    sink = io.BytesIO()
    cl.filesystem.download(remote, sink)
    assert sink.getvalue() == b"short"


def test_folders_are_made_listed_moved_and_removed(cl: Any, tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    cl.filesystem.mkdir(str(deep))
    (deep / "file").write_bytes(b"1234")
    assert cl.filesystem.exists(str(deep)) is True
    (entry,) = cl.filesystem.list(str(deep))
    assert (entry["name"], entry["size"], entry["is_dir"]) == ("file", 4, False)
    cl.filesystem.move(str(deep), str(tmp_path / "moved"))
    assert (tmp_path / "moved" / "file").exists()
    cl.filesystem.remove(str(tmp_path / "moved"))
    assert cl.filesystem.exists(str(tmp_path / "moved")) is False


def test_owners_and_permissions_are_changed(cl: Any, tmp_path: Path) -> None:
    file = tmp_path / "d" / "file"
    file.parent.mkdir()
    file.touch()
    cl.filesystem.chmod(str(file), 0o640)
    cl.filesystem.chown(str(tmp_path / "d"), "daemon", "daemon", recursive=True)
    stat = file.stat()
    assert (stat.st_mode & 0o777, stat.st_uid) == (0o640, 1)


def test_what_is_not_there_is_not_found(cl: Any, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    for call in (cl.filesystem.open, cl.filesystem.list):
        with pytest.raises(g8os.NotFound, match="missing"):
            call(missing)
    with pytest.raises(g8os.NotFound):
        cl.filesystem.download(missing, io.BytesIO())


def test_a_path_that_is_none_is_refused(cl: Any) -> None:
    for path in ("relative", "", "a\0b", "/" + "x" * 5000):
        with pytest.raises(g8os.BadArguments):
            cl.filesystem.mkdir(path)
