"""The node as a whole: `cl.core`, `cl.info`, `cl.config`, `cl.logger`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..call import Call, Domain, Json, R_co, command, json_call, plain_call
from ..errors import ProtocolError
from ..result import Result


class Core(Domain[R_co]):
    @command
    def state(self) -> Call[Json]:
        """What core0 itself uses of processor and memory, and what it dropped."""
        return json_call("core.state")

    @command
    def commands(self) -> Call[Json]:
        """What this node can be told, with the schemas of arguments and answers."""
        return json_call("system.commands")

    @command
    def subscribe(self, id: str) -> Call[str]:
        """Lets the output of a job that runs go to a stream of its own; answers with its key, for `Client.tail`."""
        return Call("core.subscribe", {"id": id}, _stream)

    @command
    def reboot(self) -> Call[None]:
        """Stops everything in order and starts the machine anew."""
        return plain_call("core.reboot")

    @command
    def poweroff(self) -> Call[None]:
        """Stops everything in order and switches the machine off."""
        return plain_call("core.poweroff")


class Info(Domain[R_co]):
    @command
    def cpu(self) -> Call[Json]:
        return json_call("info.cpu")

    @command
    def mem(self) -> Call[Json]:
        return json_call("info.mem")

    @command
    def disk(self) -> Call[Json]:
        """Mounted file systems."""
        return json_call("info.disk")

    @command
    def nic(self) -> Call[Json]:
        return json_call("info.nic")

    @command
    def os(self) -> Call[Json]:
        return json_call("info.os")

    @command
    def port(self) -> Call[Json]:
        """Listening sockets and whose they are."""
        return json_call("info.port")

    @command
    def version(self) -> Call[Json]:
        return json_call("info.version")


class Config(Domain[R_co]):
    @command
    def get(self) -> Call[Json]:
        """The configuration the node runs with."""
        return json_call("config.get")


class Logger(Domain[R_co]):
    @command
    def subscribe(
        self,
        queue: str | None = None,
        levels: Sequence[int] = (),
        source: str | None = None,
        backlog: int | None = None,
    ) -> Call[str]:
        """Lets messages go to a stream, after the last `backlog` (10); answers with its key, which `Client.tail` reads.

        `levels` are those of messages, all if empty; `source` is whose they are: `job ID`, `service NAME` or
        `container NUMBER`.
        """
        arguments: dict[str, Any] = {"queue": queue, "levels": [*levels], "source": source}
        if backlog is not None:
            arguments["backlog"] = backlog
        return Call("logger.subscribe", arguments, _stream)

    @command
    def unsubscribe(self, queue: str) -> Call[Json]:
        """Ends what subscribe began under this name."""
        return json_call("logger.unsubscribe", queue=queue)


def _stream(result: Result) -> str:
    answer = result.json()
    key = answer.get("stream") if isinstance(answer, dict) else None
    if not isinstance(key, str):
        raise ProtocolError(f"{result.command or 'job'} {result.id} answered without the key of a stream")
    return key
