"""Both clients against a real redis and a scripted node."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import redis

import g8os
from tests.flavours import Clients

from .conftest import TLS, RedisServer
from .scripted import ScriptedNode


def test_a_ping_is_answered(clients: Clients, server: RedisServer, node: ScriptedNode) -> None:
    assert clients(server.url).ping() == "PONG scripted"


def test_the_unix_socket_is_as_good(clients: Clients, server: RedisServer, node: ScriptedNode) -> None:
    assert clients(server.socket_url).ping() == "PONG scripted"


def test_the_environment_names_the_node(
    clients: Clients, server: RedisServer, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("G8_NODE", server.url)
    assert clients().ping() == "PONG scripted"


def test_a_result_is_read_as_often_as_one_likes_and_by_others(
    clients: Clients, server: RedisServer, node: ScriptedNode
) -> None:
    client = clients(server.url)
    response = client.raw("core.ping", {})
    first = response.get()
    assert first.json() == "PONG scripted"
    assert response.get() == first
    for _ in range(3):
        other = clients(server.url).response_for(response.id)
        assert other.exists and not other.running
        assert other.get(0) == first
        assert client.response_for(response.id).get() == first
    with server.admin() as admin:
        assert 0 < admin.ttl(f"result:{response.id}") <= 300, "reading it does not keep it for ever"


def test_waits_are_finer_than_a_second(clients: Clients, server: RedisServer, node: ScriptedNode) -> None:
    client = clients(server.url)
    client.ping()
    response = client.raw("test.sleep", {"seconds": 1.5})
    began = time.monotonic()
    with pytest.raises(g8os.TimeoutError) as late:
        response.get(0.3)
    assert time.monotonic() - began >= 0.29
    assert late.value.job_id == response.id
    assert response.exists and response.running
    assert response.get(30).json() == 1.5
    assert time.monotonic() - began >= 1.4
    assert not response.running


def test_a_wait_may_be_longer_than_one_slice(clients: Clients, server: RedisServer, node: ScriptedNode) -> None:
    assert clients(server.url).json("test.sleep", {"seconds": 5.5}, 60) == 5.5


def test_failures_have_types(clients: Clients, server: RedisServer, node: ScriptedNode) -> None:
    client = clients(server.url)
    with pytest.raises(g8os.UnknownCommand, match="no such command"):
        client.sync("no.such", {})
    with pytest.raises(g8os.NotFound, match="no disk sdz") as missing:
        client.json("test.fail", {"code": 404, "text": "no disk sdz"})
    assert missing.value.code == 404
    with pytest.raises(g8os.JobError, match="exit status 3") as failed:
        client.system("exit 3").check()
    assert (failed.value.code, failed.value.stderr_tail) == (1003, "about to fail")
    with pytest.raises(g8os.ProtocolError):
        client.raw("test.garbage", {}).get()


def test_get_gives_a_bad_result_as_it_is(clients: Clients, server: RedisServer, node: ScriptedNode) -> None:
    result = clients(server.url).system("exit 3").get()
    assert (result.state, result.exit_status, result.stderr) == ("ERROR", 3, "about to fail\n")


def test_an_unknown_job_is_told_at_once(clients: Clients, server: RedisServer, node: ScriptedNode) -> None:
    client = clients(server.url)
    response = client.response_for("nobody-knows-me")
    began = time.monotonic()
    with pytest.raises(g8os.JobNotFound):
        response.get(60)
    with pytest.raises(g8os.JobNotFound):
        list(response.stream())
    assert time.monotonic() - began < 30
    assert not response.exists and not response.running


def test_a_node_that_takes_nothing_in_is_told(clients: Clients, server: RedisServer) -> None:
    with pytest.raises(g8os.TimeoutError, match="no sign of job"):
        clients(server.url).ping(0.2)


def test_the_same_id_runs_once(clients: Clients, server: RedisServer, node: ScriptedNode) -> None:
    client = clients(server.url)
    first = client.raw("core.ping", {}, id="once").get()
    assert client.raw("test.sleep", {"seconds": 5}, id="once").get() == first
    deadline = time.monotonic() + 30
    while node.duplicates == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (len(node.taken), node.duplicates) == (1, 1)


def test_options_reach_the_node(clients: Clients, server: RedisServer, node: ScriptedNode) -> None:
    client = clients(server.url)
    client.raw("core.ping", {}, queue="q", max_time=0.5, stream=True, tags=["a"], id="x", max_restart=1).get()
    wanted = {"id": "x", "command": "core.ping", "arguments": {}, "queue": "q", "max_time": 0.5, "max_restart": 1}
    assert node.taken == [wanted | {"stream": True, "tags": ["a"]}]


def test_several_follow_one_stream_and_resume_where_they_were(
    clients: Clients, server: RedisServer, node: ScriptedNode
) -> None:
    client = clients(server.url)
    response = client.raw("test.count", {"lines": 20, "pause": 0.02, "late": 0.3}, stream=True)
    first = list(response.stream(timeout=60))
    assert [message.text for message in first] == [f"line {n}" for n in range(20)]
    assert [message.is_stderr for message in first] == [n % 2 == 1 for n in range(20)]
    assert response.state == "SUCCESS"
    again = clients(server.url).response_for(response.id)
    assert list(again.stream(timeout=60)) == first
    assert list(again.stream(after=first[7].id, timeout=60)) == first[8:]


def test_a_stream_longer_than_one_read_comes_whole(clients: Clients, server: RedisServer, node: ScriptedNode) -> None:
    response = clients(server.url).raw("test.count", {"lines": 900}, stream=True)
    assert [message.text for message in response.stream(timeout=60)] == [f"line {n}" for n in range(900)]
    assert response.lost == 0


def test_what_a_node_dropped_before_it_was_read_is_counted(clients: Clients, server: RedisServer, node: ScriptedNode) -> None:
    response = clients(server.url).raw("test.count", {"lines": 3000}, stream=True)
    response.get(60)
    read = len(list(response.stream(timeout=60)))
    assert 1000 <= read < 3000 and response.lost == 3000 - read


def test_following_may_be_given_up(clients: Clients, server: RedisServer, node: ScriptedNode) -> None:
    response = clients(server.url).raw("test.sleep", {"seconds": 3}, stream=True)
    with pytest.raises(g8os.TimeoutError):
        list(response.stream(timeout=0.3))


def test_users_have_keys_of_their_own(clients: Clients, server: RedisServer, node: ScriptedNode) -> None:
    alice = clients(server.user_url)
    assert alice.ping() == "PONG scripted"
    response = alice.raw("test.count", {"lines": 2}, stream=True)
    assert [message.text for message in response.stream(timeout=60)] == ["line 0", "line 1"]
    assert response.get().ok
    with server.admin() as admin:
        assert admin.exists(f"result:alice:{response.id}") == 1
    with pytest.raises(g8os.JobNotFound):
        clients(server.url).response_for(response.id).get(1)


def test_who_may_not_is_told_and_nothing_is_tried_again(clients: Clients, server: RedisServer) -> None:
    port = server.port
    by_port = (f"redis://127.0.0.1:{port}", f"redis://:s3cret@127.0.0.1:{port}", f"redis://bob:s3cret@127.0.0.1:{port}")
    by_socket = (f"unix://{server.socket}", f"unix://{server.socket}?password=s3cret", f"unix://bob:s3cret@{server.socket}")
    for url in (*by_port, *by_socket):
        with pytest.raises(g8os.Unauthorized) as refused:
            clients(url).ping()
        assert "s3cret" not in f"{refused.value} {refused.value.hint}"
    with server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", "alice", "clearselectors")
    with pytest.raises(g8os.Unauthorized):
        clients(server.user_url).ping()


def test_tls_is_proven(clients: Clients, server: RedisServer, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.url.replace("redis://", "rediss://").replace(str(server.port), str(server.tls_port))
    with pytest.raises(g8os.ConnectionError, match="is not trusted"):
        clients(url).ping()
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "cert.pem"))
    assert clients(url).ping() == "PONG scripted"
    with pytest.raises(g8os.ConnectionError, match="is not trusted"):
        clients(url.replace("127.0.0.1", "localhost")).ping()


def test_what_the_caller_is_busy_with_is_not_taken_for_our_trouble(clients: Clients, server: RedisServer) -> None:
    client = clients(server.url)
    server.kill()
    try:
        raise redis.AuthenticationError("somebody else's")
    except redis.AuthenticationError:
        with pytest.raises(g8os.ConnectionError, match="cannot reach"):
            client.ping()


def test_a_node_that_is_not_there_is_told_at_once(clients: Clients, server: RedisServer) -> None:
    server.kill()
    began = time.monotonic()
    for url in (server.url, server.socket_url):
        with pytest.raises(g8os.ConnectionError, match="cannot reach") as gone:
            clients(url).ping()
        assert isinstance(gone.value, ConnectionError) and gone.value.hint
    assert time.monotonic() - began < 30


def test_a_redis_that_comes_back_is_used_again(clients: Clients, server: RedisServer, node: ScriptedNode) -> None:
    client = clients(server.url)
    client.ping()
    server.kill()
    restart = threading.Timer(1.0, server.start)
    restart.start()
    assert client.ping(30) == "PONG scripted"
    restart.join()


def test_a_redis_that_stays_away_is_given_up(clients: Clients, server: RedisServer, node: ScriptedNode) -> None:
    client = clients(server.url, reconnect=0.5)
    client.ping()
    server.kill()
    with pytest.raises(g8os.ConnectionError):
        client.ping()


def test_a_connection_that_is_cut_while_waiting_is_mended(clients: Clients, server: RedisServer, node: ScriptedNode) -> None:
    client = clients(server.url)
    response = client.raw("test.sleep", {"seconds": 2})
    with server.admin() as admin:
        cutting = threading.Timer(0.5, admin.execute_command, ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
        cutting.start()
        assert response.get(30).json() == 2
        cutting.join()
    assert node.duplicates == 0


def test_a_redis_without_memory_is_no_broken_connection(clients: Clients, server: RedisServer) -> None:
    with server.admin() as admin:
        admin.execute_command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(g8os.NodeError, match="no memory left"):
        clients(server.url).raw("core.ping", {})


def test_a_key_of_a_wrong_kind_is_told(clients: Clients, server: RedisServer) -> None:
    with server.admin() as admin:
        admin.set("result:odd", "x")
    with pytest.raises(g8os.NodeError, match="WRONGTYPE"):
        clients(server.url).response_for("odd").get(1)


def test_who_is_interrupted_before_the_answer_leaves_it_to_nobody(
    server: RedisServer, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    with g8os.Client.connect(server.url) as client:
        slow = client.raw("test.sleep", {"seconds": 5})
        while not slow.running:
            time.sleep(0.01)  # the node has not taken it yet
        (connection,) = client._pool._available_connections
        send = connection.send_packed_command

        def interrupted(*arguments: Any, **options: Any) -> None:
            send(*arguments, **options)
            raise KeyboardInterrupt

        monkeypatch.setattr(connection, "send_packed_command", interrupted)
        with pytest.raises(KeyboardInterrupt):
            slow.get()
        monkeypatch.undo()
        assert slow.running
        assert slow.get().json() == 5
