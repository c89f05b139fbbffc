"""What runs: `cl.job`, `cl.process`, `cl.service`, and what it says of itself: `cl.aggregator`."""

from __future__ import annotations

import signal as signals
from collections.abc import Mapping

from ..call import Call, Domain, Json, R_co, command, json_call


class JobDomain(Domain[R_co]):
    @command
    def list(self, id: str | None = None) -> Call[Json]:
        """Jobs that run or wait, or the one of this id."""
        return json_call("job.list", id=id)

    @command
    def kill(self, id: str, signal: int = signals.SIGTERM) -> Call[Json]:
        """Sends a signal to a job's processes; true if there was such a job."""
        return json_call("job.kill", id=id, signal=int(signal))

    @command
    def killall(self, signal: int = signals.SIGTERM) -> Call[Json]:
        """Sends a signal to all jobs that this user may touch; answers to how many."""
        return json_call("job.killall", signal=int(signal))

    @command
    def input(self, id: str, data: str | None = None, terminal: Mapping[str, int] | None = None) -> Call[Json]:
        """Types on the terminal of a job, or changes its size: `{"rows": 24, "cols": 80}`."""
        return json_call("job.input", id=id, data=data, terminal=None if terminal is None else dict(terminal))

    @command
    def unschedule(self, id: str) -> Call[Json]:
        """Lets a recurring job end, and not start again."""
        return json_call("job.unschedule", id=id)


class Process(Domain[R_co]):
    """Jobs, as g8core had them, where an id is given; processes of the machine where a pid is."""

    @command
    def list(self, id: str | None = None, *, pid: int | None = None) -> Call[Json]:
        return json_call("process.list", id=id) if pid is None else json_call("process.list", pid=pid)

    @command
    def kill(self, id: str | None = None, signal: int = signals.SIGTERM, *, pid: int | None = None) -> Call[Json]:
        target = {"id": id} if pid is None else {"pid": pid}
        return json_call("process.kill", **target, signal=int(signal))


class Aggregator(Domain[R_co]):
    @command
    def query(self, key: str | None = None, tags: Mapping[str, str] | None = None) -> Call[Json]:
        """Statistics of jobs: those of a key, and with all of these tags."""
        return json_call("aggregator.query", key=key, tags=None if tags is None else dict(tags))


class Service(Domain[R_co]):
    @command
    def list(self) -> Call[Json]:
        """Every service by its name, and what it is doing."""
        return json_call("service.list")

    @command
    def status(self, name: str) -> Call[Json]:
        return json_call("service.status", name=name)

    @command
    def start(self, name: str) -> Call[Json]:
        """Lets a service run; it starts when what it comes after is ready. Answers with its status, as stop and restart."""
        return json_call("service.start", name=name)

    @command
    def stop(self, name: str) -> Call[Json]:
        """Stops a service; answers when it is stopped."""
        return json_call("service.stop", name=name)

    @command
    def restart(self, name: str) -> Call[Json]:
        return json_call("service.restart", name=name)

    @command
    def reload(self) -> Call[Json]:
        """Reads the units anew; answers as list."""
        return json_call("service.reload")

    @command
    def logs(self, name: str, lines: int | None = None) -> Call[Json]:
        """The last lines a service said, oldest first."""
        return json_call("service.logs", name=name, **({} if lines is None else {"lines": lines}))
