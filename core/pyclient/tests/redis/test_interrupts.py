"""Ctrl-C at every step of the client: what is asked afterwards is answered."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import g8os

from .conftest import RedisServer
from .scripted import ScriptedNode

CLIENT = str(Path(g8os.__file__).parent)


@contextmanager
def interrupted_at(step: int) -> Iterator[list[int]]:
    """Raises KeyboardInterrupt at a step of the client, or of `threading`, which it must not lock with. Not of redis-py."""
    count = [0]

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        path = frame.f_code.co_filename
        if not path.startswith(CLIENT) and not path.endswith("threading.py"):
            return None
        count[0] += 1
        if count[0] == step:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(None)


@contextmanager
def in_time(seconds: int) -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_an_interrupt_at_any_step_holds_up_nothing_that_is_asked_afterwards(server: RedisServer, node: ScriptedNode) -> None:
    with g8os.Client.connect(server.url) as client:
        client.ping()
        step = 0
        while True:
            step += 1
            interrupted = False
            with interrupted_at(step) as count:
                try:
                    client.ping()
                except KeyboardInterrupt:
                    interrupted = True
            if count[0] < step:
                break
            assert interrupted, step
            with in_time(20):
                assert client.ping() == "PONG scripted", step
    assert step > 100
