"""What both clients have in common: the domains, and the commands that start jobs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .call import R_co
from .domains.containers import Container
from .domains.filesystem import Filesystem
from .domains.jobs import Aggregator, JobDomain, Process, Service
from .domains.network import Bridge, Ip, Nft
from .domains.node import Config, Core, Info, Logger
from .domains.storage import Btrfs, Disk, Flist
from .errors import InvalidArgument
from .wire import JobOptions, Options

if TYPE_CHECKING:
    from typing_extensions import Unpack

Started = TypeVar("Started", covariant=True)

DEFAULT_TIMEOUT_SECONDS = 10.0


class InsideDomains(Generic[R_co]):
    """What a container has as well as a node: `cl.container.client(number).info.os()`, ..."""

    def __init__(self, runner: R_co) -> None:
        self.info: Info[R_co] = Info(runner)
        self.process: Process[R_co] = Process(runner)
        self.filesystem: Filesystem[R_co] = Filesystem(runner)


class Domains(InsideDomains[R_co]):
    """The attributes of a client: `cl.info.cpu()`, `cl.ip.link.list()`, ..."""

    def __init__(self, runner: R_co) -> None:
        super().__init__(runner)
        self.core: Core[R_co] = Core(runner)
        self.config: Config[R_co] = Config(runner)
        self.logger: Logger[R_co] = Logger(runner)
        self.aggregator: Aggregator[R_co] = Aggregator(runner)
        self.job: JobDomain[R_co] = JobDomain(runner)
        self.service: Service[R_co] = Service(runner)
        self.ip: Ip[R_co] = Ip(runner)
        self.bridge: Bridge[R_co] = Bridge(runner)
        self.nft: Nft[R_co] = Nft(runner)
        self.disk: Disk[R_co] = Disk(runner)
        self.btrfs: Btrfs[R_co] = Btrfs(runner)
        self.flist: Flist[R_co] = Flist(runner)
        self.container: Container[R_co] = Container(runner)


class Starter(Generic[Started]):
    """Commands that start a job and do not wait for it. `Started` is a Response, or an awaitable of one."""

    def _start(self, command: str, arguments: Mapping[str, Any], options: Options) -> Started:
        raise NotImplementedError

    def raw(
        self,
        command: str,
        arguments: Mapping[str, Any],
        queue: str | None = None,
        max_time: float | None = None,
        stream: bool = False,
        tags: Sequence[str] | None = None,
        id: str | None = None,
        recurring_period: float | None = None,
        stats_interval: float | None = None,
        max_restart: int | None = None,
        log_levels: Sequence[int] | None = None,
    ) -> Started:
        """Sends any command. The options are those of `wire.Options`."""
        options = Options(
            id=id,
            queue=queue,
            max_time=max_time,
            max_restart=max_restart,
            recurring_period=recurring_period,
            stats_interval=stats_interval,
            stream=stream,
            log_levels=log_levels,
            tags=tags,
        )
        return self._start(command, arguments, options)

    def system(
        self,
        command: str | Sequence[str],
        dir: str = "",
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        terminal: Mapping[str, int] | None = None,
        **options: Unpack[JobOptions],
    ) -> Started:
        """Runs a program. A text is split as a shell would, a list of texts taken as it is; no shell is involved.

        With `terminal`, `{"rows": 24, "cols": 80}`, it has a terminal of that size: what it shows is in the stream of the
        job as it is, and `job.input` types.
        """
        argv = _argv(command)
        arguments = {"name": argv[0], "args": argv[1:], "dir": dir, "stdin": stdin, "env": _env(env), **_terminal(terminal)}
        return self.raw("core.system", arguments, **options)

    def bash(
        self, script: str, stdin: str = "", terminal: Mapping[str, int] | None = None, **options: Unpack[JobOptions]
    ) -> Started:
        """Runs a script in the node's shell; with a `terminal` as `system` has it."""
        if not isinstance(script, str):
            raise InvalidArgument(f"a script is text, not {type(script).__name__}")
        return self.raw("bash", {"script": script, "stdin": stdin, **_terminal(terminal)}, **options)


def _argv(command: str | Sequence[str]) -> list[str]:
    try:
        argv = shlex.split(command) if isinstance(command, str) else list(command)
    except ValueError as error:
        raise InvalidArgument(f"command {command!r} cannot be split: {error}") from None
    if not argv or not all(isinstance(arg, str) for arg in argv):
        raise InvalidArgument(f"command {command!r} is not a text or a list of at least one text")
    if any("\0" in arg for arg in argv):
        raise InvalidArgument("a program's arguments cannot hold NUL")
    return argv


def _terminal(size: Mapping[str, int] | None) -> dict[str, dict[str, int]]:
    """Nothing where there is none: what g8core sends has no such argument."""
    return {} if size is None else {"terminal": dict(size)}


def _env(env: Mapping[str, str] | None) -> dict[str, str] | None:
    if env is None:
        return None
    if not all(isinstance(item, str) for pair in env.items() for item in pair):
        raise InvalidArgument("env is not a mapping of texts to texts")
    return dict(env)
