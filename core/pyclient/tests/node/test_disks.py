"""Disks of a real node: loop devices over files."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import g8os

MIB = 1 << 20


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Makes disks of 512 MiB; gives their names, such as loop3."""
    made: list[str] = []

    def make() -> str:
        file = tmp_path / f"disk{len(made)}"
        with file.open("wb") as image:
            image.truncate(512 * MIB)
        device = subprocess.run(
            ["losetup", "--find", "--show", "--partscan", str(file)], check=True, capture_output=True, text=True
        ).stdout.strip()
        made.append(device)
        return device.removeprefix("/dev/")

    yield make
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    for line in reversed(mounts):
        if any(device in line for device in made):
            subprocess.run(["umount", line.split()[4]], check=False)
    for device in made:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_a_disk_is_partitioned_and_mounted(cl: Any, disks: Callable[[], str], tmp_path: Path) -> None:
    disk = disks()
    assert disk in [device["name"] for device in cl.disk.list()["blockdevices"]]
    cl.disk.mktable(disk)
    cl.disk.mkpart(disk, "1MiB", "101MiB")
    cl.disk.mkpart(disk, "101MiB", "201MiB")
    info = cl.disk.getinfo(disk)
    assert info["blocksize"] == 512 and info["free"]
    part = cl.disk.getinfo(disk, f"{disk}p1")
    assert part["size"] == 100 * MIB
    subprocess.run(["mkfs.ext4", "-q", f"/dev/{disk}p1"], check=True)
    target = tmp_path / "mounted"
    target.mkdir()
    cl.disk.mount(f"/dev/{disk}p1", str(target))
    assert target.is_mount()
    with pytest.raises(g8os.Precondition):
        cl.disk.mktable(disk, force=True)
    cl.disk.umount(f"/dev/{disk}p1")
    assert not target.is_mount()
    cl.disk.mount(f"/dev/{disk}p1", str(target), ["ro", "noatime"])
    with pytest.raises(OSError):
        (target / "file").touch()
    cl.disk.umount(f"/dev/{disk}p1")
    cl.disk.rmpart(disk, 2)
    assert not Path(f"/sys/block/{disk}/{disk}p2").exists()
    with pytest.raises(g8os.Precondition):
        cl.disk.mktable(disk)
    cl.disk.mktable(disk, "msdos", force=True)


def test_a_disk_that_is_not_there_is_not_found(cl: Any) -> None:
    for call in (cl.disk.getinfo, cl.disk.mktable):
        with pytest.raises(g8os.NotFound, match="nosuchdisk"):
            call("nosuchdisk")


def test_btrfs_over_several_disks(cl: Any, disks: Callable[[], str], tmp_path: Path, name: str) -> None:
    first, second, third = (f"/dev/{disks()}" for _ in range(3))
    cl.btrfs.create(name, [first, second], "raid1", "raid1")
    with pytest.raises(g8os.JobError):
        cl.btrfs.create(name, [first])
    target = tmp_path / "btrfs"
    target.mkdir()
    cl.disk.mount(first, str(target))
    (volume,) = [volume for volume in cl.btrfs.list() if volume["label"] == name]
    assert {device["path"] for device in volume["devices"]} == {first, second}
    cl.btrfs.device_add(str(target), third)
    assert len(cl.btrfs.info(str(target))["devices"]) == 3
    cl.btrfs.device_remove(str(target), third)
    volume_path = str(target / "volume")
    cl.btrfs.subvol_create(volume_path)
    (target / "volume" / "file").write_text("kept")
    cl.btrfs.subvol_snapshot(volume_path, str(target / "snapshot"), read_only=True)
    assert (target / "snapshot" / "file").read_text() == "kept"
    assert {volume["Path"] for volume in cl.btrfs.subvol_list(str(target))} == {"volume", "snapshot"}
    cl.btrfs.subvol_quota(volume_path, "10M")
    cl.btrfs.subvol_delete(str(target / "snapshot"))
    cl.btrfs.subvol_delete(volume_path)
    assert not (target / "snapshot").exists()
    cl.disk.umount(first)
