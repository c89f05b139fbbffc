"""The result of a job, as the node leaves it in `result:<id>`: one JSON object, judged before anybody sees it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from .errors import ProtocolError, job_error

SUCCESS = "SUCCESS"

# The node of old spelled it so.
_SPELLINGS = {"DUPILICATE_ID": "DUPLICATE_ID"}

# A process that ended with status n has the code 1000 + n; a built-in has the numbers of HTTP.
PROCESS_CODE_BASE = 1000

LEVEL_JSON = 20


@dataclass(frozen=True)
class Result:
    """How a job ended. `state` is SUCCESS, ERROR, TIMEOUT, KILLED, UNKNOWN_CMD or DUPLICATE_ID."""

    id: str
    state: str
    code: int = 0
    command: str = ""
    data: str = ""
    level: int = 0
    stdout: str = ""
    stderr: str = ""
    critical: str = ""
    starttime: float = 0.0
    """When the job began: seconds since 1970."""
    time: int = 0
    """How long it took, in milliseconds."""
    tags: tuple[str, ...] = ()
    container: int = 0
    payload: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The whole object as the node sent it."""

    @property
    def ok(self) -> bool:
        return self.state == SUCCESS

    @property
    def exit_status(self) -> int | None:
        """Exit status of the process, if the job was one that ended by itself."""
        if self.code >= PROCESS_CODE_BASE:
            return self.code - PROCESS_CODE_BASE
        return None

    def __str__(self) -> str:
        """For people at a prompt, as g8core shows it."""
        return f"STATE: {self.state}\nSTDOUT:\n{self.stdout}\nSTDERR:\n{self.stderr}\nDATA:\n{self.data}"

    def check(self) -> Result:
        """This result, or the error it stands for."""
        if not self.ok:
            raise job_error(self)
        return self

    def json(self) -> Any:
        """What the job answered. Raises if it failed, or answered no JSON."""
        self.check()
        if self.level != LEVEL_JSON:
            raise ProtocolError(f"{self.command or 'job'} {self.id} answered with level {self.level}, not JSON (20)")
        return _loads(self.data, f"data of job {self.id}")

    def error_text(self) -> str:
        """The node's own words about a failure: `data` of a built-in is a JSON string, else there is `critical`."""
        if self.level == LEVEL_JSON and self.data:
            try:
                text = json.loads(self.data)
            except (ValueError, RecursionError):
                text = self.data
            return text if isinstance(text, str) else self.data
        return self.critical or self.data


def parse_result(raw: bytes | str, job_id: str) -> Result:
    """What lies in `result:<id>`. A field that is missing or null is empty or 0; one of a wrong type is an error."""
    payload = _loads(raw, f"result of job {job_id}")
    if not isinstance(payload, dict):
        raise ProtocolError(f"result of job {job_id} is no JSON object")
    fields = _Fields(payload, job_id)
    state = fields.text("state")
    if not state:
        raise ProtocolError(f"result of job {job_id} has no state")
    streams = fields.texts("streams")
    if isinstance(payload.get("tags"), str):  # v0.9 had one tag
        payload["tags"] = [payload["tags"]]
    return Result(
        id=fields.text("id") or job_id,
        state=_SPELLINGS.get(state, state),
        code=int(fields.number("code")),
        command=fields.text("command"),
        data=fields.text("data"),
        level=int(fields.number("level")),
        stdout=streams[0] if streams else "",
        stderr=streams[1] if len(streams) > 1 else "",
        critical=fields.text("critical"),
        starttime=fields.number("starttime") / 1000,
        time=int(fields.number("time")),
        tags=tuple(fields.texts("tags")),
        container=int(fields.number("container")),
        payload=payload,
    )


class _Fields:
    def __init__(self, payload: dict[str, Any], job_id: str) -> None:
        self._payload = payload
        self._job_id = job_id

    def text(self, name: str) -> str:
        value = self._payload.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(name, "text")
        return value

    def number(self, name: str) -> float:
        value = self._payload.get(name)
        if value is None:
            return 0
        # Python's JSON also knows NaN and Infinity, and true is an int.
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) > 2**63:
            raise self._wrong(name, "a number")
        return value

    def texts(self, name: str) -> list[str]:
        value = self._payload.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, "a list of texts")
        return value

    def _wrong(self, name: str, expected: str) -> ProtocolError:
        return ProtocolError(f"result of job {self._job_id}: `{name}` is not {expected}")


def _loads(raw: bytes | str, what: str) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{what} is no JSON: {error}") from error
