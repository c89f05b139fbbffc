from __future__ import annotations

import builtins
import json
from typing import Any

import pytest

import g8os
from g8os import JobError, ProtocolError, Result
from g8os.result import parse_result

WHOLE = {
    "id": "a",
    "command": "core.system",
    "data": "",
    "streams": ["out\n", "err\n"],
    "critical": "",
    "level": 0,
    "state": "SUCCESS",
    "code": 0,
    "starttime": 1483228800500,
    "time": 12,
    "tags": ["t"],
    "container": 0,
}


def parsed(**changes: Any) -> Result:
    return parse_result(json.dumps(WHOLE | changes), "a")


def test_a_result_is_read_whole() -> None:
    result = parsed()
    assert (result.id, result.command, result.state, result.ok) == ("a", "core.system", "SUCCESS", True)
    assert (result.stdout, result.stderr, result.starttime, result.time) == ("out\n", "err\n", 1483228800.5, 12)
    assert (result.tags, result.payload) == (("t",), WHOLE)


def test_a_result_is_shown_as_the_old_client_did() -> None:
    assert str(parsed(data="d")) == "STATE: SUCCESS\nSTDOUT:\nout\n\nSTDERR:\nerr\n\nDATA:\nd"


def test_missing_and_null_fields_are_empty() -> None:
    result = parse_result(b'{"state":"SUCCESS","streams":null,"data":null,"code":null}', "a")
    assert result == Result(id="a", state="SUCCESS")
    assert parse_result(b'{"state":"SUCCESS","streams":["one"]}', "a").stderr == ""


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"state":""}',
        b'{"state":7}',
        b'{"state":"SUCCESS","code":"0"}',
        b'{"state":"SUCCESS","code":true}',
        b'{"state":"SUCCESS","code":NaN}',
        b'{"state":"SUCCESS","time":Infinity}',
        b'{"state":"SUCCESS","streams":"x"}',
        b'{"state":"SUCCESS","streams":[1]}',
        b'{"state":"SUCCESS","data":{}}',
        b'{"state":"SUCCESS"',
        b"[" * 100_000,
    ],
)
def test_what_is_no_result_is_told_and_named(raw: bytes) -> None:
    with pytest.raises(ProtocolError, match="job a"):
        parse_result(raw, "a")


def test_a_built_in_answers_with_json() -> None:
    assert parsed(level=20, data='{"a":[1]}').json() == {"a": [1]}


def test_json_is_only_read_where_there_is_some() -> None:
    with pytest.raises(ProtocolError, match="level 0"):
        parsed(data="{}").json()
    with pytest.raises(ProtocolError):
        parsed(level=20, data="{").json()
    with pytest.raises(ProtocolError):
        parsed(level=20, data="[" * 100_000).json()


def test_a_failed_process_is_an_error_with_its_status_and_the_end_of_stderr() -> None:
    lines = "".join(f"line {n}\n" for n in range(100))
    with pytest.raises(JobError) as failed:
        parsed(state="ERROR", code=1003, streams=["", lines]).check()
    error = failed.value
    assert (error.code, error.state, error.result.exit_status) == (1003, "ERROR", 3)
    assert error.stderr_tail.splitlines() == [f"line {n}" for n in range(90, 100)]
    assert str(error).startswith("core.system ended with ERROR, exit status 3: ")


@pytest.mark.parametrize(
    ("state", "code", "kind"),
    [
        ("UNKNOWN_CMD", 0, g8os.UnknownCommand),
        ("UNKNOWN_CMD", 404, g8os.UnknownCommand),
        ("DUPLICATE_ID", 0, g8os.DuplicateId),
        ("DUPILICATE_ID", 0, g8os.DuplicateId),
        ("TIMEOUT", 0, g8os.JobTimeout),
        ("KILLED", 0, g8os.JobKilled),
        ("ERROR", 400, g8os.BadArguments),
        ("ERROR", 403, g8os.Forbidden),
        ("ERROR", 404, g8os.NotFound),
        ("ERROR", 406, g8os.NotSupported),
        ("ERROR", 409, g8os.Conflict),
        ("ERROR", 412, g8os.Precondition),
        ("ERROR", 500, JobError),
        ("ERROR", 503, g8os.Unavailable),
        ("ERROR", 1001, JobError),
        ("SOMETHING_NEWER", 0, JobError),
    ],
)
def test_states_and_codes_are_types(state: str, code: int, kind: type[JobError]) -> None:
    with pytest.raises(JobError) as failed:
        parsed(state=state, code=code, level=20, data='"the reason"').check()
    assert type(failed.value) is kind
    assert "the reason" in str(failed.value)


def test_errors_are_also_what_python_calls_them() -> None:
    assert issubclass(g8os.TimeoutError, builtins.TimeoutError)
    assert issubclass(g8os.ConnectionError, builtins.ConnectionError)
    assert issubclass(g8os.JobTimeout, builtins.TimeoutError)
    assert issubclass(g8os.JobError, RuntimeError)
    assert issubclass(g8os.Forbidden, g8os.Unauthorized)
    assert issubclass(g8os.JobNotFound, LookupError)
    assert issubclass(g8os.InvalidArgument, ValueError)
    assert str(g8os.ConnectionError("what", hint="next")) == "what"
    assert g8os.TimeoutError("what", job_id="a").job_id == "a"
