"""Services of a real node. Its units lie in `services` in its folder, which `G8_NODE` names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import g8os

UNIT = """\
exec = ["sh", "-c", "echo begun; echo trouble >&2; trap 'echo told to end; exit 0' TERM; while :; do sleep 0.05; done"]
"""


@pytest.fixture
def unit(cl: Any, address: str, name: str) -> Iterator[str]:
    """A service of our own."""
    file = Path(address) / "services" / f"{name}.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(UNIT)
    cl.service.reload()
    yield name
    file.unlink()
    cl.service.reload()


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def test_a_service_runs_stops_and_runs_again(cl: Any, unit: str) -> None:
    until(lambda: cl.service.status(unit)["state"] == "ready")
    first = cl.service.list()[unit]["pid"]
    assert first > 0
    assert cl.service.stop(unit)["state"] == "stopped"
    assert cl.service.status(unit)["pid"] == 0
    cl.service.start(unit)
    until(lambda: cl.service.status(unit)["state"] == "ready")
    second = cl.service.status(unit)["pid"]
    cl.service.restart(unit)
    until(lambda: cl.service.status(unit)["pid"] not in (0, second))


def test_what_a_service_says_is_kept_and_followed(cl: Any, unit: str, name: str) -> None:
    until(lambda: len(cl.service.logs(unit)) == 2)
    assert {(line["level"], line["text"]) for line in cl.service.logs(unit)} == {(1, "begun"), (2, "trouble")}
    assert len(cl.service.logs(unit, 1)) == 1
    stream = cl.logger.subscribe(f"{name}-log", source=f"service {unit}")
    messages = cl.tail(stream, timeout=60)
    assert {next(messages).text, next(messages).text} == {"begun", "trouble"}
    cl.service.stop(unit)
    # A shell may tell of its own children's end first.
    assert any(message.text == "told to end" for message in messages)
    cl.logger.unsubscribe(f"{name}-log")


def test_an_unknown_service_is_not_found(cl: Any) -> None:
    calls: tuple[Callable[[str], Any], ...] = (
        cl.service.status,
        cl.service.start,
        cl.service.stop,
        cl.service.restart,
        cl.service.logs,
    )
    for call in calls:
        with pytest.raises(g8os.NotFound, match="nobody"):
            call("nobody")
