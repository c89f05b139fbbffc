"""The node as a whole: `cl.core`, `cl.info`, `cl.config`, `cl.logger`."""

from __future__ import annotations

from ..call import Call, Domain, Json, R_co, command, json_call, plain_call


class Core(Domain[R_co]):
    @command
    def state(self) -> Call[Json]:
        """What core0 itself uses of processor and memory."""
        return json_call("core.state")

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
    def subscribe(self, queue: str | None = None, *levels: int) -> Call[Json]:
        """Messages of these levels, of all if none is given, into a list of the node's redis; answers with its key."""
        return json_call("logger.subscribe", queue=queue, levels=list(levels))
