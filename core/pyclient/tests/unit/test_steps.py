"""The conversations, without a server: operations are answered from a script, and time passes as it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import g8os
from g8os.steps import SLICE_SECONDS, Follower, Job, Steps, Tail, submit, wait_result
from g8os.stream import Message
from g8os.wire import Keys, Options, command

DONE = json.dumps({"id": "a", "state": "SUCCESS"}).encode()


class Script:
    """Answers operations by their name; those that block take as long as they may."""

    def __init__(self, **answers: Any) -> None:
        self.now = 100.0
        self.ops: list[tuple[Any, ...]] = []
        self._answers = answers

    def clock(self) -> float:
        return self.now

    def run(self, steps: Steps[Any]) -> Any:
        try:
            op = next(steps)
            while True:
                self.ops.append(op.args)
                assert len(self.ops) < 1000, "this never ends"
                op = steps.send(self._answer(op.args))
        except StopIteration as end:
            return end.value

    def _answer(self, args: tuple[Any, ...]) -> Any:
        answer = self._answers[args[0]]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Callable):  # type: ignore[arg-type]
            answer = answer()
        if answer is None and args[0] == "BRPOPLPUSH":
            self.now += float(args[-1])
        if answer is None and args[0] == "XREAD" and "BLOCK" in args:
            self.now += args[args.index("BLOCK") + 1] / 1000
        return answer

    def names(self) -> list[str]:
        return [args[0] for args in self.ops]


def ours() -> Job:
    return Job("a", submitted=True)


def wait(script: Script, job: Job, timeout: float) -> Any:
    return script.run(wait_result(Keys(), job, timeout, script.clock))


def test_submitting_is_one_push_to_the_users_queue() -> None:
    script = Script(RPUSH=1)
    sent = command("core.ping", {}, Options(id="a"))
    job = script.run(submit(Keys("bob"), sent))
    assert script.ops == [("RPUSH", "core:user:bob", sent.payload)]
    assert (job.id, job.submitted, job.accepted) == ("a", True, False)


def test_a_result_that_comes_at_once_costs_one_operation() -> None:
    script, job = Script(BRPOPLPUSH=DONE), ours()
    assert wait(script, job, 10).ok
    assert script.ops == [("BRPOPLPUSH", "result:a", "result:a", "5.000")]
    assert wait(script, job, 0).ok, "and is remembered"
    assert len(script.ops) == 1


def test_a_wait_is_as_long_as_asked_for_and_cut_in_slices() -> None:
    script = Script(BRPOPLPUSH=None, EXISTS=1, LINDEX=None)
    with pytest.raises(g8os.TimeoutError, match=r"no result within 12\.25 s"):
        wait(script, ours(), 12.25)
    assert script.now == pytest.approx(112.25)
    waits = [args[-1] for args in script.ops if args[0] == "BRPOPLPUSH"]
    assert waits == ["5.000", "5.000", "2.250"]
    assert script.names()[-2:] == ["LINDEX", "EXISTS"], "looks once more when time is up"


def test_the_shortest_wait_is_not_for_ever() -> None:
    script = Script(BRPOPLPUSH=None, EXISTS=1, LINDEX=None)
    with pytest.raises(g8os.TimeoutError):
        wait(script, ours(), 0.0001)
    assert [args[-1] for args in script.ops if args[0] == "BRPOPLPUSH"] == ["0.001"]


def test_without_time_only_what_is_there_is_taken() -> None:
    script = Script(LINDEX=DONE)
    assert wait(script, ours(), 0).ok
    script = Script(LINDEX=None, EXISTS=0)
    with pytest.raises(g8os.TimeoutError, match="no sign of job"):
        wait(script, ours(), 0)
    assert "BRPOPLPUSH" not in script.names()


def test_a_job_nobody_took_in_is_told_apart_from_one_that_runs_long() -> None:
    with pytest.raises(g8os.TimeoutError, match="no sign of job"):
        wait(Script(BRPOPLPUSH=None, EXISTS=0, LINDEX=None), ours(), 7)
    with pytest.raises(g8os.TimeoutError, match="it runs on") as late:
        wait(Script(BRPOPLPUSH=None, EXISTS=1, LINDEX=None), ours(), 7)
    assert late.value.job_id == "a"


def test_a_foreign_job_that_is_unknown_is_told_at_once() -> None:
    script = Script(EXISTS=0, LINDEX=None)
    with pytest.raises(g8os.JobNotFound) as unknown:
        wait(script, Job("a", submitted=False), 3600)
    assert script.now == 100.0
    assert unknown.value.job_id == "a"


def test_a_result_that_expires_below_a_waiting_client_is_told_soon() -> None:
    script = Script(BRPOPLPUSH=None, EXISTS=[1, 0], LINDEX=None)
    with pytest.raises(g8os.JobNotFound):
        wait(script, ours(), 3600)
    assert script.now == 100.0 + 2 * SLICE_SECONDS


def test_a_result_that_comes_between_two_looks_is_not_missed() -> None:
    script = Script(BRPOPLPUSH=None, EXISTS=[1, 0], LINDEX=DONE)
    assert wait(script, ours(), 3600).ok


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "10", True])
def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    with pytest.raises(g8os.InvalidArgument):
        wait(Script(), ours(), timeout)


def test_a_named_user_waits_for_its_result_without_writing() -> None:
    entry = [[b"result:bob:a", [[b"1-0", [b"json", DONE]]]]]
    script = Script(XREAD=[None, entry], EXISTS=1)
    job = ours()
    assert script.run(wait_result(Keys("bob"), job, 12.25, script.clock)).ok
    read = ("STREAMS", "result:bob:a", "0-0")
    assert script.ops[0] == script.ops[2] == ("XREAD", "BLOCK", 5000, *read)
    script = Script(XREAD=None, EXISTS=1)
    with pytest.raises(g8os.TimeoutError):
        script.run(wait_result(Keys("bob"), ours(), 0, script.clock))
    assert script.ops[0] == ("XREAD", *read)
    for wrong in (7, [[b"result:bob:a", []]], [[b"result:bob:a", [[b"1-0", [b"other", DONE]]]]]):
        with pytest.raises(g8os.ProtocolError):
            script = Script(XREAD=wrong)
            script.run(wait_result(Keys("bob"), ours(), 1, script.clock))


def test_a_result_of_a_wrong_kind_is_told() -> None:
    with pytest.raises(g8os.ProtocolError):
        wait(Script(BRPOPLPUSH=7), ours(), 1)


def entries(*items: tuple[str, dict[str, str]]) -> list[Any]:
    flat = [(i.encode(), [part.encode() for pair in f.items() for part in pair]) for i, f in items]
    return [[b"stream:a", flat]]


def line(n: int) -> tuple[str, dict[str, str]]:
    return (f"{n}-0", {"level": "1", "time": "1500", "source": "job a", "text": f"line {n}"})


def follow(script: Script, job: Job | None = None, after: str = "0-0", timeout: float | None = None) -> list[Message]:
    follower = Follower(Keys(), job or ours(), after, timeout, 20, script.clock)
    messages: list[Message] = []
    while not follower.ended:
        messages += script.run(follower.read())
    return messages


def test_output_is_followed_from_where_one_was_until_the_end() -> None:
    script = Script(
        TTL=-1,
        XINFO=[[b"entries-added", 3]],
        XREAD=[entries(line(2)), None, entries(line(3), ("4-0", {"end": "SUCCESS"}), line(5))],
    )
    messages = follow(script, after="1-0")
    assert messages == [Message(f"{n}-0", 1, f"line {n}", 1.5, "job a") for n in (2, 3)]
    reads = [args for args in script.ops if args[0] == "XREAD"]
    assert [args[-1] for args in reads] == ["1-0", "2-0", "2-0"]
    assert all(args[4] <= SLICE_SECONDS * 1000 for args in reads)


def test_a_stream_that_never_rests_is_left_when_time_is_up() -> None:
    script = Script(XREAD=[entries(line(1))])
    tail = Tail("logger:x", "0-0", 3, script.clock)
    count = 0
    while not tail.ended:
        count += len(script.run(tail.read()))
        script.now += 1
    assert count == 4


@pytest.mark.parametrize(("added", "lost"), [(3, 0), (1003, 1000), (0, 0), (None, None)])
def test_messages_that_the_node_dropped_are_counted(added: int | None, lost: int | None) -> None:
    script = Script(
        TTL=-1, XINFO=[[b"length", 3, b"entries-added", added]], XREAD=[entries(line(8), line(9), ("9-1", {"end": "SUCCESS"}))]
    )
    follower = Follower(Keys(), ours(), "0-0", None, 20, script.clock)
    assert len(script.run(follower.read())) == 2
    assert (follower.ended, follower.lost) == (True, lost)


def test_the_last_lines_may_come_after_the_job_has_ended() -> None:
    script = Script(
        TTL=300, XINFO=[[b"entries-added", 3]], XREAD=[entries(line(1)), entries(line(2)), entries(("3-0", {"end": "ERROR"}))]
    )
    assert [message.text for message in follow(script)] == ["line 1", "line 2"]


def test_a_stream_that_expired_ends_and_so_does_one_that_never_was() -> None:
    assert follow(Script(TTL=200, XINFO=[[b"entries-added", 3]], XREAD=None)) == []


def test_following_ends_with_the_callers_patience() -> None:
    script = Script(TTL=-1, XINFO=[[b"entries-added", 3]], XREAD=None)
    with pytest.raises(g8os.TimeoutError):
        follow(script, timeout=7.5)
    assert script.now == pytest.approx(107.5, abs=0.01)


def test_a_job_that_is_never_taken_in_is_not_followed_for_ever() -> None:
    script = Script(TTL=-2, XINFO=[[b"entries-added", 3]], XREAD=None)
    with pytest.raises(g8os.TimeoutError, match="no sign of job a within 20 s"):
        follow(script)
    assert script.now == pytest.approx(120, abs=0.01)


def test_following_an_unknown_job_is_an_error_and_a_waiting_one_is_not() -> None:
    with pytest.raises(g8os.JobNotFound):
        follow(Script(TTL=-2), Job("a", submitted=False))
    assert follow(Script(TTL=[-2, -1], XINFO=[[b"entries-added", 3]], XREAD=[None, entries(("1-0", {"end": "SUCCESS"}))])) == []


def test_a_stream_that_is_no_jobs_is_read_until_its_end_or_until_time_is_up() -> None:
    for reads, timeout in (
        ([entries(line(1)), None, entries(("2-0", {"end": "SUCCESS"}))], None),
        ([entries(line(1)), None], 7),
    ):
        script, messages = Script(XINFO=[[b"entries-added", 3]], XREAD=reads), []
        tail = Tail("logger:x", "0-0", timeout, script.clock)
        while not tail.ended:
            messages += script.run(tail.read())
        assert [message.text for message in messages] == ["line 1"]
        assert {args[-2] for args in script.ops} == {"logger:x"}
        assert script.now <= 107


@pytest.mark.parametrize(
    "fields", [{}, {"level": "x", "text": "y", "time": "1"}, {"level": "1"}, {"level": "1", "text": "x", "time": ""}]
)
def test_an_entry_that_is_none_is_told(fields: dict[str, str]) -> None:
    with pytest.raises(g8os.ProtocolError):
        follow(Script(TTL=-1, XINFO=[[b"entries-added", 3]], XREAD=entries(("1-0", fields))))


@pytest.mark.parametrize("reply", [7, [[]], [["a", 7]], [["a", [("1-0", ["odd"])]]]])
def test_a_reply_that_is_no_stream_is_told(reply: Any) -> None:
    with pytest.raises(g8os.ProtocolError):
        follow(Script(TTL=-1, XINFO=[[b"entries-added", 3]], XREAD=[reply, reply]))


def test_text_that_is_not_utf8_is_shown_anyway() -> None:
    raw = [[b"stream:a", [(b"1-0", [b"level", b"1", b"time", b"1", b"text", b"\xff"]), (b"2-0", [b"end", b"SUCCESS"])]]]
    assert [m.text for m in follow(Script(TTL=-1, XINFO=[[b"entries-added", 3]], XREAD=[raw]))] == ["\ufffd"]
