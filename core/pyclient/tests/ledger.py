"""Which commands a real node has carried out for each flavour of the client, while the tests of a session ran."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from g8os import Result
from g8os.result import parse_result

SUCCEEDED: dict[str, set[str]] = defaultdict(set)


def noting(flavour: str) -> Callable[[bytes | str, str], Result]:
    """What reads results for `g8os.steps`, and notes whose they are. Those of a container are not the node's."""

    def read(raw: bytes | str, job_id: str) -> Result:
        result = parse_result(raw, job_id)
        if result.ok and not result.container:
            SUCCEEDED[flavour].add(result.command)
        return result

    return read
