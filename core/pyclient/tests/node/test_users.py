"""Users with lesser roles: what they may, and that they see nothing of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import g8os
from tests.flavours import Clients


@pytest.fixture
def reader(clients: Clients, address: str) -> Any:
    return clients(url(address, "read"), timeout=60)


@pytest.fixture
def worker(clients: Clients, address: str) -> Any:
    return clients(url(address, "operate"), timeout=60)


def url(address: str, user: str) -> str:
    password = (Path(address) / f"{user}.password").read_text().strip()
    return f"unix://{user}:{password}@{address}/redis.sock"


def test_who_may_only_look_looks(reader: Any) -> None:
    assert reader.ping().startswith("PONG ")
    assert reader.info.os()["os"] == "linux"
    with pytest.raises(g8os.Forbidden, match="bash"):
        reader.bash("true").check()
    with pytest.raises(g8os.Unauthorized):
        reader.core.poweroff()


def test_who_operates_runs_jobs_and_does_not_change_the_node(worker: Any) -> None:
    response = worker.bash("echo mine", stream=True)
    assert [message.text for message in response.stream(timeout=60)] == ["mine"]
    assert response.check().stdout == "mine\n"
    with pytest.raises(g8os.Forbidden):
        worker.core.reboot()


def test_results_of_others_are_not_seen(cl: Any, worker: Any, reader: Any, name: str) -> None:
    worker.bash("echo mine", id=name).check()
    for other in (cl, reader):
        with pytest.raises(g8os.JobNotFound):
            other.response_for(name).get(1)
    # The same name is another job for another user.
    assert cl.bash("echo other", id=name).check().stdout == "other\n"
    assert worker.response_for(name).get(0).stdout == "mine\n"


def test_jobs_of_others_are_not_killed(cl: Any, worker: Any, name: str) -> None:
    theirs = cl.system("sleep 60", id=name)
    while not theirs.running:
        pass
    assert name not in [job["cmd"]["id"] for job in worker.job.list()]
    with pytest.raises(g8os.NotFound):
        worker.job.kill(name)
    cl.job.kill(name)
    assert theirs.get().state == "KILLED"


def test_a_wrong_password_is_refused(clients: Clients, address: str) -> None:
    with pytest.raises(g8os.Unauthorized):
        clients(f"unix://read:wrong@{address}/redis.sock").ping()
