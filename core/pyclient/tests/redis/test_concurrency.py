"""Many at once: threads on a Client, tasks on an AsyncClient."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import g8os
from g8os import AsyncClient, Client

from .conftest import RedisServer
from .scripted import ScriptedNode


def test_threads_share_a_client(server: RedisServer, node: ScriptedNode) -> None:
    with Client.connect(server.url) as client, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: client.json("test.sleep", {"seconds": n / 1000}, 60), range(100)))
    assert answers == [n / 1000 for n in range(100)]


def test_tasks_share_a_client(server: RedisServer, node: ScriptedNode) -> None:
    async def many() -> list[float]:
        async with AsyncClient.connect(server.url) as client:
            jobs = [client.json("test.sleep", {"seconds": n / 1000}, 60) for n in range(100)]
            return [await job for job in asyncio.as_completed(jobs)]

    assert sorted(asyncio.run(many())) == [n / 1000 for n in range(100)]


def test_more_wait_than_there_are_connections(server: RedisServer, node: ScriptedNode) -> None:
    async def many() -> list[float]:
        async with AsyncClient.connect(server.url, max_connections=2) as client:
            jobs = [client.json("test.sleep", {"seconds": 0.2}, 60) for _ in range(10)]
            return [await job for job in asyncio.as_completed(jobs)]

    assert asyncio.run(many()) == [0.2] * 10


def test_a_task_that_is_cancelled_leaves_a_client_that_works(server: RedisServer, node: ScriptedNode) -> None:
    async def cancel() -> str:
        async with AsyncClient.connect(server.url, max_connections=1) as client:
            response = await client.raw("test.sleep", {"seconds": 3})
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(response.get(30), 0.3)
            return await client.ping()

    assert asyncio.run(cancel()) == "PONG scripted"


def test_the_loop_runs_on_while_a_client_waits(server: RedisServer, node: ScriptedNode) -> None:
    async def wait() -> int:
        ticks = 0
        async with AsyncClient.connect(server.url) as client:
            job = asyncio.create_task(client.json("test.sleep", {"seconds": 1}, 60))
            while not job.done():
                await asyncio.sleep(0.01)
                ticks += 1
        return ticks

    assert asyncio.run(wait()) > 5


def test_a_closed_client_gives_back_its_connections(server: RedisServer, node: ScriptedNode) -> None:
    with Client.connect(server.url) as admin:
        with Client.connect(server.url) as client:
            client.ping()
        deadline = time.monotonic() + 30
        while len(_others(admin)) > 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        # What remains is the scripted node's.
        assert len(_others(admin)) <= 1


def _others(admin: Client) -> list[str]:
    listing = admin._execute("CLIENT", "LIST")
    clients = listing if isinstance(listing, list) else []
    mine = admin._execute("CLIENT", "ID")
    return [str(client["id"]) for client in clients if str(client["id"]) != str(mine) and client["cmd"] != "blpop"]


def test_an_error_of_one_waiter_is_not_anothers(server: RedisServer, node: ScriptedNode) -> None:
    async def both() -> tuple[str, BaseException]:
        async with AsyncClient.connect(server.url) as client:
            good, bad = await asyncio.gather(client.ping(), client.sync("no.such", {}), return_exceptions=True)
            assert isinstance(good, str) and isinstance(bad, BaseException)
            return good, bad

    good, bad = asyncio.run(both())
    assert good == "PONG scripted" and isinstance(bad, g8os.UnknownCommand)
