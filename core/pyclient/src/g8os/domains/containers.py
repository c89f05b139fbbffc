"""Containers: `cl.container`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from ..call import AsyncRunner, Call, Domain, Json, R_co, Runner, command, json_call, plain_call
from ..result import Result

if TYPE_CHECKING:
    from ..aio import AsyncContainerClient
    from ..client import ContainerClient


# The name is a command's below.
list_ = list


class Container(Domain[R_co]):
    @command
    def create(
        self,
        root_url: str,
        mount: Mapping[str, str] | None = None,
        host_network: bool = False,
        zerotier: str | None = None,
        bridge: Sequence[tuple[str, str]] | None = None,
        port: Mapping[int, int] | None = None,
        hostname: str | None = None,
        storage: str | None = None,
        *,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        privileged: bool = False,
        limits: Mapping[str, float] | None = None,
        entrypoint: Sequence[str] | None = None,
        user: str | None = None,
        workdir: str | None = None,
        config: Mapping[str, str] | None = None,
        upper: str | None = None,
        upper_size: int | None = None,
        nics: Sequence[Mapping[str, Any]] | None = None,
    ) -> Call[int]:
        """Makes a container from an flist and answers with its number when it runs, before the flist is downloaded.

        `mount` names the place inside of each path of the node, or flist: `{"/srv/data": "/data"}`. `storage` says where
        blocks come from, such as `http://10.0.0.1:8080`. Without an entrypoint the container waits for commands:
        `client(number).system(...)`, which runs as the container's root and starts in `workdir`, or where the image says.
        What it writes lies in memory, up to `upper_size` bytes, or with `upper="disk"` on a disk of the node, as much as is
        free there; it is gone with the container either way.

        It has an address on the default bridge, and on each `bridge` that is named: `[("br0", "dhcp")]`, or `"10.0.0.2/24"`, or
        `""` for none. `nics` says it all instead, and `nics=[]` gives it none. `port={8080: 80}` leads port 8080 of the node
        to its port 80.
        """
        network = {key: value for key, value in (("zerotier", zerotier), ("bridge", bridge)) if value is not None}
        arguments: dict[str, Any] = {
            "root": root_url,
            "mount": mount,
            "host_network": host_network,
            "network": network,
            "port": port,
            "hostname": hostname,
            "storage": storage,
            "name": name,
            "tags": tags,
            "env": env,
            "privileged": privileged,
            "limits": limits,
            "entrypoint": entrypoint,
            "user": user,
            "workdir": workdir,
            "config": config,
            "upper": upper,
            "upper_size": upper_size,
            "nics": nics,
        }
        return Call("corex.create", {key: value for key, value in arguments.items() if value is not None}, Result.json)

    @command
    def list(self) -> Call[Json]:
        """All containers by their numbers, as texts."""
        return json_call("corex.list")

    @command
    def get(self, query: int | str, *, ended: bool = False) -> Call[Json]:
        """One container, by its number or its name; with `ended`, also one of the last that do not run any more."""
        # A node that does not know the argument refuses it.
        return json_call("corex.get", query=query, **({"ended": True} if ended else {}))

    @command
    def find(self, *tags: str) -> Call[Json]:
        """The containers that have all of some tags."""
        return json_call("corex.find", tags=list_(tags))

    @command
    def terminate(self, container: int) -> Call[None]:
        """Ends a container; it is taken apart after the answer."""
        return plain_call("corex.terminate", container=container)

    @overload
    def client(self: Container[Runner], container: int) -> ContainerClient: ...

    @overload
    def client(self: Container[AsyncRunner], container: int) -> AsyncContainerClient: ...

    def client(self, container: int) -> ContainerClient | AsyncContainerClient:
        """What has this container carry out commands: `system`, `bash`, and those of `info`, `process` and `filesystem`."""
        inside: ContainerClient | AsyncContainerClient = self._runner.inside(container)
        return inside
