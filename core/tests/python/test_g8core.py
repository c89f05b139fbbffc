"""The old client, g8core 1.0.0 as it is on PyPI, drives a node: every call that it has, but ZeroTier and KVM.

`G8_TEST_LOGIN` is `HOST:PORT:PASSWORD`, `G8_TEST_FLIST` an flist in the folder `G8_TEST_STORE`. The tests run in the order of this file: the last one checks that none of the client's
calls was left out. With `G8_TEST_CLIENT=g8os` they show that scripts for g8core work with our client.
"""

import functools
import io
import os
import subprocess
import threading
import time
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from g8core import client as old

MIB = 1 << 20

if os.environ.get("G8_TEST_CLIENT") == "g8os":
    from g8os import Client
    from g8os import TimeoutError as Timeout
else:
    from g8core import Client
    from g8core.client import Timeout

# The managers whose calls are all made below, and what else a client can do.
MANAGERS = {
    "info": old.InfoManager,
    "process": old.ProcessManager,
    "filesystem": old.FilesystemManager,
    "bridge": old.BridgeManager,
    "disk": old.DiskManager,
    "btrfs": old.BtrfsManager,
    "container": old.ContainerManager,
}
OWN = {"raw", "sync", "json", "ping", "system", "bash", "response_for"}

made = set()


class Noted:
    """Passes everything on, and notes which calls came back with an answer."""

    def __init__(self, target, prefix=""):
        self._target, self._prefix = target, prefix

    def __getattr__(self, name):
        value = getattr(self._target, name)
        if not self._prefix and name in MANAGERS:
            return Noted(value, f"{name}.")
        if not callable(value):
            return value

        @functools.wraps(value)
        def call(*arguments, **named):
            answer = value(*arguments, **named)
            made.add(self._prefix + name)
            return answer

        return call


@pytest.fixture
def cl():
    host, port, password = os.environ["G8_TEST_LOGIN"].split(":")
    client = Client(host, int(port), password)
    client.timeout = 60
    return Noted(client)


@pytest.fixture
def name():
    return f"t{uuid.uuid4().hex[:8]}"


def public(kind):
    return {name for name in vars(kind) if not name.startswith("_")}


def test_ping(cl):
    assert cl.ping().startswith("PONG ")


def test_system(cl):
    result = cl.system("sh -c 'pwd; echo $A; cat; echo oops >&2'", dir="/usr", stdin="in\n", env={"A": "b"}).get()
    assert (result.state, result.stdout.split(), result.stderr.split()) == ("SUCCESS", ["/usr", "b", "in"], ["oops"])
    assert abs(result.starttime - time.time()) < 300 and result.time < 60_000
    assert "STATE: SUCCESS" in str(result)


def test_a_result_is_readable_again(cl):
    response = cl.system("echo once")
    first = response.get()
    assert response.get().payload == first.payload == cl.response_for(response.id).get(60).payload


def test_many_at_once(cl):
    jobs = [cl.bash(f"echo {n}") for n in range(100)]
    assert [job.get().stdout for job in jobs] == [f"{n}\n" for n in range(100)]


def test_bash(cl):
    result = cl.bash("read x; echo $((x + 1)); exit 3", stdin="41\n").get()
    assert (result.state, result.stdout) == ("ERROR", "42\n")


def test_bash_with_json_as_its_result(cl):
    result = cl.bash("echo '20:::'; echo '{\"a\": 1}'; echo ':::'").get()
    assert (result.level, result.data.strip()) == (20, '{"a": 1}')


def test_raw_sync_and_json(cl):
    assert cl.raw("core.ping", {}).get().state == "SUCCESS"
    assert cl.sync("core.ping", {}).level == 20
    assert cl.json("core.ping", {}).startswith("PONG ")
    with pytest.raises(RuntimeError, match="UNKNOWN_CMD"):
        cl.sync("no.such", {})


def test_a_wait_that_is_too_short(cl):
    response = cl.system("sleep 3")
    with pytest.raises(Timeout):
        response.get(1)
    assert response.get().state == "SUCCESS"


def test_info(cl):
    assert len(cl.info.cpu()) == os.cpu_count()
    assert cl.info.mem()["total"] > 0
    assert "/" in [disk["mountpoint"] for disk in cl.info.disk()]
    assert "lo" in [nic["name"] for nic in cl.info.nic()]
    assert cl.info.os()["os"] == "linux"


