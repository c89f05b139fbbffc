"""That nothing was left out. Its name is the last one of the folder: it looks at what all other tests have done."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ledger import SUCCEEDED

# A node for developing refuses them. Where a machine does what they say is core/tests/node/power.rs.
REFUSED_HERE = {"core.reboot", "core.poweroff"}


def test_every_command_of_the_node_was_carried_out_for_this_client(cl: Any, request: pytest.FixtureRequest) -> None:
    node = {command["command"] for command in cl.core.commands()["commands"]}
    (flavour,) = [flavour for flavour in ("sync", "async") if f"[{flavour}]" in request.node.name]
    assert node - SUCCEEDED[flavour] == REFUSED_HERE
