"""Commands declared once, for both clients.

A domain (`cl.disk`, `cl.ip.link`, ...) is a class whose methods build a `Call`: name, arguments, and how to read the
answer. `@command` turns such a method into one that runs the call: on the domain of a `Client` it returns the answer, on
that of an `AsyncClient` an awaitable of it, and type checkers know which. A method that takes several calls is a `Flow`,
a generator that yields calls and is sent their answers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from .errors import ProtocolError
from .result import Result

P = ParamSpec("P")
T = TypeVar("T")
Json = Any
"""What json.loads gives; COMMANDS.md says which shape each command answers with."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """One command whose answer is a `T`."""

    command: str
    arguments: Mapping[str, Any]
    read: Callable[[Result], T]


Flow = Generator[Call[Any], Any, T]


def ask(call: Call[T]) -> Flow[T]:
    """One call within a flow: `fd = yield from ask(...)`."""
    answer: T = yield call
    return answer


def json_call(name: str, /, **arguments: Any) -> Call[Json]:
    return Call(name, arguments, Result.json)


def text_call(name: str, /, **arguments: Any) -> Call[str]:
    return Call(name, arguments, _text)


def plain_call(name: str, /, **arguments: Any) -> Call[None]:
    """A command that does something and has nothing to say about it."""
    return Call(name, arguments, _nothing)


def _text(result: Result) -> str:
    answer = result.json()
    if not isinstance(answer, str):
        raise ProtocolError(f"{result.command or 'job'} {result.id} answered with {type(answer).__name__}, not a text")
    return answer


def _nothing(result: Result) -> None:
    result.check()


class Runner:
    """Runs calls and waits for their answers."""

    def run(self, work: Call[T] | Flow[T]) -> T:
        raise NotImplementedError

    def inside(self, container: int) -> Any:
        """What runs commands in a container."""
        raise NotImplementedError


class AsyncRunner:
    """Runs calls; their answers are awaited."""

    async def run(self, work: Call[T] | Flow[T]) -> T:
        raise NotImplementedError

    def inside(self, container: int) -> Any:
        """What runs commands in a container."""
        raise NotImplementedError


R_co = TypeVar("R_co", covariant=True, bound=Runner | AsyncRunner)


class Domain(Generic[R_co]):
    """A group of commands, bound to the client that runs them."""

    def __init__(self, runner: R_co) -> None:
        self._runner = runner


class command(Generic[P, T]):
    """Decorates a method that builds a call or a flow; see the top of this file."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[T] | Flow[T]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, domain: None, owner: type[Any]) -> command[P, T]: ...

    @overload
    def __get__(self, domain: Domain[Runner], owner: type[Any]) -> Callable[P, T]: ...

    @overload
    def __get__(self, domain: Domain[AsyncRunner], owner: type[Any]) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, domain: Domain[Any] | None, owner: type[Any]) -> Any:
        if domain is None:
            return self

        def bound(*args: P.args, **kwargs: P.kwargs) -> Any:
            return domain._runner.run(self._build(domain, *args, **kwargs))

        return functools.update_wrapper(bound, self._build)