def test_process(cl):
    job = cl.system("sleep 60")
    deadline = time.monotonic() + 60
    while not (found := [p for p in cl.process.list() if p["cmd"]["id"] == job.id and p["pid"]]):
        assert time.monotonic() < deadline
    assert cl.process.list(job.id)[0]["cmd"]["arguments"]["name"] == "sleep"
    assert {"cpu", "rss", "vms", "swap", "starttime", "pid"} <= set(found[0])
    assert cl.process.kill(job.id)
    assert job.get().state == "KILLED"


def test_a_signal_of_choice(cl, tmp_path):
    # It leaves TERM alone.
    ready = tmp_path / "ready"
    job = cl.bash(f"trap '' TERM; touch {ready}; while :; do sleep 0.1; done")
    deadline = time.monotonic() + 60
    while not ready.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert cl.process.kill(job.id, signal=9)
    result = job.get()
    assert (result.state, result.payload["code"]) == ("KILLED", 1000 + 128 + 9)
    with pytest.raises(RuntimeError):
        cl.process.kill(job.id, signal=9)


def test_files(cl, tmp_path):
    path = str(tmp_path / "file")
    fd = cl.filesystem.open(path, "wx", 0o600)
    # base64 with newlines.
    cl.filesystem.write(fd, b"\0\xff" * 1000)
    cl.filesystem.close(fd)
    assert os.stat(path).st_mode & 0o777 == 0o600
    fd = cl.filesystem.open(path)
    assert cl.filesystem.read(fd) == b"\0\xff" * 1000
    assert cl.filesystem.read(fd) == b""
    cl.filesystem.close(fd)
    cl.filesystem.chmod(path, 0o640)
    cl.filesystem.chown(path, "daemon", "daemon")
    stat = os.stat(path)
    assert (stat.st_mode & 0o777, stat.st_uid) == (0o640, 1)
    with pytest.raises(RuntimeError):
        cl.filesystem.open(str(tmp_path / "missing"))


def test_modes_of_files(cl, tmp_path):
    path = str(tmp_path / "file")
    files = cl.filesystem

    def write(mode, content):
        fd = files.open(path, mode)
        files.write(fd, content)
        files.close(fd)
        return Path(path).read_bytes()

    # `x` is no O_EXCL beside another letter; alone it is what it is to Python.
    assert write("wx", b"first") == b"first"
    assert write("a", b"+more") == b"first+more"
    assert write("+", b"F") == b"First+more"
    fd = files.open(path, "+")
    assert files.read(fd) == b"First+more"
    files.write(fd, b"!")
    files.close(fd)
    assert Path(path).read_bytes() == b"First+more!"
    fd = files.open(path, "a")
    with pytest.raises(RuntimeError):
        files.read(fd)
    files.close(fd)
    assert write("w", b"new") == b"new"


def test_folders(cl, tmp_path):
    deep = str(tmp_path / "a" / "b")
    cl.filesystem.mkdir(deep)
    assert cl.filesystem.exists(deep) is True
    assert [entry["name"] for entry in cl.filesystem.list(str(tmp_path / "a"))] == ["b"]
    cl.filesystem.move(deep, str(tmp_path / "moved"))
    cl.filesystem.remove(str(tmp_path / "moved"))
    assert cl.filesystem.exists(str(tmp_path / "moved")) is False


def test_uploads_and_downloads(cl, tmp_path):
    content = os.urandom(3 * 512 * 1024 + 17)
    remote, local, back = (str(tmp_path / part) for part in ("remote", "local", "back"))
    cl.filesystem.upload(remote, io.BytesIO(content))
    sink = io.BytesIO()
    cl.filesystem.download(remote, sink)
    assert sink.getvalue() == content == Path(remote).read_bytes()
    Path(local).write_bytes(b"short")
    # `wx` is no O_EXCL: the file is there.
    cl.filesystem.upload_file(remote, local)
    cl.filesystem.download_file(remote, back)
    assert Path(remote).read_bytes() == b"short"


def test_bridges(cl, name):
    plans = [
        {},
        {"hwaddr": "02:00:00:00:00:07"},
        {"network": "static", "settings": {"cidr": "10.74.0.1/24"}},
        {"network": "dnsmasq", "nat": True, "settings": {"cidr": "10.74.0.1/24", "start": "10.74.0.2", "end": "10.74.0.9"}},
    ]
    for plan in plans:
        assert cl.bridge.create(name, **plan) == name
        assert name in cl.bridge.list()
        shown = subprocess.run(["ip", "addr", "show", name], check=True, capture_output=True, text=True).stdout
        assert ("10.74.0.1/24" in shown) == ("network" in plan)
        assert plan.get("hwaddr", "") in shown
        with pytest.raises(RuntimeError):
            cl.bridge.create(name)
        cl.bridge.delete(name)
        assert name not in cl.bridge.list()


