from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from g8os import InvalidArgument
from g8os.wire import MAX_COMMAND_BYTES, Keys, Options, command


def sent(name: str = "core.ping", arguments: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(command(name, arguments or {}, Options(**options)).payload)
    return body


def test_the_default_user_has_the_keys_of_old() -> None:
    keys = Keys()
    assert keys.commands == "core:default"
    assert keys.result("a") == "result:a"
    assert keys.flag("a") == "result:a:flag"
    assert keys.stream("a") == "stream:a"


def test_every_other_user_has_keys_of_its_own() -> None:
    keys = Keys("bob")
    assert keys.commands == "core:user:bob"
    assert keys.result("a") == "result:bob:a"
    assert keys.flag("a") == "result:bob:a:flag"
    assert keys.stream("a") == "stream:bob:a"


@pytest.mark.parametrize("user", ["", "a:b", "a b", "é", "x" * 129, "flag", "a\n"])
def test_a_user_that_could_reach_into_foreign_keys_is_refused(user: str) -> None:
    with pytest.raises(InvalidArgument):
        Keys(user)


def test_a_plain_command_has_what_g8core_sends_and_no_more() -> None:
    body = sent("core.ping")
    assert set(body) == {"id", "command", "arguments"}
    assert uuid.UUID(body["id"])
    assert (body["command"], body["arguments"]) == ("core.ping", {})


def test_the_id_comes_first_so_that_a_node_finds_it_in_what_it_cannot_read() -> None:
    assert command("core.ping", {}, Options(id="mine")).payload.startswith(b'{"id":"mine"')


def test_options_are_sent_under_their_names() -> None:
    body = sent(
        id="a", queue="q", max_time=1.5, max_restart=2, recurring_period=30, stream=True, log_levels=[1, 2], tags=("x",)
    )
    del body["arguments"], body["command"]
    assert body == {
        "id": "a",
        "queue": "q",
        "max_time": 1.5,
        "max_restart": 2,
        "recurring_period": 30,
        "stream": True,
        "log_levels": [1, 2],
        "tags": ["x"],
    }


@pytest.mark.parametrize(
    "options",
    [
        {"id": ""},
        {"id": "a:flag"},
        {"id": "flag"},
        {"id": 7},
        {"queue": ""},
        {"queue": 3},
        {"queue": "q" * 129},
        {"max_time": -1},
        {"max_time": True},
        {"max_time": "10"},
        {"max_time": float("nan")},
        {"max_time": float("inf")},
        {"recurring_period": -0.5},
        {"max_restart": 1.5},
        {"max_restart": -1},
        {"log_levels": ["1"]},
        {"tags": "one"},
        {"tags": [1]},
        {"tags": ["t"] * 65},
    ],
)
def test_wrong_options_are_refused_before_anything_is_sent(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        sent(**options)


@pytest.mark.parametrize("name", ["", "core ping", "core..ping", ".ping", "core.ping\n", "x" * 129, "é"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="no name of a command"):
        command(name, {})


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, float("nan"), float("inf"), object(), "half \ud800 a pair"])
def test_arguments_that_are_no_json_are_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="cannot be sent as JSON"):
        command("x", {"a": value})


def test_arguments_nested_without_end_are_refused() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(InvalidArgument):
        command("x", {"a": nested})


def test_a_command_may_be_as_large_as_a_node_takes_and_no_larger() -> None:
    room = MAX_COMMAND_BYTES - len(command("x", {"a": ""}, Options(id="i")).payload)
    assert len(command("x", {"a": "é" * (room // 2)}, Options(id="i")).payload) == MAX_COMMAND_BYTES - room % 2
    with pytest.raises(InvalidArgument, match="bytes") as refused:
        command("x", {"a": "a" * (room + 1)}, Options(id="i"))
    assert refused.value.hint is not None


def test_text_travels_as_utf8() -> None:
    assert "grüße".encode() in command("x", {"a": "grüße"}).payload
