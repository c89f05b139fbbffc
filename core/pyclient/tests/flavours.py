"""Both clients under one set of tests: an AsyncClient, made to block by running each awaitable to its end."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from g8os import AsyncClient, AsyncResponse, Client

FLAVOURS = ("sync", "async")

# Properties of a Response that an AsyncResponse has as methods.
_ASKED = ("exists", "running")


class Blocking:
    """Whatever an asynchronous object has, without the waiting for it."""

    def __init__(self, target: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._target = target
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if name in _ASKED and isinstance(self._target, AsyncResponse):
            return self._settle(value())
        if inspect.ismethod(value) or inspect.isfunction(value):
            return lambda *args, **kwargs: self._settle(value(*args, **kwargs))
        return self._settle(value)

    def _settle(self, value: Any) -> Any:
        if inspect.isawaitable(value):
            value = self._loop.run_until_complete(_await(value))
        if inspect.isasyncgen(value):
            return self._iterate(value)
        module = type(value).__module__
        return Blocking(value, self._loop) if module.startswith(("g8os.aio", "g8os.domains")) else value

    def _iterate(self, generator: Any) -> Iterator[Any]:
        while True:
            try:
                yield self._loop.run_until_complete(anext(generator))
            except StopAsyncIteration:
                return


async def _await(value: Any) -> Any:
    return await value


class Clients:
    """Makes clients of one flavour and closes them in the end."""

    def __init__(self, flavour: str) -> None:
        self._loop = asyncio.new_event_loop() if flavour == "async" else None
        self._closers: list[Callable[[], Any]] = []

    def __call__(self, node: str | None = None, **options: Any) -> Any:
        if self._loop is None:
            client: Any = Client.connect(node, **options)
        else:
            client = Blocking(AsyncClient.connect(node, **options), self._loop)
        self._closers.append(client.close)
        return client

    def close(self) -> None:
        for close in self._closers:
            close()
        if self._loop is not None:
            self._loop.close()
