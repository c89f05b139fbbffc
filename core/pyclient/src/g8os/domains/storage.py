"""Disks, btrfs and flists: `cl.disk`, `cl.btrfs`, `cl.flist`."""

from __future__ import annotations

from collections.abc import Sequence

from ..call import Call, Domain, Json, R_co, command, json_call, plain_call
from ..errors import InvalidArgument
from ..result import Result


class Disk(Domain[R_co]):
    """Disks go by their short names (`sda`), mounts by whole paths (`/dev/sda1`)."""

    @command
    def list(self) -> Call[Json]:
        return json_call("disk.list")

    @command
    def getinfo(self, disk: str, part: str = "") -> Call[Json]:
        return json_call("disk.getinfo", disk=disk, part=part)

    @command
    def mktable(self, disk: str, table_type: str = "gpt", *, force: bool = False) -> Call[None]:
        """Writes an empty partition table; `force` also where there is something already."""
        return plain_call("disk.mktable", disk=disk, table_type=table_type, **_forced(force))

    @command
    def mkpart(self, disk: str, start: int | str, end: int | str, part_type: str = "primary") -> Call[None]:
        """Makes a partition; start and end as parted takes them."""
        return plain_call("disk.mkpart", disk=disk, start=start, end=end, part_type=part_type)

    @command
    def rmpart(self, disk: str, number: int) -> Call[None]:
        return plain_call("disk.rmpart", disk=disk, number=number)

    @command
    def mount(self, source: str, target: str, options: Sequence[str] = ()) -> Call[None]:
        if isinstance(options, str):
            raise InvalidArgument(f"options {options!r} are a text, not a list of texts")
        return plain_call("disk.mount", source=source, target=target, options=",".join(options) or "auto")

    @command
    def umount(self, source: str) -> Call[None]:
        return plain_call("disk.umount", source=source)


class Btrfs(Domain[R_co]):
    @command
    def list(self) -> Call[Json]:
        return json_call("btrfs.list")

    @command
    def info(self, mountpoint: str) -> Call[Json]:
        return json_call("btrfs.info", mountpoint=mountpoint)

    @command
    def create(
        self,
        label: str,
        devices: Sequence[str],
        metadata_profile: str = "",
        data_profile: str = "",
        overwrite: bool = False,
    ) -> Call[None]:
        """Makes a file system over whole devices; `overwrite` also where there is something already."""
        return plain_call(
            "btrfs.create",
            label=label,
            metadata=metadata_profile,
            data=data_profile,
            devices=_devices(devices),
            overwrite=overwrite,
        )

    @command
    def device_add(self, mountpoint: str, *device: str, force: bool = False) -> Call[None]:
        """Adds devices; `force` also those that carry something already."""
        return plain_call("btrfs.device_add", mountpoint=mountpoint, devices=_devices(device), **_forced(force))

    @command
    def device_remove(self, mountpoint: str, *device: str) -> Call[None]:
        return plain_call("btrfs.device_remove", mountpoint=mountpoint, devices=_devices(device))

    @command
    def subvol_create(self, path: str) -> Call[None]:
        return plain_call("btrfs.subvol_create", path=path)

    @command
    def subvol_list(self, path: str) -> Call[Json]:
        return json_call("btrfs.subvol_list", path=path)

    @command
    def subvol_delete(self, path: str) -> Call[None]:
        return plain_call("btrfs.subvol_delete", path=path)

    @command
    def subvol_quota(self, path: str, limit: str) -> Call[None]:
        """Limits what a subvolume may hold, such as 10M."""
        return plain_call("btrfs.subvol_quota", path=path, limit=limit)

    @command
    def subvol_snapshot(self, source: str, destination: str, read_only: bool = False) -> Call[None]:
        return plain_call("btrfs.subvol_snapshot", source=source, destination=destination, read_only=read_only)


class Flist(Domain[R_co]):
    @command
    def mount(
        self,
        reference: str,
        mountpoint: str,
        sources: Sequence[str] = (),
        mode: str | None = None,
        suid: bool = False,
        dev: bool = False,
    ) -> Call[Json]:
        """Mounts an flist by its address on a folder that is there; `sources` are asked for its blocks, in order.

        Where nothing is said of `sources` and `mode`, the node's own settings hold.
        """
        arguments = {"ref": reference, "mountpoint": mountpoint, "from": [*sources], "mode": mode, "suid": suid, "dev": dev}
        return Call("flist.mount", arguments, Result.json)

    @command
    def umount(self, mountpoint: str, lazy: bool = False) -> Call[None]:
        return plain_call("flist.umount", mountpoint=mountpoint, lazy=lazy)

    @command
    def list(self) -> Call[Json]:
        return json_call("flist.list")

    @command
    def info(self, mountpoint: str) -> Call[Json]:
        return json_call("flist.info", mountpoint=mountpoint)


def _forced(force: bool) -> dict[str, bool]:
    return {"force": True} if force else {}


def _devices(devices: Sequence[str]) -> list[str]:
    if isinstance(devices, str) or not devices or not all(isinstance(device, str) for device in devices):
        raise InvalidArgument(f"devices {devices!r} are not a list of at least one path")
    return [*devices]
