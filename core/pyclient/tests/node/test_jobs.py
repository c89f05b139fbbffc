"""Jobs of a real node: how they end, wait, are killed, and what they say meanwhile."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest

import g8os
from g8os import Result
from tests.flavours import Clients


def until(file: Path) -> str:
    """Shell that waits for a file, for a minute at most: what waits for a test must not depend on how fast it is."""
    return f"for n in $(seq 1200); do [ -e {file} ] && break; sleep 0.05; done"


def test_a_ping_is_answered(cl: Any) -> None:
    assert cl.ping().startswith("PONG ")


def test_a_program_has_its_streams_its_folder_and_its_environment(cl: Any) -> None:
    script = 'pwd; echo "$A"; cat; echo oops >&2'
    result: Result = cl.system(["sh", "-c", script], dir="/usr", stdin="from stdin\n", env={"A": "two words"}).check()
    assert result.stdout.splitlines() == ["/usr", "two words", "from stdin"]
    assert result.stderr.splitlines() == ["oops"]
    assert (result.state, result.command, result.exit_status) == ("SUCCESS", "core.system", None)
    assert abs(result.starttime - time.time()) < 300


def test_a_text_is_split_as_a_shell_would_and_no_shell_runs(cl: Any) -> None:
    assert cl.system("echo 'a  b' $HOME ;").get().stdout == "a  b $HOME ;\n"


def test_bash_is_a_shell(cl: Any) -> None:
    result = cl.bash("read x; echo $((x + 1)); exit 3", stdin="41\n").get()
    assert (result.stdout, result.state, result.exit_status) == ("42\n", "ERROR", 3)


def test_a_failure_is_an_error_with_the_end_of_stderr(cl: Any) -> None:
    with pytest.raises(g8os.JobError, match="exit status 7: bad luck") as failed:
        cl.bash("echo bad luck >&2; exit 7").check()
    assert (failed.value.code, failed.value.stderr_tail) == (1007, "bad luck")


def test_a_program_that_is_not_there_is_not_found(cl: Any) -> None:
    with pytest.raises(g8os.NotFound, match="/no/such/program"):
        cl.system("/no/such/program").check()


def test_the_last_hundred_lines_are_in_the_result(cl: Any) -> None:
    lines = cl.system("seq 1 1000").check().stdout.splitlines()
    assert lines == [str(n) for n in range(901, 1001)]


def test_a_result_in_the_output_is_its_data(cl: Any) -> None:
    result = cl.bash("echo '20::{\"a\": 1}'; echo plain").check()
    assert (result.level, result.json()) == (20, {"a": 1})


def test_waits_are_finer_than_a_second(cl: Any) -> None:
    response = cl.system("sleep 4")
    began = time.monotonic()
    with pytest.raises(g8os.TimeoutError, match="it runs on"):
        response.get(0.2)
    assert time.monotonic() - began >= 0.19
    assert response.exists and response.running
    assert response.get(60).ok
    assert not response.running and response.exists


def test_a_result_is_read_as_often_as_one_likes_and_by_others(cl: Any, clients: Clients, address: str) -> None:
    response = cl.bash("echo once")
    first = response.get()
    assert clients(address).response_for(response.id).get(0) == first == clients(address).response_for(response.id).get(60)


def test_an_unknown_job_is_told_at_once(cl: Any) -> None:
    with pytest.raises(g8os.JobNotFound):
        cl.response_for("nobody-knows-me").get(60)


def test_the_same_id_runs_once(cl: Any, name: str) -> None:
    first = cl.bash("echo $RANDOM$RANDOM", id=name).check()
    assert cl.bash("echo other", id=name).check() == first


def test_max_time_kills(cl: Any) -> None:
    with pytest.raises(g8os.JobTimeout):
        cl.system("sleep 60", max_time=0.3).check()


def test_jobs_of_a_queue_run_one_after_the_other(cl: Any, name: str) -> None:
    jobs = [cl.bash("date +%s%N; sleep 0.3; date +%s%N", queue=name) for _ in range(4)]
    spans = [[int(line) for line in job.check(60).stdout.split()] for job in jobs]
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans)), spans


def test_tags_come_back(cl: Any) -> None:
    assert cl.bash("true", tags=["a", "b"]).check().tags == ("a", "b")


def test_a_job_is_listed_and_killed(cl: Any, name: str) -> None:
    response = cl.system("sleep 60", id=name, stream=True)
    while not response.running:
        time.sleep(0.01)
    (job,) = cl.job.list(name)
    assert job["cmd"]["id"] == name and job["cmd"]["arguments"]["name"] == "sleep"
    assert name in [job["cmd"]["id"] for job in cl.process.list()]
    assert cl.process.list(name)[0]["cmd"]["id"] == name
    assert cl.job.kill(name) is True
    with pytest.raises(g8os.JobKilled):
        response.check()
    with pytest.raises(g8os.NotFound):
        cl.job.kill(name)


def test_all_jobs_are_killed_at_once(cl: Any) -> None:
    responses = [cl.system("sleep 60") for _ in range(3)]
    for response in responses:
        while not [job for job in cl.job.list(response.id) if job["pid"]]:
            time.sleep(0.01)
    # All jobs of this user are meant, and none but these run.
    assert cl.job.killall() == 3
    assert [response.get().state for response in responses] == ["KILLED"] * 3
    assert cl.job.killall() == 0


def test_process_kill_means_jobs_by_id_and_processes_by_pid(cl: Any, name: str) -> None:
    for by_pid in (False, True):
        response = cl.system("sleep 60", id=f"{name}-{by_pid}")
        while not (jobs := [j for j in cl.job.list() if j["id"] == response.id and j["pid"]]):
            time.sleep(0.01)
        pid = jobs[0]["pid"]
        assert cl.process.list(pid=pid)[0]["pid"] == pid
        assert cl.process.kill(pid=pid) if by_pid else cl.process.kill(response.id)
        assert response.get().state in ("KILLED", "ERROR")


def test_a_recurring_job_runs_until_it_is_unscheduled(cl: Any, name: str, tmp_path: Path) -> None:
    file = tmp_path / "runs"
    response = cl.bash(f"echo >> {file}", id=name, recurring_period=0.1)
    deadline = time.monotonic() + 60
    while not file.exists() or len(file.read_text()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    cl.job.unschedule(name)
    assert response.get().id == name


def test_a_job_that_fails_is_started_again_as_often_as_it_says(cl: Any, tmp_path: Path) -> None:
    file = tmp_path / "runs"
    result = cl.bash(f"echo >> {file}; exit 3", max_restart=2).get()
    assert (result.state, result.exit_status, len(file.read_text())) == ("ERROR", 3, 3)
    result = cl.bash(f"echo >> {file}; [ $(wc -l < {file}) -ge 5 ]", max_restart=5).check()
    assert (result.state, len(file.read_text())) == ("SUCCESS", 5)
    assert cl.bash(f"echo >> {file}; exit 3", max_restart=0).get().state == "ERROR"
    assert len(file.read_text()) == 6


def test_only_levels_that_were_asked_for_are_logged(cl: Any, name: str) -> None:
    stream = cl.logger.subscribe(name, source=f"job {name}")
    result = cl.bash("echo out; echo err >&2; echo 3::chosen; echo last >&2; echo 4::end", id=name, log_levels=[2, 3]).check()
    assert (result.stdout, result.stderr) == ("out\n", "err\nlast\n")
    messages = cl.tail(stream, timeout=60)
    # Both streams of the job are read at once, so only within one there is an order.
    assert sorted(next(messages).text for _ in range(3)) == ["chosen", "err", "last"]
    assert cl.logger.unsubscribe(name) is True
    with pytest.raises(g8os.BadArguments, match="99"):
        cl.bash("true", log_levels=[99]).check()


def test_what_a_job_uses_is_told_as_often_as_it_says(cl: Any, name: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    response = cl.bash(until(go), id=name, stream=True, stats_interval=1)
    messages = response.stream(timeout=60)
    keys = {next(messages).text.split(":")[0] for _ in range(2)}
    assert {found["tags"]["id"] for key in keys for found in cl.aggregator.query(key, {"id": name})} == {name}
    go.touch()
    assert {message.level for message in messages} <= {10}
    assert response.check().state == "SUCCESS"


def test_what_jobs_print_as_statistics_can_be_asked_for(cl: Any, name: str) -> None:
    cl.bash(f"echo '10::{name}:3|A|house=a'; echo '10::{name}:5|A|house=a'; echo '10::{name}:9|A|house=b'").check()
    (found,) = cl.aggregator.query(name, {"house": "a"})
    assert (found["key"], found["tags"], found["op"], found["last_value"]) == (name, {"house": "a"}, "A", 5.0)
    assert len(cl.aggregator.query(name)) == 2
    assert cl.aggregator.query(name, {"house": "c"}) == []
    assert name in {entry["key"] for entry in cl.aggregator.query()}


def test_a_job_has_a_terminal_that_is_typed_on_and_resized(cl: Any) -> None:
    script = 'stty size; read -r -p "name? " name; echo "hello $name"; read -r; stty size; exit 5'
    response = cl.bash(script, stream=True, terminal={"rows": 24, "cols": 80})
    shown = ""
    messages = response.stream(timeout=60)

    def until_it_shows(text: str) -> None:
        nonlocal shown
        while text not in shown:
            shown += next(messages).text

    # A prompt comes though its line has no end.
    until_it_shows("name? ")
    assert shown.startswith("24 80\r\n")
    assert cl.job.input(response.id, "you\n") is True
    until_it_shows("hello you\r\n")
    assert cl.job.input(response.id, "\n", {"rows": 50, "cols": 132}) is True
    until_it_shows("50 132\r\n")
    assert "".join(message.text for message in messages) == ""
    with pytest.raises(g8os.JobError) as failed:
        response.check()
    assert (failed.value.code, response.state) == (1005, "ERROR")
    result = cl.system(["stty", "size"], stream=True, terminal={"rows": 1, "cols": 2}).check()
    assert result.stdout == "1 2\r\n"


def test_what_cannot_be_typed_and_terminals_that_cannot_be_are_told(cl: Any, name: str) -> None:
    with pytest.raises(g8os.NotFound, match=name):
        cl.job.input(name, "x")
    for size in ({"rows": 0, "cols": 80}, {"rows": 24, "cols": 70_000}, {"rows": 24}, {}):
        with pytest.raises(g8os.BadArguments, match="terminal"):
            cl.bash("true", terminal=size).check()
    with pytest.raises(g8os.BadArguments, match="standard input"):
        cl.system("cat", stdin="x", terminal={"rows": 24, "cols": 80}).check()


def test_output_comes_while_the_job_runs_and_is_read_by_several(
    cl: Any, clients: Clients, address: str, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    response = cl.bash(f"echo one; {until(go)}; echo two >&2; echo '3::three'", stream=True)
    other = clients(address).response_for(response.id)
    stream, another = response.stream(timeout=60), other.stream(timeout=60)
    first = next(stream)
    assert (first.text, first.is_stdout, first.source) == ("one", True, f"job {response.id}")
    # Both have it while the job waits for that.
    assert next(another) == first
    assert response.running
    go.touch()
    rest = list(stream)
    assert list(another) == rest
    assert sorted((message.level, message.text) for message in rest) == [(2, "two"), (3, "three")]
    assert (response.state, response.lost) == ("SUCCESS", 0)
    assert list(other.stream(timeout=60)) == [first, *rest]
    assert list(other.stream(after=first.id, timeout=60)) == rest


def test_what_is_printed_faster_than_it_is_read_is_counted(cl: Any) -> None:
    response = cl.system("seq 1 20000", stream=True)
    assert response.get(60).ok
    read = len(list(response.stream(timeout=60)))
    assert 0 < read < 20_000 and response.lost is not None


def test_a_job_that_runs_can_be_listened_to(cl: Any, name: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = cl.bash(f"echo early; {until(go)}; echo late", id=name)
    while not job.running:
        time.sleep(0.01)
    messages = cl.tail(cl.core.subscribe(name), timeout=60)
    assert next(messages).text == "early"
    go.touch()
    assert [message.text for message in messages] == ["late"]


def test_the_log_can_be_listened_to(cl: Any, name: str) -> None:
    stream = cl.logger.subscribe(name, levels=[1], source=f"job {name}")
    cl.bash("echo not >&2; echo heard; echo this too", id=name).check()
    messages = cl.tail(stream, timeout=60)
    assert [next(messages).text for _ in range(2)] == ["heard", "this too"]
    assert cl.logger.unsubscribe(name) is True


def test_a_command_that_is_none_and_one_with_wrong_arguments_are_told_apart(cl: Any) -> None:
    with pytest.raises(g8os.UnknownCommand, match=r"no\.such"):
        cl.sync("no.such", {})
    with pytest.raises(g8os.BadArguments, match="name"):
        cl.sync("core.system", {})
    with pytest.raises(g8os.BadArguments, match="sequence"):
        cl.sync("core.system", {"name": "true", "args": "x"})


def test_the_node_describes_its_commands(cl: Any) -> None:
    names = {command["command"] for command in cl.core.commands()["commands"]}
    assert {"core.ping", "core.system", "bash", "job.list"} <= names
