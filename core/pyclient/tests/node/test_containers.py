"""Containers on a real node, from the flist `G8_TEST_FLIST` in the store `G8_TEST_STORE`."""

from __future__ import annotations

import io
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


def test_a_container_says_what_it_is_and_has_files_and_processes_of_its_own(cl: Any, container: int) -> None:
    inside = cl.container.client(container)
    assert inside.info.os()["hostname"] == f"core-{container}"
    assert [nic["name"] for nic in inside.info.nic()] == ["lo", "eth0"]
    assert (len(inside.info.cpu()), inside.info.version()) == (len(cl.info.cpu()), cl.info.version())
    assert inside.info.mem()["total"] > 0
    assert isinstance(inside.info.disk(), list)
    assert isinstance(inside.info.port(), list)

    job = inside.system(["sleep", "600"])
    # With that of the question.
    found = [each["id"] for each in inside.process.list()]
    assert job.id in found and len(found) == 2
    # As soon as it is a program.
    end = time.monotonic() + 60
    while not (found := [each for each in inside.process.list(pid=0) if each["cmdline"] == "sleep 600"]):
        assert time.monotonic() < end
    assert {each["pid"] for each in inside.process.list(pid=0)} >= {1, found[0]["pid"]}
    assert inside.process.kill(pid=found[0]["pid"], signal=9)
    assert job.get(60).code == 1137

    files = inside.filesystem
    # Nobody has it on the node.
    top = f"/tmp/inside-{os.urandom(8).hex()}"
    files.mkdir(f"{top}/b")
    content = os.urandom(600_000)
    files.upload(f"{top}/new", io.BytesIO(content))
    assert inside.system(["stat", "-c", "%s", f"{top}/new"]).get().stdout == "600000\n"
    files.move(f"{top}/new", f"{top}/moved")
    files.chmod(f"{top}/moved", 0o600)
    files.chown(f"{top}/moved", "web", "33")
    assert inside.system(["stat", "-c", "%a %u %g", f"{top}/moved"]).get().stdout == "600 33 33\n"
    sink = io.BytesIO()
    files.download(f"{top}/moved", sink)
    assert sink.getvalue() == content
    assert [(entry["name"], entry["is_dir"]) for entry in files.list(top)] == [("b", True), ("moved", False)]
    files.remove(top)
    assert not files.exists(top)
    assert not os.path.exists(top)
    with pytest.raises(g8os.NotFound):
        files.open(f"{top}/moved")


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
