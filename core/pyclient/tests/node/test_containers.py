"""Containers on a real node, from the flist `G8_TEST_FLIST` in the store `G8_TEST_STORE`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

import g8os


@pytest.fixture
def container(cl: Any, name: str) -> Iterator[int]:
    store = f"dir:{os.environ['G8_TEST_STORE']}"
    number = cl.container.create(
        os.environ["G8_TEST_FLIST"], storage=store, name=name, tags=[name], env={"MARK": "environment"}
    )
    yield number
    cl.container.terminate(number)


def test_a_container_is_found_by_its_number_name_and_tag(cl: Any, container: int, name: str) -> None:
    assert cl.container.get(container)["id"] == container
    assert cl.container.get(name)["container"]["arguments"]["name"] == name
    assert list(cl.container.find(name)) == [str(container)]
    assert str(container) in cl.container.list()
    with pytest.raises(g8os.NotFound):
        cl.container.get("nobody")


def test_a_container_carries_out_commands(cl: Any, container: int) -> None:
    inside = cl.container.client(container)
    assert inside.ping().startswith("PONG ")
    result = inside.system(["sh", "-c", "echo $MARK; cat"], stdin="input").check()
    assert result.stdout == "environment\ninput\n"
    result = inside.bash("exit 3").get()
    assert (result.state, result.code) == ("ERROR", 1003)
    with pytest.raises(g8os.NotSupported):
        inside.json("disk.list", {})


def test_a_container_has_a_network(cl: Any, name: str) -> None:
    store = f"dir:{os.environ['G8_TEST_STORE']}"
    # One that ended before is taken apart after its end was answered: another port each time.
    port_of_node = 20_000 + int(name[1:], 16) % 20_000
    server = ["httpd", "-f", "-p", "80", "-h", "/etc"]
    number = cl.container.create(
        os.environ["G8_TEST_FLIST"], storage=store, name=name, port={port_of_node: 80}, entrypoint=server
    )
    try:
        network = cl.container.get(number)["container"]["network"]
        assert network["ports"] == [{"protocol": "tcp", "host": port_of_node, "container": 80}]
        assert network["nics"][0]["address"].startswith("172.18.0.")
        result = cl.container.client(number).system(["ping", "-c", "1", "-W", "20", "172.18.0.1"]).get()
        assert (result.state, " 1 packets received" in result.stdout) == ("SUCCESS", True), result.stdout
        with pytest.raises(g8os.Conflict, match="taken by container"):
            cl.container.create(os.environ["G8_TEST_FLIST"], storage=store, port={port_of_node: 80})
    finally:
        cl.container.terminate(number)
    with pytest.raises(g8os.NotSupported, match="ZeroTier"):
        cl.container.create(os.environ["G8_TEST_FLIST"], storage=store, zerotier="8056c2e21c000001")
    alone = cl.container.create(os.environ["G8_TEST_FLIST"], storage=store, nics=[])
    assert cl.container.get(alone)["container"]["network"]["nics"] == []
    cl.container.terminate(alone)


def test_a_command_is_dispatched_as_the_old_client_does_it(cl: Any, container: int) -> None:
    command = {"command": "core.system", "arguments": {"name": "hostname"}}
    response = cl.response_for(cl.json("corex.dispatch", {"container": container, "command": command}))
    deadline = time.monotonic() + 60
    while not response.exists:  # It is answered before the command for the container has been taken in.
        assert time.monotonic() < deadline
    result = response.check()
    assert (result.stdout, result.container) == (f"core-{container}\n", container)


def test_commands_for_a_container_that_is_not_there_fail(cl: Any) -> None:
    with pytest.raises(g8os.NotFound):
        cl.container.client(60_000).ping()
    with pytest.raises(g8os.InvalidArgument):
        cl.container.client(0).ping()
    with pytest.raises(g8os.NotFound):
        cl.container.terminate(60_000)
