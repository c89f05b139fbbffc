"""Networks: `cl.ip`, `cl.bridge`, `cl.nft`."""

from __future__ import annotations

from collections.abc import Mapping

from ..call import Call, Domain, Json, R_co, command, json_call, plain_call


class IpLink(Domain[R_co]):
    @command
    def list(self) -> Call[Json]:
        return json_call("ip.link.list")

    @command
    def up(self, link: str) -> Call[None]:
        return plain_call("ip.link.up", name=link)

    @command
    def down(self, link: str) -> Call[None]:
        return plain_call("ip.link.down", name=link)

    @command
    def name(self, link: str, name: str) -> Call[None]:
        """Gives a link another name."""
        return plain_call("ip.link.name", name=link, new=name)

    @command
    def mtu(self, link: str, mtu: int) -> Call[None]:
        return plain_call("ip.link.mtu", name=link, mtu=mtu)


class IpAddr(Domain[R_co]):
    @command
    def list(self, link: str) -> Call[Json]:
        return json_call("ip.addr.list", name=link)

    @command
    def add(self, link: str, ip: str) -> Call[None]:
        """Adds an address such as 10.0.0.1/24."""
        return plain_call("ip.addr.add", name=link, ip=ip)

    @command
    def delete(self, link: str, ip: str) -> Call[None]:
        return plain_call("ip.addr.del", name=link, ip=ip)


class IpRoute(Domain[R_co]):
    @command
    def list(self) -> Call[Json]:
        return json_call("ip.route.list")

    @command
    def add(self, dev: str, dst: str = "", gw: str | None = None) -> Call[None]:
        """Adds a route to a network such as 10.0.0.0/8, or to everywhere if `dst` is empty."""
        return plain_call("ip.route.add", dev=dev, dst=dst, gw=gw)

    @command
    def delete(self, dev: str, dst: str = "", gw: str | None = None) -> Call[None]:
        return plain_call("ip.route.del", dev=dev, dst=dst, gw=gw)


class IpBridge(Domain[R_co]):
    @command
    def add(self, name: str, hwaddr: str | None = None) -> Call[None]:
        return plain_call("ip.bridge.add", name=name, hwaddr=hwaddr)

    @command
    def delete(self, name: str) -> Call[None]:
        return plain_call("ip.bridge.del", name=name)

    @command
    def addif(self, name: str, inf: str) -> Call[None]:
        """Plugs a link into a bridge."""
        return plain_call("ip.bridge.addif", name=name, inf=inf)

    @command
    def delif(self, name: str, inf: str) -> Call[None]:
        return plain_call("ip.bridge.delif", name=name, inf=inf)


class Ip(Domain[R_co]):
    def __init__(self, runner: R_co) -> None:
        super().__init__(runner)
        self.link: IpLink[R_co] = IpLink(runner)
        self.addr: IpAddr[R_co] = IpAddr(runner)
        self.route: IpRoute[R_co] = IpRoute(runner)
        self.bridge: IpBridge[R_co] = IpBridge(runner)


class Bridge(Domain[R_co]):
    @command
    def create(
        self,
        name: str,
        hwaddr: str | None = None,
        network: str | None = None,
        nat: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> Call[Json]:
        """Makes a bridge; answers with its name.

        `network` None leaves it without an address; `static` takes settings {cidr}; `dnsmasq` takes {cidr, start, end}
        and hands out addresses from start to end. `nat` lets what is on it reach the world by the node's address.
        """
        plan = {"mode": network, "nat": nat, "settings": dict(settings or {})}
        return json_call("bridge.create", name=name, hwaddr=hwaddr, network=plan)

    @command
    def list(self) -> Call[Json]:
        return json_call("bridge.list")

    @command
    def delete(self, bridge: str) -> Call[None]:
        return plain_call("bridge.delete", name=bridge)


class Nft(Domain[R_co]):
    @command
    def open_port(self, port: int, interface: str | None = None, subnet: str | None = None) -> Call[None]:
        """Lets packets in to a port, if need be only from one interface or network."""
        return plain_call("nft.open_port", port=port, interface=interface, subnet=subnet)

    @command
    def drop_port(self, port: int, interface: str | None = None, subnet: str | None = None) -> Call[None]:
        """Takes back what open_port with the same arguments did."""
        return plain_call("nft.drop_port", port=port, interface=interface, subnet=subnet)

    @command
    def list(self) -> Call[Json]:
        return json_call("nft.list")

    @command
    def rule_exists(self, port: int, interface: str | None = None, subnet: str | None = None) -> Call[Json]:
        return json_call("nft.rule_exists", port=port, interface=interface, subnet=subnet)
