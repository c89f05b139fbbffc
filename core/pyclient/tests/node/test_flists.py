"""Mounts of an flist by a real node: `G8_TEST_FLIST` in the store `G8_TEST_STORE`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import g8os


@pytest.fixture
def flist() -> str:
    return os.environ["G8_TEST_FLIST"]


@pytest.fixture
def sources() -> list[str]:
    return [f"dir:{os.environ['G8_TEST_STORE']}"]


@pytest.fixture
def place(tmp_path: Path, cl: Any) -> Iterator[str]:
    """A folder that nothing is mounted on when the test is over."""
    folder = tmp_path / "mnt"
    folder.mkdir()
    yield str(folder)
    if folder.is_mount():
        cl.flist.umount(str(folder), lazy=True)


def test_an_flist_is_mounted_described_and_unmounted(cl: Any, flist: str, sources: list[str], place: str) -> None:
    mounted = cl.flist.mount(flist, place, sources)
    assert (mounted["ref"], mounted["mountpoint"]) == (flist, place)
    assert "web:x:33:33" in Path(place, "etc/passwd").read_text()
    # The images of containers are mounts too.
    assert place in [mount["mountpoint"] for mount in cl.flist.list()]
    assert cl.flist.info(place)["ref"] == flist
    with pytest.raises(g8os.Precondition):
        cl.flist.mount(flist, place, sources)
    cl.flist.umount(place)
    assert not Path(place).is_mount()
    assert place not in [mount["mountpoint"] for mount in cl.flist.list()]


def test_a_mode_is_chosen_and_options_hold(cl: Any, flist: str, sources: list[str], place: str) -> None:
    for suid, dev in ((False, False), (True, True)):
        assert cl.flist.mount(flist, place, sources, "fuse", suid=suid, dev=dev)["mode"] == "fuse"
        (options,) = [line.split()[5] for line in Path("/proc/self/mountinfo").read_text().splitlines() if place in line]
        assert ("nosuid" not in options.split(","), "nodev" not in options.split(",")) == (suid, dev)
        cl.flist.umount(place)


def test_a_mount_in_use_is_detached_only_when_told_so(cl: Any, flist: str, sources: list[str], place: str) -> None:
    cl.flist.mount(flist, place, sources)
    with Path(place, "etc/passwd").open() as file:
        with pytest.raises(g8os.JobError):
            cl.flist.umount(place)
        assert Path(place).is_mount()
        cl.flist.umount(place, lazy=True)
        assert not Path(place).is_mount()
        assert "root:" in file.read()


def test_what_cannot_be_mounted_is_told(cl: Any, flist: str, sources: list[str], place: str) -> None:
    with pytest.raises(g8os.BadArguments, match="nfs"):
        cl.flist.mount(flist, place, ["nfs:/x"])
    with pytest.raises(g8os.BadArguments, match="slow"):
        cl.flist.mount(flist, place, sources, "slow")
    with pytest.raises(g8os.NotFound, match="no-such-tag"):
        cl.flist.mount("no-such-tag", place, sources)
    with pytest.raises(g8os.Precondition, match="missing"):
        cl.flist.mount(flist, f"{place}/missing", sources)
    for call in (cl.flist.umount, cl.flist.info):
        with pytest.raises(g8os.NotFound, match="mnt"):
            call(place)
