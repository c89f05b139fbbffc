"""Networks of a real node, which runs in a network namespace of its own: what starts it sees to that."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import g8os


@pytest.fixture(autouse=True)
def own_namespace() -> None:
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert not any(line.startswith(("eth", "en")) for line in links), "these tests change networks: not on a real machine"


@pytest.fixture
def pair(name: str) -> Iterator[tuple[str, str]]:
    """A virtual cable. Linux without `dummy` has no simpler link."""
    ends = (f"{name}a", f"{name}b")
    subprocess.run(["ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]], check=True)
    yield ends
    subprocess.run(["ip", "link", "del", ends[0]], check=False, stderr=subprocess.DEVNULL)


def link(cl: Any, name: str) -> dict[str, Any]:
    (found,) = [link for link in cl.ip.link.list() if link["name"] == name]
    return dict(found)


def test_a_link_is_set_up_down_resized_and_renamed(cl: Any, pair: tuple[str, str]) -> None:
    end = pair[0]
    assert link(cl, end)["up"] is False
    cl.ip.link.up(end)
    assert link(cl, end)["up"] is True
    cl.ip.link.mtu(end, 1400)
    assert link(cl, end)["mtu"] == 1400
    cl.ip.link.down(end)
    cl.ip.link.name(end, f"{end}x")
    assert link(cl, f"{end}x")["up"] is False
    cl.ip.link.name(f"{end}x", end)


def test_addresses_and_routes_come_and_go(cl: Any, pair: tuple[str, str]) -> None:
    end = pair[0]
    for one in pair:
        cl.ip.link.up(one)
    cl.ip.addr.add(end, "10.71.0.1/24")
    assert "10.71.0.1/24" in cl.ip.addr.list(end)
    cl.ip.route.add(end, "10.72.0.0/16", "10.71.0.2")
    wanted = {"dev": end, "dst": "10.72.0.0/16", "gw": "10.71.0.2"}
    assert wanted in cl.ip.route.list()
    cl.ip.route.delete(end, "10.72.0.0/16", "10.71.0.2")
    assert wanted not in cl.ip.route.list()
    cl.ip.addr.delete(end, "10.71.0.1/24")
    assert "10.71.0.1/24" not in cl.ip.addr.list(end)


def test_links_are_plugged_into_a_bridge(cl: Any, pair: tuple[str, str], name: str) -> None:
    cl.ip.bridge.add(name, "02:00:00:00:00:07")
    assert link(cl, name)["hwaddr"] == "02:00:00:00:00:07"
    cl.ip.bridge.addif(name, pair[0])
    assert link(cl, pair[0])["master"] == name
    cl.ip.bridge.delif(name, pair[0])
    assert link(cl, pair[0])["master"] == ""
    cl.ip.bridge.delete(name)
    assert name not in [link["name"] for link in cl.ip.link.list()]


def test_bridges_of_every_mode_are_made_and_deleted(cl: Any, name: str) -> None:
    plans: list[dict[str, Any]] = [
        {},
        {"network": "static", "settings": {"cidr": "10.73.0.1/24"}},
        {"network": "static", "nat": True, "settings": {"cidr": "10.73.0.1/24"}},
        {"network": "dnsmasq", "nat": True, "settings": {"cidr": "10.73.0.1/24", "start": "10.73.0.2", "end": "10.73.0.9"}},
    ]
    for plan in plans:
        assert cl.bridge.create(name, **plan) == name
        assert name in cl.bridge.list()
        addresses = [address for address in cl.ip.addr.list(name) if "." in address]
        assert addresses == (["10.73.0.1/24"] if plan else [])
        with pytest.raises(g8os.Conflict):
            cl.bridge.create(name)
        cl.bridge.delete(name)
        assert name not in cl.bridge.list()
    with pytest.raises(g8os.NotFound):
        cl.bridge.delete(name)


def test_ports_are_opened_and_dropped(cl: Any) -> None:
    for limits in ({}, {"interface": "lo"}, {"subnet": "10.0.0.0/8"}, {"interface": "lo", "subnet": "10.0.0.0/8"}):
        assert cl.nft.rule_exists(8123, **limits) is False
        cl.nft.open_port(8123, **limits)
        assert cl.nft.rule_exists(8123, **limits) is True
        assert len(cl.nft.list()) == 1
        cl.nft.drop_port(8123, **limits)
        assert cl.nft.list() == []


def test_what_is_not_there_is_not_found(cl: Any, name: str) -> None:
    calls: tuple[Callable[[], Any], ...] = (
        lambda: cl.ip.link.up(name),
        lambda: cl.ip.addr.add(name, "10.71.0.1/24"),
        lambda: cl.ip.route.add(name, "10.72.0.0/16"),
        lambda: cl.ip.bridge.addif(name, "lo"),
    )
    for call in calls:
        with pytest.raises(g8os.NotFound, match=name):
            call()


def test_names_and_addresses_that_are_none_are_refused(cl: Any) -> None:
    calls: tuple[Callable[[], Any], ...] = (
        lambda: cl.ip.link.up("a b"),
        lambda: cl.ip.link.up("x" * 16),
        lambda: cl.ip.addr.add("lo", "10.0.0.300/24"),
        lambda: cl.ip.addr.add("lo", "10.0.0.1/33"),
        lambda: cl.bridge.create("; reboot"),
        lambda: cl.nft.open_port(70_000),
        lambda: cl.nft.open_port(80, subnet="10.0.0.0/8; drop"),
    )
    for call in calls:
        with pytest.raises(g8os.BadArguments):
            call()
