"""The commands that a node says it has, and those that the client has methods for: the same, with the same arguments."""

from __future__ import annotations

from typing import Any

from tests.calls import CALLS

# Methods of the client itself.
OWN = {"core.ping", "core.system", "bash", "corex.dispatch"}


def test_every_command_has_a_method_and_every_method_a_command(cl: Any) -> None:
    node = {command["command"] for command in cl.core.commands()["commands"]}
    assert node - OWN == {name for _, name, _ in CALLS}


def test_arguments_are_those_of_the_node(cl: Any) -> None:
    table = {command["command"]: command["arguments"] for command in cl.core.commands()["commands"]}
    for _, name, arguments in CALLS:
        schema = table[name]
        assert set(arguments) <= set(schema.get("properties", {})), name
        assert set(schema.get("required", ())) <= set(arguments), name