@pytest.fixture
def disks(tmp_path):
    devices = []

    def make():
        file = tmp_path / f"disk{len(devices)}"
        with file.open("wb") as image:
            image.truncate(512 * MIB)
        argv = ["losetup", "--find", "--show", "--partscan", str(file)]
        devices.append(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip())
        return devices[-1]

    yield make
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if any(device in line for device in devices):
            subprocess.run(["umount", line.split()[4]], check=False)
    for device in devices:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_disks(cl, disks, tmp_path):
    path = disks()
    disk = path.removeprefix("/dev/")
    assert disk in str(cl.disk.list())
    cl.disk.mktable(disk)
    cl.disk.mkpart(disk, "1MiB", "101MiB")
    cl.disk.mkpart(disk, "101MiB", "100%")
    assert cl.disk.getinfo(disk)["blocksize"] == 512
    assert int(cl.disk.getinfo(disk, f"{disk}p1")["size"]) == 100 * MIB
    subprocess.run(["mkfs.ext4", "-q", f"{path}p1"], check=True)
    target = tmp_path / "mounted"
    target.mkdir()
    for options in ([], ["ro", "noatime"]):
        cl.disk.mount(f"{path}p1", str(target), options)
        assert target.is_mount()
        with pytest.raises(RuntimeError):
            cl.disk.mktable(disk)
        cl.disk.umount(f"{path}p1")
        assert not target.is_mount()
    # With what it carries: there is no force to give, and made again it has that again.
    cl.disk.rmpart(disk, 1)
    cl.disk.mkpart(disk, "1MiB", "101MiB")
    subprocess.run(["fsck.ext4", "-fn", f"{path}p1"], check=True, capture_output=True)
    cl.disk.rmpart(disk, 2)
    assert not Path(f"/sys/block/{disk}/{disk}p2").exists()
    other = disks().removeprefix("/dev/")
    cl.disk.mktable(other, "msdos")
    assert cl.disk.getinfo(other)["table"] == "msdos"
    for kind, span in (("extended", ("1MiB", "50%")), ("logical", ("2MiB", "20%")), ("primary", ("50%", "100%"))):
        cl.disk.mkpart(other, *span, kind)
    assert all(Path(f"/sys/block/{other}/{other}p{number}").exists() for number in (1, 2, 5))


