"""A real node, of which `G8_NODE` is the folder. What starts it is core/tests/pyclient.rs."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from g8os import steps
from tests.flavours import FLAVOURS, Clients
from tests.ledger import noting


@pytest.fixture(scope="session")
def address() -> str:
    address = os.environ.get("G8_NODE")
    assert address, "G8_NODE names no node: run `cargo test -p core0 --test pyclient`"
    return address


@pytest.fixture(params=FLAVOURS)
def clients(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    monkeypatch.setattr(steps, "parse_result", noting(request.param))
    clients = Clients(request.param)
    yield clients
    clients.close()


@pytest.fixture
def cl(clients: Clients, address: str) -> Any:
    return clients(address, timeout=60)


@pytest.fixture
def name() -> str:
    """A name nobody has, short enough for a link."""
    return f"t{uuid.uuid4().hex[:8]}"
