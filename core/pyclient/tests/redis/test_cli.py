"""The program `g8`, as a program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import RedisServer
from .scripted import ScriptedNode

Ran = subprocess.CompletedProcess[str]
G8 = Callable[..., Ran]


@pytest.fixture
def g8(server: RedisServer) -> G8:
    def run(*arguments: str, node: str | None = server.url, stdin: str = "", **environment: str) -> Ran:
        env = {k: v for k, v in os.environ.items() if not k.startswith("G8_")} | environment
        if node is not None:
            env["G8_NODE"] = node
        argv = [sys.executable, "-m", "g8os.cli", *arguments]
        return subprocess.run(argv, env=env, input=stdin, capture_output=True, text=True, timeout=60)

    return run


def test_a_ping_says_who_answered_and_how_fast(g8: G8, server: RedisServer, node: ScriptedNode) -> None:
    ran = g8("ping", "--count", "2")
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"PONG scripted from redis://127.0.0.1:{server.port} in ") and lines[0].endswith(" ms")
    assert json.loads(g8("--json", "ping").stdout)["answer"] == "PONG scripted"
    assert json.loads(g8("ping", "--json").stdout)["answer"] == "PONG scripted"


def test_the_node_may_be_given_in_every_form(g8: G8, server: RedisServer, node: ScriptedNode, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    ready.write_text(f'ready {{"host":"127.0.0.1","port":{server.port},"password":"pass/word@1"}}\n')
    (tmp_path / "password").write_text("pass/word@1")
    for form in (server.url, server.socket_url, ready.read_text(), str(ready), str(tmp_path)):
        assert g8("--node", form, "ping", node=None).returncode == 0, form
        assert g8("ping", node=form).returncode == 0, form


def test_tables_are_plain_and_control_no_terminal(g8: G8, node: ScriptedNode) -> None:
    ran = g8("jobs")
    assert ran.stdout == "ID  PID  AGE  CPU%  MEMORY   COMMAND\na   7    1m   1.2   3.0 MiB  sleep \ufffd[31m9\n"
    assert g8("jobs", "--no-headers").stdout.count("\n") == 1
    assert json.loads(g8("jobs", "--json").stdout)[0]["cmd"]["arguments"]["args"] == ["\x1b[31m9"]
    lines = ["NAME   STATE   SINCE  PID  RESTARTS  REASON", "ntp    failed  1m     -    0         no net"]
    assert g8("services").stdout.splitlines() == [*lines, "redis  ready   1m     12   3         -"]
    assert set(json.loads(g8("services", "--json").stdout)) == {"ntp", "redis"}


def test_exec_ends_as_its_program_and_keeps_its_streams_apart(g8: G8, node: ScriptedNode) -> None:
    ran = g8("exec", "--", "echo", "-n", "two words", "--json", "--")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "echo -n two words --json --\n", "")
    ran = g8("exec", "--dir", "/tmp", "-e", "A=b=c", "-i", "--queue", "q", "--max-time", "9", "--", "exit", "42", stdin="in")
    assert (ran.returncode, ran.stdout, ran.stderr) == (42, "", "about to fail\n")
    sent = node.taken[-1]
    assert sent["arguments"] == {"name": "exit", "args": ["42"], "dir": "/tmp", "stdin": "in", "env": {"A": "b=c"}}
    assert (sent["queue"], sent["max_time"], sent["stream"]) == ("q", 9, True)
    ran = g8("--json", "exec", "--", "exit", "3")
    assert (ran.returncode, json.loads(ran.stdout)["code"]) == (3, 1003)


def test_run_sends_any_command(g8: G8, node: ScriptedNode) -> None:
    ran = g8(
        "call",
        "--json",
        "test.echo",
        "text=a b",
        "number=7",
        'quoted="7"',
        "list=[1,2]",
        "net.nat=true",
        "net.mode=static",
        "e=",
    )
    assert ran.returncode == 0, ran.stderr
    wanted = {"text": "a b", "number": 7, "quoted": "7", "list": [1, 2], "net": {"nat": True, "mode": "static"}, "e": ""}
    assert json.loads(ran.stdout) == wanted
    assert g8("call", "core.ping").stdout == "PONG scripted\n"
    assert g8("call", "job.list").stdout.startswith("ID  PID  CPU")
    assert g8("call", "core.system", "name=echo", 'args=["x"]').stdout == "echo x\n"


def test_logs_of_a_service_are_its_last_lines(g8: G8, node: ScriptedNode) -> None:
    ran = g8("logs", "redis", "-n", "2", TZ="UTC")
    assert ran.stdout == "1970-01-01 00:01:38 service redis: line 98\n1970-01-01 00:01:39 service redis: line 99\n"
    records = [json.loads(line) for line in g8("--json", "logs", "redis").stdout.splitlines()]
    assert len(records) == 20 and records[-1] == {"time": 99, "source": "service redis", "level": 1, "text": "line 99"}


def test_logs_of_all_leave_no_listener_behind(g8: G8, node: ScriptedNode) -> None:
    assert g8("logs", TZ="UTC").stdout == "1970-01-01 00:00:00 job x: said before\n"
    assert node.listeners == set()


def ended(process: subprocess.Popen[str]) -> int:
    """How it ends. One that does not says where it hangs, on stderr, and is ended."""
    try:
        return process.wait(60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        raise


ENDS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("ending", "status"), ENDS)
def test_following_ends_when_interrupted_and_leaves_no_listener_behind(
    server: RedisServer, node: ScriptedNode, ending: signal.Signals, status: int
) -> None:
    argv = [sys.executable, "-X", "faulthandler", "-m", "g8os.cli", "--node", server.url, "logs", "-f", "redis"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline().endswith("service redis: said before\n")
        (listener,) = node.listeners
        node.add(f"logger:{listener}", "level", 2, "time", 1000, "source", "service redis", "text", "said \x1b]0;now")
        assert following.stdout.readline().endswith("service redis: said \ufffd]0;now\n")
        following.send_signal(ending)
        assert ended(following) == status
    assert node.listeners == set()


@pytest.mark.parametrize(("ending", "status"), ENDS)
def test_an_interrupted_exec_kills_its_job(
    server: RedisServer, node: ScriptedNode, ending: signal.Signals, status: int
) -> None:
    argv = [sys.executable, "-X", "faulthandler", "-m", "g8os.cli", "--node", server.url, "exec", "--", "hang"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "hanging\n"
        running.send_signal(ending)
        assert ended(running) == status
    assert [job["command"] for job in node.taken] == ["core.system", "job.kill"]
    assert node.taken[1]["arguments"] == {"id": node.taken[0]["id"], "signal": 15}


@pytest.mark.parametrize(("code", "status"), [(400, 1), (403, 4), (404, 3), (409, 1), (412, 1), (500, 1), (503, 1)])
def test_what_the_node_refuses_is_told_on_stderr(g8: G8, node: ScriptedNode, code: int, status: int) -> None:
    ran = g8("call", "test.fail", f"code={code}", "text=no disk sdz")
    assert (ran.returncode, ran.stdout) == (status, "")
    assert ran.stderr == f"g8: test.fail ended with ERROR {code}: no disk sdz\n"


def test_a_failure_is_a_document_with_json_and_shows_what_the_process_said_without(g8: G8, node: ScriptedNode) -> None:
    ran = g8("--json", "call", "test.fail", "code=412", "text=no disk sdz")
    document = json.loads(ran.stdout)
    assert (ran.returncode, document["code"], json.loads(document["data"])) == (1, 412, "no disk sdz")
    assert "no disk sdz" in ran.stderr
    ran = g8("call", "core.system", "name=exit", 'args=["3"]')
    assert (ran.returncode, ran.stdout) == (1, "so far\n")
    assert ran.stderr.startswith("about to fail\n") and "exit status 3" in ran.stderr


def test_output_that_cannot_be_written_is_told_in_a_line(server: RedisServer, node: ScriptedNode) -> None:
    program = f"{sys.executable} -m g8os.cli --node '{server.url}'"
    for command in ("ping", "exec -- echo x"):
        ran = subprocess.run(["sh", "-c", f"{program} {command} >/dev/full"], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 1
        assert ran.stderr == "g8: the output cannot be written: No space left on device\n"
        ran = subprocess.run(["sh", "-c", f"{program} {command} >&-"], capture_output=True, text=True, timeout=60)
        assert (ran.returncode, ran.stderr) == (0, "")


def test_a_relative_folder_is_a_node(g8: G8, server: RedisServer, node: ScriptedNode, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("pass/word@1")
    relative = os.path.relpath(tmp_path)
    for form in (relative, relative.removeprefix("./")):
        assert g8("ping", node=form).returncode == 0, form


def test_an_unknown_command_is_not_found(g8: G8, node: ScriptedNode) -> None:
    ran = g8("call", "no.such")
    assert (ran.returncode, ran.stdout) == (3, "") and "no such command" in ran.stderr


def test_a_node_that_is_not_there_is_5_and_says_what_next(g8: G8, server: RedisServer) -> None:
    server.kill()
    ran = g8("ping")
    assert ran.returncode == 5
    what, then = ran.stderr.splitlines()
    assert what.startswith("g8: cannot reach the node at redis://127.0.0.1:") and "core0" in then


def test_a_wrong_password_is_4_and_shows_nowhere(g8: G8, server: RedisServer) -> None:
    ran = g8("ping", node=f"redis://:s3cret@127.0.0.1:{server.port}")
    assert ran.returncode == 4
    assert "s3cret" not in ran.stderr and "refuses" in ran.stderr


def test_a_node_that_takes_nothing_in_is_124(g8: G8, server: RedisServer) -> None:
    began = time.monotonic()
    assert g8("--timeout", "0.2", "ping").returncode == 124
    assert g8("exec", "--timeout", "0.2", "--", "true").returncode == 124
    assert time.monotonic() - began < 50


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nothing",),
        ("ping", "--count", "0"),
        ("--timeout", "-1", "ping"),
        ("exec",),
        ("exec", "--env", "A", "--", "x"),
        ("exec", "--", "a\udcffb"),
        ("call",),
        ("call", "core ping"),
        ("call", "test.echo", "novalue"),
        ("call", "test.echo", "a=1", "a=2"),
        ("call", "test.echo", "a=1", "a.b=2"),
        ("call", "test.echo", ".=1"),
        ("info", "weather"),
        ("logs", "redis", "--job", "x"),
        ("--node", "http://x", "ping"),
        ("--node", "/no/such", "ping"),
    ],
)
def test_wrong_usage_is_2_and_sends_nothing(g8: G8, node: ScriptedNode, arguments: tuple[str, ...]) -> None:
    ran = g8(*arguments)
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
    assert ran.stderr
    assert node.taken == []


def test_without_a_node_the_error_says_how_to_name_one(g8: G8) -> None:
    ran = g8("ping", node=None)
    assert ran.returncode == 2
    assert "no node is named" in ran.stderr and "G8_NODE" in ran.stderr


def test_help_names_all_commands_and_codes(g8: G8) -> None:
    ran = g8("--help", node=None)
    assert ran.returncode == 0
    for word in ("ping", "ps", "jobs", "info", "services", "logs", "exec", "run", "rm", "call", "124 time-out", "G8_NODE"):
        assert word in ran.stdout
    assert g8("--version", node=None).stdout.startswith("g8 0.")


def test_a_reader_that_leaves_is_no_error_message(server: RedisServer, node: ScriptedNode) -> None:
    command = f"{sys.executable} -m g8os.cli --node '{server.url}' exec -- flood | head -n 1"
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("flood 0\n", "")