def test_btrfs(cl, disks, tmp_path, name):
    first, second, third = disks(), disks(), disks()
    cl.btrfs.create(name, [first, second], "raid1", "raid1")
    target = tmp_path / "btrfs"
    target.mkdir()
    cl.disk.mount(first, str(target))
    (volume,) = [volume for volume in cl.btrfs.list() if volume["label"] == name]
    assert {device["path"] for device in volume["devices"]} == {first, second}
    cl.btrfs.device_add(str(target), third)
    assert third in str(cl.btrfs.info(str(target)))
    # It does not wait for the end of this one.
    cl.btrfs.device_remove(str(target), third)
    deadline = time.monotonic() + 60
    while third in str(cl.btrfs.list()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    volume, snapshot = str(target / "volume"), str(target / "snapshot")
    cl.btrfs.subvol_create(volume)
    (target / "volume" / "file").write_text("kept")
    cl.btrfs.subvol_snapshot(volume, snapshot, True)
    assert (target / "snapshot" / "file").read_text() == "kept"
    assert len(cl.btrfs.subvol_list(str(target))) == 2
    cl.btrfs.subvol_quota(volume, "10M")
    cl.btrfs.subvol_delete(snapshot)
    cl.btrfs.subvol_delete(volume)
    assert not Path(snapshot).exists()
    cl.disk.umount(first)
    with pytest.raises(RuntimeError):
        cl.btrfs.create(f"{name}-2", [first])
    cl.btrfs.create(f"{name}-2", [first], "single", "single", overwrite=True)
    assert f"{name}-2" in [volume["label"] for volume in cl.btrfs.list()]


@pytest.fixture
def origin():
    """An HTTP gateway of the blocks in the store: its address, and which were asked for."""
    store, asked = Path(os.environ["G8_TEST_STORE"]), []

    class Gateway(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            path, _, query = self.path.partition("?")
            cid = path.removeprefix("/ipfs/")
            block = store / cid[-3:-1] / cid
            if cid == "bafkqaaa":  # The empty block, by which clients try gateways out.
                status, body = 200, b""
            elif query == "format=raw" and block.is_file():
                asked.append(cid)
                status, body = 200, block.read_bytes()
            else:
                status, body = 404, b""
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.ipld.raw")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


def test_containers(cl, origin, tmp_path):
    url, asked = origin
    (tmp_path / "file").write_text("of the host\n")
    container = cl.container.create(os.environ["G8_TEST_FLIST"], mount={str(tmp_path): "/data"}, hostname="inside", storage=url)
    assert asked, "the flist came from nowhere"
    assert cl.container.list()[str(container)]["container"]["pid"] > 1
    inside = cl.container.client(container)
    assert inside.ping().startswith("PONG ")
    result = inside.system("sh -c 'hostname; cat /data/file; cat'", stdin="input", env={"A": "b"}).get()
    assert (result.state, result.stdout) == ("SUCCESS", "inside\nof the host\ninput\n")
    result = inside.bash("echo $0 >&2; exit 3").get()
    assert result.state == "ERROR" and result.stderr
    # What is asked of a node can be asked of a container.
    assert inside.info.os()["hostname"] == "inside"
    assert [nic["name"] for nic in inside.info.nic()] == ["lo", "eth0"]
    assert len(inside.info.cpu()) == len(cl.info.cpu()) and inside.info.mem()["total"] > 0
    assert isinstance(inside.info.disk(), list)
    job = inside.system("sleep 600")
    assert [found["cmd"]["command"] for found in inside.process.list(job.id)] == ["core.system"]
    assert inside.process.kill(job.id) and job.get().state == "KILLED"
    files = inside.filesystem
    files.mkdir("/tmp/a/b")
    content = os.urandom(MIB)
    files.upload("/data/new", io.BytesIO(content))
    assert (tmp_path / "new").read_bytes() == content
    files.move("/data/new", "/data/moved")
    sink = io.BytesIO()
    files.download("/data/moved", sink)
    assert sink.getvalue() == content and files.exists("/data/moved")
    files.chmod("/data/moved", 0o600)
    files.chown("/data/moved", "web", "33")
    assert inside.system("stat -c '%a %u %g' /data/moved").get().stdout == "600 33 33\n"
    fd = files.open("/data/moved", "w")
    files.write(fd, b"short")
    files.close(fd)
    assert [(entry["name"], entry["size"]) for entry in files.list("/data")] == [("file", 12), ("moved", 5)]
    files.remove("/data/moved")
    assert not (tmp_path / "moved").exists()
    assert not files.exists(str(tmp_path)), "the folder of the host is not there under its name"
    # With a network: an address on the default bridge and on another, a port of the node that leads into it.
    cl.bridge.create("conts", network="dnsmasq", settings={"cidr": "10.75.0.1/24", "start": "10.75.0.10", "end": "10.75.0.19"})
    other = cl.container.create(
        os.environ["G8_TEST_FLIST"],
        bridge=[("conts", "dhcp"), ("conts", "10.75.0.2/24"), ("conts", "")],
        port={8080: 80},
        storage=url,
    )
    assert other != container
    inside = cl.container.client(other)
    addresses = inside.system("ip -o -4 addr").get().stdout
    assert "172.18.0." in addresses and "10.75.0.10/24" in addresses and "10.75.0.2/24" in addresses
    inside.bash("httpd -p 80 -h /etc").get()
    assert urllib.request.urlopen("http://127.0.0.1:8080/hostname", timeout=20).read().decode() == f"core-{other}\n"
    assert "1 packets received" in inside.system("ping -c 1 -W 20 172.18.0.1").get().stdout
    for refused in ({"zerotier": "8056c2e21c000001"}, {"port": {8080: 80}}, {"bridge": [("none", "dhcp")]}):
        with pytest.raises(RuntimeError):
            cl.container.create(os.environ["G8_TEST_FLIST"], storage=url, **refused)
    for number in cl.container.list():
        cl.container.terminate(int(number))
    assert cl.container.list() == {}
    with pytest.raises(RuntimeError):
        cl.container.create("bafyreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", storage=url)
    with pytest.raises(RuntimeError):
        cl.container.terminate(container)


def test_no_call_of_the_client_was_left_out():
    wanted = OWN | {f"{name}.{call}" for name, kind in MANAGERS.items() for call in public(kind)}
    assert wanted - made == set()
