"""What a client and a node say to each other: names of keys, ids, and the JSON of a command. No I/O.

A command is one JSON object, RPUSHed to the user's queue. Its result appears in `result:<id>`, a list of one element, or,
for users other than `default`, who may write nothing but their queue, a redis stream of one entry with the field `json`;
the list `result:<id>:flag` is there from the moment the node took the command in until the result expires, and has no
time to live while the job runs. Live output is the redis stream `stream:<id>`. Users other than `default` have keys of
their own, since redis grants rights by key.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from .errors import InvalidArgument

DEFAULT_USER = "default"

MAX_COMMAND_BYTES = 2 * 1024 * 1024
"""The node refuses larger commands."""

MAX_TAGS = 64

MAX_SECONDS = 10 * 365 * 86400
"""Longest time that a node, or a caller, is asked to wait."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_COMMAND = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_QUEUE_MAX = 128
_COMMAND_MAX = 128


@dataclass(frozen=True)
class Keys:
    """The keys of one user."""

    user: str = DEFAULT_USER

    def __post_init__(self) -> None:
        if not is_name(self.user):
            raise InvalidArgument(f"user {self.user!r} is not made of 1 to 128 letters, digits, '-', '_' and '.'")

    @property
    def commands(self) -> str:
        return "core:default" if self.user == DEFAULT_USER else f"core:user:{self.user}"

    @property
    def results_are_streams(self) -> bool:
        return self.user != DEFAULT_USER

    def result(self, job_id: str) -> str:
        return f"result:{self._scope}{job_id}"

    def flag(self, job_id: str) -> str:
        return f"{self.result(job_id)}:flag"

    def stream(self, job_id: str) -> str:
        return f"stream:{self._scope}{job_id}"

    @property
    def _scope(self) -> str:
        return "" if self.user == DEFAULT_USER else f"{self.user}:"


def new_id() -> str:
    return str(uuid.uuid4())


def is_name(text: object) -> bool:
    """Whether a text can be an id or a user: it becomes part of keys, and `result:<id>:flag` is one of them."""
    return isinstance(text, str) and text != "flag" and _NAME.fullmatch(text) is not None


def check_id(job_id: str) -> str:
    if not is_name(job_id):
        raise InvalidArgument(f"id {job_id!r} is not made of 1 to 128 letters, digits, '-', '_' and '.'")
    return job_id


@dataclass(frozen=True)
class Options:
    """How a job is to be run. What is None or empty is not sent."""

    id: str | None = None
    """A name for the job, if it is not to be a random one. The node runs no id twice."""
    queue: str | None = None
    """Jobs of one queue run one after the other."""
    max_time: float | None = None
    """Seconds after which the job is killed, with state TIMEOUT."""
    max_restart: int | None = None
    """How often a job that failed is started again."""
    recurring_period: float | None = None
    """Seconds after which the job is started again, for ever."""
    stats_interval: float | None = None
    """Seconds after which it is said, again and again, what the job uses: messages of level 10, and `aggregator.query`."""
    stream: bool = False
    """Whether output can be followed live."""
    log_levels: Sequence[int] | None = None
    """Levels of messages that go to the log; None means all."""
    tags: Sequence[str] | None = None
    container: int | None = None
    """The container that carries it out; otherwise the node does."""

    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if self.queue is not None:
            if not isinstance(self.queue, str) or not 0 < len(self.queue) <= _QUEUE_MAX:
                raise InvalidArgument(f"queue {self.queue!r} is not a text of 1 to {_QUEUE_MAX} characters")
            fields["queue"] = self.queue
        for name in ("max_time", "recurring_period", "stats_interval"):
            seconds = getattr(self, name)
            if seconds is None:
                continue
            number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
            if not number or not 0 <= seconds <= MAX_SECONDS:
                raise InvalidArgument(f"{name} {seconds!r} is not a number of seconds from 0 to ten years")
            fields[name] = seconds
        if (times := self.max_restart) is not None:
            if isinstance(times, bool) or not isinstance(times, int) or not 0 <= times < 2**32:
                raise InvalidArgument(f"max_restart {times!r} is not a whole number from 0 on")
            fields["max_restart"] = times
        if self.stream:
            fields["stream"] = True
        if self.log_levels is not None:
            if any(isinstance(level, bool) or not isinstance(level, int) for level in self.log_levels):
                raise InvalidArgument(f"log_levels {self.log_levels!r} are not whole numbers")
            fields["log_levels"] = list(self.log_levels)
        if self.tags is not None:
            tags = self.tags
            if isinstance(tags, str) or not all(isinstance(tag, str) and tag for tag in tags) or len(tags) > MAX_TAGS:
                raise InvalidArgument(f"tags {tags!r} are not a list of at most {MAX_TAGS} texts")
            fields["tags"] = list(tags)
        if (container := self.container) is not None:
            if isinstance(container, bool) or not isinstance(container, int) or not 0 < container < 2**32:
                raise InvalidArgument(f"container {container!r} is no number of a container")
            fields["container"] = container
        return fields


class JobOptions(TypedDict, total=False):
    """`Options` as keyword arguments."""

    id: str | None
    queue: str | None
    max_time: float | None
    max_restart: int | None
    recurring_period: float | None
    stats_interval: float | None
    stream: bool
    log_levels: Sequence[int] | None
    tags: Sequence[str] | None


@dataclass(frozen=True)
class Command:
    """A command ready to be sent."""

    id: str
    name: str
    payload: bytes


def command(name: str, arguments: Mapping[str, Any], options: Options | None = None) -> Command:
    """Builds the JSON of a command, or says what is wrong with it. The node judges again, and more strictly."""
    options = options or Options()
    if not isinstance(name, str) or len(name) > _COMMAND_MAX or not _COMMAND.fullmatch(name):
        raise InvalidArgument(f"{name!r} is no name of a command, such as core.ping")
    if not isinstance(arguments, Mapping):
        raise InvalidArgument(f"{name}: arguments are {type(arguments).__name__}, not a mapping of names to values")
    job_id = new_id() if options.id is None else check_id(options.id)
    body = {"id": job_id, "command": name, "arguments": dict(arguments), **options.fields()}
    payload = _encode(name, body)
    if len(payload) > MAX_COMMAND_BYTES:
        raise InvalidArgument(
            f"{name}: the command is {len(payload)} bytes, more than the {MAX_COMMAND_BYTES} a node takes",
            hint="send files with filesystem.upload, in blocks",
        )
    return Command(job_id, name, payload)


def _encode(name: str, body: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        # UnicodeEncodeError is a ValueError: half a surrogate pair, as os.fsdecode makes them.
        raise InvalidArgument(f"{name}: arguments cannot be sent as JSON: {error}") from error
