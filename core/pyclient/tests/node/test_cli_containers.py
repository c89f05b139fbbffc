"""`g8` and containers, on a real node."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import g8os

PATIENCE = 60
# As pytest found it: from the installed wheel.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(g8os.__file__).parents[1])}


def g8(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "g8os.cli", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        env=ENVIRONMENT,
    )


def make(*options: str, command: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    store = f"dir:{os.environ['G8_TEST_STORE']}"
    words = ("run", "--storage", store, *options, os.environ["G8_TEST_FLIST"])
    return g8(*words, *(("--", *command) if command else ()))


def test_a_command_runs_in_a_container_of_its_own_that_goes_with_it(cl: Any, name: str) -> None:
    before = set(cl.container.list())
    ran = make("-e", "A=b", "--hostname", "thrown", "-w", "/tmp", command=("sh", "-c", "hostname; echo $A; pwd; exit 3"))
    assert (ran.stdout, ran.stderr, ran.returncode) == ("thrown\nb\n/tmp\n", "", 3)
    assert set(cl.container.list()) == before
    ran = make("--upper", "disk", command=("sh", "-c", "echo written > /file; cat /file"))
    assert (ran.stdout, ran.returncode) == ("written\n", 0), ran.stderr
    ran = make(command=("no-such-program",))
    assert ran.returncode != 0 and "no-such-program" in ran.stderr
    assert set(cl.container.list()) == before


def test_a_folder_to_start_in_holds_for_entrypoints_and_commands(cl: Any, name: str) -> None:
    number = make("-d", "--name", name, "-w", "/made/here", command=("sh", "-c", "pwd > /said; sleep 600")).stdout.strip()
    end = time.monotonic() + PATIENCE
    while (ran := g8("exec", "-c", number, "--", "sh", "-c", "pwd; cat /said")).stdout != "/made/here\n/made/here\n":
        assert time.monotonic() < end, ran
    assert g8("exec", "-d", "/etc", "-c", number, "--", "sh", "-c", "pwd").stdout == "/etc\n"
    assert g8("rm", number).returncode == 0
    before = set(cl.container.list())
    for options, command in ((("-d", "-i"), ("cat",)), (("-dt",), ("sh",)), (("-i",), ())):
        ran = make(*options, command=command)
        assert ran.returncode == 2 and "is waited for" in ran.stderr and "g8 exec -it" in ran.stderr, ran
    ran = make("-w", "relative", command=("true",))
    assert ran.returncode == 1 and "must be absolute" in ran.stderr, ran
    assert set(cl.container.list()) == before


def test_a_name_of_two_containers_ends_neither(cl: Any, name: str) -> None:
    first, second = (make("-d", "--name", name).stdout.strip() for _ in range(2))
    ran = g8("rm", first, name)
    assert ran.returncode == 2 and f"2 containers are called {name}: {first}, {second}" in ran.stderr, ran
    assert {first, second} <= set(cl.container.list())
    assert g8("rm", second, second).returncode == 0
    assert g8("rm", name).returncode == 0
    assert not {first, second} & set(cl.container.list())


def test_a_container_is_made_listed_entered_and_ended(cl: Any, name: str) -> None:
    port = 20_000 + int(name[1:], 16) % 20_000
    ran = make("-d", "--name", name, "-p", f"{port}:80", command=("httpd", "-f", "-p", "80", "-h", "/etc"))
    assert (ran.returncode, ran.stderr) == (0, "")
    number = ran.stdout.strip()
    listed = next(line for line in g8("ps").stdout.splitlines() if line.split()[0] == number)
    assert name in listed and "172.18.0." in listed and "httpd -f" in listed
    assert json.loads(g8("ps", "--json").stdout)[number]["container"]["network"]["ports"][0]["host"] == port
    for query in (number, name):
        ran = g8("exec", "-i", "-c", query, "--", "sh", "-c", "hostname; cat; exit 4", stdin="typed\n")
        assert (ran.stdout, ran.returncode) == (f"core-{number}\ntyped\n", 4), ran.stderr
    assert g8("exec", "-c", "nobody", "--", "true").returncode == 3
    assert "needs a terminal" in g8("exec", "-t", "-c", name, "--", "sh").stderr
    assert g8("rm", name).returncode == 0
    assert number not in cl.container.list()
    assert g8("rm", name).returncode == 3


def test_a_terminal_reaches_into_a_container(cl: Any, name: str) -> None:
    number = make("--name", name).stdout.strip()
    ours, its = pty.openpty()
    # As wide as it says inside.
    subprocess.run(["stty", "rows", "33", "cols", "77"], stdin=its, check=True)
    script = 'echo ready; read -r line; echo "<$line>"; [ -t 0 ] && echo terminal; exit 5'
    words = [sys.executable, "-m", "g8os.cli", "exec", "-it", "-c", number, "--", "sh", "-c", script]
    program = subprocess.Popen(words, stdin=its, stdout=its, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    shown = b""

    def until(there: Callable[[bytes], bool]) -> None:
        nonlocal shown
        end = time.monotonic() + PATIENCE
        while not there(shown):
            assert time.monotonic() < end, shown
            if select.select([ours], [], [], 0.2)[0]:
                shown += os.read(ours, 4096)

    until(lambda text: b"ready\r\n" in text)
    os.write(ours, "wörld\r".encode())
    until(lambda text: "<wörld>\r\nterminal\r\n".encode() in text)
    _, said = program.communicate(timeout=PATIENCE)
    assert (program.returncode, said) == (5, "")
    os.close(ours)
    os.close(its)
    assert g8("rm", number).returncode == 0


def test_what_an_entrypoint_says_is_in_the_logs(cl: Any, name: str) -> None:
    number = make("-d", "--name", name, command=("sh", "-c", "while :; do echo said; sleep 0.2; done")).stdout.strip()
    ran = g8("logs", "--container", name)
    assert f"container {number}: said" in ran.stdout, ran.stderr
    assert "core0" not in ran.stdout
    g8("rm", number)


def test_what_a_crashed_entrypoint_said_is_in_the_logs_as_many_lines_as_are_asked_for(cl: Any, name: str) -> None:
    script = "for i in $(seq 30); do echo line $i; done; exit 3"
    number = make("-d", "--name", name, command=("sh", "-c", script)).stdout.strip()
    deadline = time.monotonic() + PATIENCE
    while (found := cl.container.get(int(number), ended=True))["state"] != "ended" or len(found["ended"]["last"]) < 10:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    assert (found["ended"]["code"], found["ended"]["last"][-1]) == (3, "line 30")
    for which in (number, name):
        lines = g8("logs", "--container", which, "-n", "25").stdout.splitlines()
        assert [line.split(": ", 1)[1] for line in lines] == [f"line {i}" for i in range(6, 31)]
