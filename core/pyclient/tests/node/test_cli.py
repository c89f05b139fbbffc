"""The program `g8` on a real node: what it shows, as tables and as JSON, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

import g8os

Ran = subprocess.CompletedProcess[str]
G8 = Callable[..., Ran]

UNIT = """\
exec = ["sh", "-c", "echo begun; echo trouble >&2; trap 'echo told to end; exit 0' TERM; while :; do sleep 0.05; done"]
"""


def argv(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "g8os.cli", *arguments]


def environment(node: str, **more: str) -> dict[str, str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("G8_")}
    # The package that these tests import, wherever it is.
    return env | {"PYTHONPATH": str(Path(g8os.__file__).parents[1]), "G8_NODE": node, "TZ": "UTC"} | more


@pytest.fixture
def g8(address: str) -> G8:
    def run(*arguments: str, node: str = address, stdin: str = "") -> Ran:
        done = argv("--timeout", "60", *arguments)
        return subprocess.run(done, env=environment(node), input=stdin, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture
def service(g8: G8, address: str, name: str) -> Iterator[str]:
    """A service of our own, that has said two things."""
    file = Path(address) / "services" / f"{name}.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(UNIT)
    shows(g8("call", "service.reload"))
    until(lambda: len(g8("logs", name).stdout.splitlines()) == 2)
    yield name
    file.unlink()
    shows(g8("call", "service.reload"))


def shows(ran: Ran) -> str:
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    assert ran.stderr == ""
    return ran.stdout


def document(ran: Ran) -> Any:
    """The one document of `--json`, on one line."""
    (line,) = shows(ran).splitlines()
    return json.loads(line)


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def test_ping(g8: G8, address: str) -> None:
    line = rf"PONG [0-9.]+ from unix://{re.escape(address)}/redis\.sock in [0-9.]+ ms\n"
    assert re.fullmatch(line * 2, shows(g8("ping", "-c", "2")))
    pong = document(g8("ping", "--json"))
    assert pong["answer"].startswith("PONG ") and pong["milliseconds"] > 0 and pong["node"].endswith("redis.sock")


def test_ps_shows_jobs_and_not_its_own_question(g8: G8, address: str, name: str) -> None:
    assert document(g8("jobs", "--json")) == []
    running = subprocess.Popen(
        argv("exec", "--", "sh", "-c", f"echo {name}; exec sleep 600"), env=environment(address), stdout=subprocess.PIPE
    )
    with running:
        assert running.stdout is not None and running.stdout.readline() == f"{name}\n".encode()
        header, row = shows(g8("jobs")).splitlines()
        assert header.split() == ["ID", "PID", "AGE", "CPU%", "MEMORY", "COMMAND"]
        assert row.endswith(f"sh -c echo {name}; exec sleep 600") and row.split()[1].isdigit()
        (job,) = document(g8("jobs", "--json"))
        assert [str(job["pid"]), job["id"]] == [row.split()[1], row.split()[0]]
        assert shows(g8("jobs", "--no-headers")).count("\n") == 1
        # Ctrl-C of exec ends what it runs.
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
    until(lambda: document(g8("jobs", "--json")) == [])
    assert not Path(f"/proc/{job['pid']}").exists()


def test_info(g8: G8) -> None:
    pairs = dict(line.split(maxsplit=1) for line in shows(g8("info")).splitlines())
    assert list(pairs) == ["HOST", "OS", "KERNEL", "UPTIME", "PROCESSORS", "MEMORY", "CORE0"]
    assert pairs["KERNEL"] == os.uname().release and pairs["PROCESSORS"].startswith(f"{os.cpu_count()} x ")
    assert set(document(g8("info", "--json"))) == {"os", "version", "cpu", "mem"}
    header, *rows = [line.split() for line in shows(g8("info", "nic")).splitlines()]
    assert "lo" in [row[header.index("NAME")] for row in rows]
    for topic in ("cpu", "mem", "disk", "nic", "os", "port", "version"):
        assert shows(g8("info", topic)) and document(g8("info", topic, "--json"))


def test_services(g8: G8, service: str) -> None:
    until(lambda: document(g8("services", "--json"))[service]["state"] == "ready")
    header, *rows = shows(g8("services")).splitlines()
    assert header.split() == ["NAME", "STATE", "SINCE", "PID", "RESTARTS", "REASON"]
    (row,) = [row.split() for row in rows if row.startswith(service)]
    status = document(g8("services", "--json"))[service]
    assert [row[1], row[3], row[4], row[5]] == ["ready", str(status["pid"]), "0", "-"]
    shows(g8("call", "service.stop", f"name={service}"))
    assert document(g8("services", "--json"))[service]["state"] == "stopped"


def test_logs_of_a_service_are_its_last_lines(g8: G8, service: str) -> None:
    lines = shows(g8("logs", service)).splitlines()
    assert sorted(re.sub("^[0-9-]{10} [0-9:]{8} ", "", line) for line in lines) == [
        f"service {service}: begun",
        f"service {service}: trouble",
    ]
    assert len(shows(g8("logs", service, "-n", "1")).splitlines()) == 1
    records = [json.loads(line) for line in shows(g8("logs", service, "--json")).splitlines()]
    assert {(record["source"], record["level"], record["text"]) for record in records} == {
        (f"service {service}", 1, "begun"),
        (f"service {service}", 2, "trouble"),
    }
    assert all(abs(record["time"] - time.time()) < 600 for record in records)


@pytest.mark.parametrize(("ending", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_logs_are_followed_until_interrupted_and_no_listener_is_left(
    g8: G8, address: str, service: str, ending: signal.Signals, status: int
) -> None:
    password = (Path(address) / "redis" / "core0.password").read_text()
    # Which streams there are only core0 itself may ask.
    core0: Any = redis.Redis(unix_socket_path=f"{address}/redis.sock", username="core0", password=password)

    def listeners() -> set[str]:
        return {key.decode().removeprefix("logger:") for key in core0.keys("logger:g8-*")}

    with g8os.Client.connect(address, timeout=60) as node, contextlib.closing(core0):
        before = listeners()
        follow = argv("logs", "-f", service)
        with subprocess.Popen(follow, env=environment(address), stdout=subprocess.PIPE, text=True) as following:
            assert following.stdout is not None
            said = {following.stdout.readline().split(": ")[1] for _ in range(2)}
            assert said == {"begun\n", "trouble\n"}, "what was before comes first"
            (listener,) = listeners() - before
            shows(g8("call", "service.stop", f"name={service}"))
            assert any(line.endswith(f"service {service}: told to end\n") for line in following.stdout), "it comes live"
            following.send_signal(ending)
            assert following.wait(60) == status
        assert node.logger.unsubscribe(listener) is False, "the node still keeps a listener"


def test_logs_of_a_job_and_of_all(g8: G8, name: str) -> None:
    ended = document(g8("exec", "--json", "--", "sh", "-c", f"echo out {name}; echo err {name} >&2"))
    assert ended["state"] == "SUCCESS"
    texts = [line.split(": ", 1)[1] for line in shows(g8("logs", "--job", ended["id"])).splitlines()]
    assert sorted(texts) == [f"err {name}", f"out {name}"]
    assert f"out {name}" in shows(g8("logs"))


def test_exec_ends_as_its_program_and_keeps_its_streams_apart(g8: G8) -> None:
    ran = g8(
        "exec", "-i", "-d", "/usr", "-e", "A=b c", "--", "sh", "-c", 'cat; pwd; echo "$A"; echo oops >&2; exit 42', stdin="in\n"
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (42, "in\n/usr\nb c\n", "oops\n")
    assert g8("exec", "--", "sh", "-c", "kill -9 $$").returncode == 137
    ran = g8("exec", "--max-time", "0.3", "--", "sleep", "60")
    assert ran.returncode == 124 and "max_time" in ran.stderr
    ran = g8("exec", "--", "/no/such/program")
    assert (ran.returncode, ran.stdout) == (3, "") and "/no/such/program" in ran.stderr


def test_run_sends_any_command(g8: G8, tmp_path: Path, name: str) -> None:
    for verb in ("call", "run"):
        assert shows(g8(verb, "core.ping")).startswith("PONG ")
    assert shows(g8("run", "filesystem.exists", f"path={tmp_path}")) == "yes\n"
    assert g8("run", "filesystem.exists", "path").returncode == 2
    assert shows(g8("call", "filesystem.mkdir", f"path={tmp_path}/a b/c")) == ""
    assert (tmp_path / "a b" / "c").is_dir()
    assert shows(g8("call", "filesystem.list", f"path={tmp_path}")).splitlines()[0].split() == [
        "NAME",
        "SIZE",
        "MODE",
        "IS_DIR",
    ]
    (entry,) = document(g8("call", "filesystem.list", f"path={tmp_path}", "--json"))
    assert (entry["name"], entry["is_dir"]) == ("a b", True)
    created = g8("call", "bridge.create", f"name={name}", "network.mode=static", "network.settings.cidr=10.75.0.1/24")
    assert shows(created) == f"{name}\n"
    assert name in shows(g8("call", "bridge.list")).splitlines()
    assert shows(g8("call", "bridge.delete", f"name={name}")) == ""
    ran = g8("call", "bash", "script=echo out; echo err >&2; exit 3")
    assert (ran.returncode, ran.stdout) == (1, "out\n") and ran.stderr.startswith("err\n")


def test_what_goes_wrong_has_a_code_and_a_text_of_its_own(g8: G8, address: str, tmp_path: Path) -> None:
    wrong = g8("ping", node=f"unix://{address}/redis.sock?password=wr0ng")
    assert (wrong.returncode, wrong.stdout) == (4, "") and "refuses" in wrong.stderr and "wr0ng" not in wrong.stderr
    away = g8("ping", node=f"unix://{tmp_path}/redis.sock?password=wr0ng")
    what, then = away.stderr.splitlines()
    assert (away.returncode, away.stdout) == (5, "")
    assert what.startswith(f"g8: cannot reach the node at unix://{tmp_path}") and "core0" in then and "wr0ng" not in away.stderr
    reader = (Path(address) / "read.password").read_text().strip()
    forbidden = g8("exec", "--", "true", node=f"unix://read:{reader}@{address}/redis.sock")
    assert forbidden.returncode == 4 and "core.system" in forbidden.stderr
    for arguments, code, text in (
        (("call", "no.such"), 3, "there is no command"),
        (("logs", "nobody"), 3, "nobody"),
        (("logs", "-f", "nobody"), 3, "nobody"),
        (("logs", "--job", "nobody"), 3, "nobody"),
        (("call", "service.stop", "name=nobody"), 3, "nobody"),
        (("call", "filesystem.mkdir", "path=relative"), 1, "relative"),
        (("call", "filesystem.mkdir"), 1, "path"),
        (("call", "core.reboot"), 1, "no machine"),
    ):
        ran = g8(*arguments)
        assert (ran.returncode, ran.stdout) == (code, "") and ran.stderr.startswith("g8: ") and text in ran.stderr, ran
        failed = g8("--json", *arguments)
        assert failed.returncode == code
        if failed.stdout:
            assert text in json.loads(failed.stdout)["data"]
