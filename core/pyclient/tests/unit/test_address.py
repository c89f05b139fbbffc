from __future__ import annotations

from pathlib import Path

import pytest

from g8os import Address, InvalidArgument

READY = 'ready {"host":"127.0.0.1","port":4711,"password":"s3cret"}'


def test_a_url_names_everything() -> None:
    address = Address.parse("redis://alice:p%40ss@10.0.0.1:7000/2")
    assert (address.host, address.port, address.user, address.password, address.db) == ("10.0.0.1", 7000, "alice", "p@ss", 2)
    assert not address.tls and address.socket is None


def test_what_a_url_leaves_out_has_the_usual_value() -> None:
    assert Address.parse("redis://:pw@node") == Address(host="node", port=6379, user="default", password="pw")
    assert Address.parse("node:7000") == Address(host="node", port=7000)
    assert Address.parse("rediss://node").tls
    assert Address.parse("redis://[::1]:7000").host == "::1"


def test_a_unix_socket_is_a_url_too() -> None:
    address = Address.parse("unix:///run/g8/redis.sock?password=pw&db=1")
    assert (address.socket, address.password, address.db) == ("/run/g8/redis.sock", "pw", 1)
    assert Address.parse("unix://bob:pw@/run/redis.sock") == Address(user="bob", password="pw", socket="/run/redis.sock")


def test_the_ready_line_of_core0_is_an_address() -> None:
    address = Address.parse(READY + "\n")
    assert (address.host, address.port, address.password) == ("127.0.0.1", 4711, "s3cret")
    assert Address.parse(READY.removeprefix("ready ")) == address


def test_a_file_holds_an_address_in_its_last_line(tmp_path: Path) -> None:
    file = tmp_path / "node"
    file.write_text(f"some log\n{READY}\n\n")
    assert Address.find(str(file), {}).port == 4711
    assert Address.find(None, {"G8_NODE": str(file)}).port == 4711


def test_what_is_given_wins_over_the_environment() -> None:
    environment = {"G8_NODE": "redis://other"}
    assert Address.find("redis://node", environment).host == "node"
    assert Address.find(None, environment).host == "other"


def test_the_folder_of_a_node_is_an_address(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="password"):
        Address.find(str(tmp_path), {})
    (tmp_path / "password").write_text("pw\n")
    assert Address.find(str(tmp_path), {}) == Address(socket=f"{tmp_path}/redis.sock", password="pw")


def test_on_a_node_nothing_needs_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("g8os.address.LOCAL_NODE", tmp_path)
    (tmp_path / "password").write_text("pw")
    (tmp_path / "redis.sock").touch()
    assert Address.find(None, {}).socket == f"{tmp_path}/redis.sock"
    assert Address.find(None, {"G8_NODE": "redis://other"}).host == "other"


@pytest.mark.parametrize("environment", [{}, {"G8_NODE": ""}, {"G8_NODE": " \n"}])
def test_without_an_address_the_error_says_what_to_set(environment: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="no node is named") as refused:
        Address.find(None, environment)
    assert refused.value.hint is not None and "G8_NODE" in refused.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "http://node",
        "redis://",
        "redis://:s3cret@",
        "redis://:s3cret@node:port",
        "redis://:s3cret@node:99999",
        "redis://:s3cret@node:0",
        "redis://:s3cret@node/-1",
        "redis://:s3cret@[::1",
        "unix://relative/s3cret",
        "unix://",
        "ready s3cret",
        'ready {"host":"s3cret"}',
        'ready {"host":"a","port":"s3cret","password":"s3cret"}',
        "ready " + "[" * 100_000,
        "/no/such/file",
    ],
)
def test_what_is_no_address_is_refused_without_showing_passwords(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Address.find(text, {})
    assert "s3cret" not in f"{refused.value} {refused.value.hint} {refused.value.__cause__}"


def test_a_folder_is_found_by_its_plain_name_and_a_host_is_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("node", "target/node"):
        Path(folder).mkdir(parents=True)
        assert folder == "target/node" or Address.find(folder).host == "node", "no node is in there yet"
        (Path(folder) / "password").write_text("s3cret")
        assert Address.find(folder).socket == f"{tmp_path}/{folder}/redis.sock"
    for host in ("other", "x" * 5000, "10.0.0.1:7000"):
        assert Address.find(host).host == host.split(":")[0]


def test_passwords_do_not_show() -> None:
    for text in (READY, "redis://:s3cret@node", "unix:///a?password=s3cret", "rediss://u:s3cret@[::1]:1"):
        address = Address.parse(text)
        assert address.password == "s3cret"
        assert "s3cret" not in f"{address} {address!r}"
    assert str(Address.parse("rediss://u:s3cret@[::1]:1")) == "rediss://u@[::1]:1"


@pytest.mark.parametrize("content", ["", "\n \n", "x" * 70_000])
def test_a_file_without_an_address_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "node"
    file.write_text(content)
    with pytest.raises(InvalidArgument, match="holds no address"):
        Address.find(str(file), {})
