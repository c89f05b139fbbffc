"""Live output of a job: the redis stream `stream:<id>`, an entry per message, many readers, resumable from any id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import InvalidArgument, ProtocolError

LEVEL_STDOUT = 1
LEVEL_STDERR = 2

BEGINNING = "0-0"

_ENTRY_ID = re.compile(r"[0-9]{1,20}(-[0-9]{1,20})?")


@dataclass(frozen=True)
class Message:
    """One message: a line, or several in one. `id` is where to resume from."""

    id: str
    level: int
    text: str
    time: float
    """Seconds since 1970."""
    source: str = ""
    """Who said it: `job ID` or `service NAME`."""

    @property
    def is_stdout(self) -> bool:
        return self.level == LEVEL_STDOUT

    @property
    def is_stderr(self) -> bool:
        return self.level == LEVEL_STDERR


@dataclass(frozen=True)
class End:
    """The last entry of a stream: the job ended in `state`."""

    id: str
    state: str


def check_entry_id(entry_id: str) -> str:
    if not isinstance(entry_id, str) or not _ENTRY_ID.fullmatch(entry_id):
        raise InvalidArgument(f"{entry_id!r} is no id of a stream's entry, such as 1700000000000-0")
    return entry_id


def parse_entries(reply: Any) -> list[Message | End]:
    """The reply to an XREAD of one stream; None is an empty one."""
    if reply is None or reply == [] or reply == {}:
        return []
    try:
        ((_, entries),) = reply
        return [parse_entry(_text(entry_id), _fields(fields)) for entry_id, fields in entries]
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"a stream's entries are not as redis sends them: {error}") from error


def parse_result_stream(reply: Any) -> str | None:
    """The result in the reply to an XREAD of a named user's result; None if there is none yet."""
    if reply is None or reply == [] or reply == {}:
        return None
    try:
        ((_, ((_, fields), *_)),) = reply
        return _fields(fields)["json"]
    except (TypeError, ValueError, KeyError) as error:
        raise ProtocolError(f"a result is not as core0 writes it: {error!r}") from error


def parse_entry(entry_id: str, fields: Mapping[str, str]) -> Message | End:
    if "end" in fields:
        return End(entry_id, fields["end"])
    try:
        level = int(fields["level"])
        # An entry's id begins with the time it was written at, in ms.
        time_ms = int(fields["time"] if "time" in fields else entry_id.split("-")[0])
        return Message(entry_id, level, fields["text"], time_ms / 1000, fields.get("source", ""))
    except (KeyError, ValueError) as error:
        raise ProtocolError(f"entry {entry_id} of a stream has no level, time or text: {error}") from error


def _fields(fields: Any) -> dict[str, str]:
    pairs = fields.items() if isinstance(fields, Mapping) else zip(fields[::2], fields[1::2], strict=True)
    return {_text(name): _text(value) for name, value in pairs}


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")
