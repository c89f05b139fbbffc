"""What a real node says of itself."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

import g8os


def test_processors_and_memory_are_those_of_the_machine(cl: Any) -> None:
    assert len(cl.info.cpu()) == os.cpu_count()
    mem = cl.info.mem()
    assert 0 < mem["available"] <= mem["total"]
    assert mem["total"] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_the_system_is_named(cl: Any) -> None:
    answer = cl.info.os()
    assert (answer["os"], answer["hostname"]) == ("linux", socket.gethostname())
    assert answer["kernelVersion"] == os.uname().release


def test_links_disks_and_ports_are_listed(cl: Any) -> None:
    assert "lo" in [nic["name"] for nic in cl.info.nic()]
    assert "/" in [disk["mountpoint"] for disk in cl.info.disk()]
    assert "tcp" in {port["network"].rstrip("46") for port in cl.info.port()}


def test_the_version_is_that_of_the_ping(cl: Any) -> None:
    assert cl.info.version()["version"] == cl.ping().removeprefix("PONG ")


def test_core0_tells_its_own_use_and_configuration(cl: Any) -> None:
    assert cl.core.state()["rss"] > 0
    assert isinstance(cl.config.get(), dict)


def test_a_node_for_developing_is_no_machine_to_switch_off(cl: Any) -> None:
    for call in (cl.core.reboot, cl.core.poweroff):
        with pytest.raises(g8os.NotSupported, match="no machine"):
            call()
    assert cl.ping().startswith("PONG ")
