"""Every call of the client g8core 1.0.0, unmodified, that is about the node itself, and what came after it.

Run with the port and the password of a node in a network namespace of its own.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import time

from g8core import Client

node = Client("127.0.0.1", int(sys.argv[1]), sys.argv[2])
# Test machines are slow and loaded; the client waits for 10 s and cannot be told otherwise.
node.timeout = 60
folder = tempfile.mkdtemp()
disks = []


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout.strip()


def fails(call, *arguments, said, **named):
    try:
        call(*arguments, **named)
    except RuntimeError as error:
        assert said in str(error), error
    else:
        raise AssertionError(f"{call} of {arguments} did not fail")


def later(command, **arguments):
    """A command that the client does not have."""
    result = node.raw(command, arguments).get(60)
    assert result.state == "SUCCESS" and result.level == 20, (command, arguments, result.payload)
    return json.loads(result.data)


def refused(code, command, **arguments):
    result = node.raw(command, arguments).get(60)
    assert (result.state, result.payload["code"]) == ("ERROR", code), (command, result.payload)
    return result.data


def disk(mib):
    file = tempfile.NamedTemporaryFile(dir=folder)
    file.truncate(mib << 20)
    path = run("losetup", "-f", "--show", file.name)
    disks.append((path, file))
    return path


def test_info():
    assert node.info.cpu()[0]["cpu"] == 0 and node.info.cpu()[0]["mhz"] >= 0
    assert node.info.mem()["total"] > node.info.mem()["used"] > 0
    assert node.info.os()["os"] == "linux" and node.info.os()["uptime"] > 0
    assert [nic for nic in node.info.nic() if nic["name"] == "lo"][0]["addrs"][0]["addr"] == "127.0.0.1/8"
    assert all(mount["mountpoint"].startswith("/") for mount in node.info.disk())
    assert int(sys.argv[1]) in [port.get("port") for port in later("info.port")]
    assert later("info.version")["version"]


def test_filesystem():
    files = node.filesystem
    files.mkdir(folder + "/a/b")
    assert files.exists(folder + "/a/b") is True and files.exists(folder + "/x") is False
    data = os.urandom(1_300_000)
    files.upload(folder + "/a/f", io.BytesIO(data))
    back = io.BytesIO()
    files.download(folder + "/a/f", back)
    assert back.getvalue() == data
    files.upload(folder + "/a/f", io.BytesIO(b"short"))
    assert open(folder + "/a/f", "rb").read() == b"short"
    files.chmod(folder + "/a", 0o700, True)
    files.chown(folder + "/a", "daemon", "daemon", True)
    assert os.stat(folder + "/a/f").st_uid == 1
    assert files.list(folder + "/a") == [
        {"name": "b", "size": os.stat(folder + "/a/b").st_size, "mode": 0o700, "is_dir": True},
        {"name": "f", "size": 5, "mode": 0o700, "is_dir": False},
    ]
    files.move(folder + "/a/f", folder + "/a/g")
    files.remove(folder + "/a")
    assert not os.path.exists(folder + "/a")
    refused(400, "filesystem.open", file="relative")
    refused(400, "filesystem.open", file="/a\0b")
    refused(404, "filesystem.open", file="/no/such/file")
    refused(404, "filesystem.read", fd="no such name")
    refused(400, "filesystem.remove", path="/")
    refused(412, "filesystem.remove", path="/proc")


def test_bridges():
    bridges = node.bridge
    served = {"cidr": "10.77.0.1/24", "start": "10.77.0.2", "end": "10.77.0.9"}
    assert bridges.create("br0", network="dnsmasq", nat=True, settings=served) == "br0"
    bridges.create("br1", hwaddr="02:00:00:00:00:05", network="static", settings={"cidr": "10.78.0.1/24"})
    bridges.create("br2")
    assert sorted(bridges.list()) == ["br0", "br1", "br2"]
    assert "10.77.0.1/24" in run("ip", "addr", "show", "br0")
    fails(bridges.create, "br3", network="static", settings={"cidr": "10.78.0.9/24"}, said="overlaps")
    fails(bridges.create, "br3", network="static", said="needs the setting cidr")
    fails(bridges.create, "br0", said="already")
    fails(bridges.delete, "br9", said="no bridge br9")
    for name in ["br0", "br1", "br2"]:
        bridges.delete(name)
    assert bridges.list() == []
    assert "10.77." not in run("nft", "list", "table", "inet", "core0")


def test_disks():
    path = disk(128)
    name = path[len("/dev/"):]
    mountpoint = folder + "/m"
    os.mkdir(mountpoint)
    node.disk.mktable(name)
    node.disk.mkpart(name, "1MiB", "50%")
    assert node.disk.getinfo(name)["table"] == "gpt" and node.disk.getinfo(name)["free"]
    assert node.disk.getinfo(name, name + "p1")["start"] == 1 << 20
    run("mkfs.ext4", "-q", path + "p1")
    node.disk.mount(path + "p1", mountpoint)
    assert os.path.ismount(mountpoint)
    fails(node.disk.rmpart, name, 1, said="in use")
    fails(node.disk.mktable, name, said="in use")
    node.disk.umount(path + "p1")
    assert not os.path.ismount(mountpoint)
    node.disk.rmpart(name, 1)
    assert name in [device["name"] for device in node.disk.list()["blockdevices"]]
    fails(node.disk.mktable, name, said="carries gpt")
    later("disk.mktable", disk=name, table_type="msdos", force=True)
    fails(node.disk.mktable, "sdzz", said="no block device")


def test_btrfs():
    first, second = disk(160), disk(160)
    mountpoint = folder + "/fs"
    os.mkdir(mountpoint)
    label = f"g8 {os.getpid()}"
    node.btrfs.create(label, [first])
    assert label in [found["label"] for found in node.btrfs.list()]
    fails(node.btrfs.create, label, [first], said="ERROR")
    node.disk.mount(first, mountpoint)
    node.btrfs.device_add(mountpoint, second)
    assert node.btrfs.info(mountpoint)["total_devices"] == 2
    # The client does not wait for this one.
    node.btrfs.device_remove(mountpoint, second)
    end = time.monotonic() + 60
    while node.btrfs.info(mountpoint)["total_devices"] != 1:
        assert time.monotonic() < end, "the device is not removed"
    volume = mountpoint + "/v"
    node.btrfs.subvol_create(volume)
    node.btrfs.subvol_quota(volume, "10M")
    node.btrfs.subvol_snapshot(volume, mountpoint + "/copy", True)
    assert [(v["Path"], v["Quota"]) for v in node.btrfs.subvol_list(mountpoint)] == [("v", 10 << 20), ("copy", 10 << 20)]
    node.btrfs.subvol_delete(mountpoint + "/copy")
    node.btrfs.subvol_delete(volume)
    node.disk.umount(first)


def test_network():
    run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    later("ip.link.up", name="v0")
    later("ip.link.mtu", name="v0", mtu=1400)
    later("ip.addr.add", name="v0", ip="10.9.0.1/24")
    assert "10.9.0.1/24" in later("ip.addr.list", name="v0")
    later("ip.route.add", dev="v0", dst="10.10.0.0/16", gw="10.9.0.2")
    assert {"dev": "v0", "dst": "10.10.0.0/16", "gw": "10.9.0.2"} in later("ip.route.list")
    later("ip.route.del", dev="v0", dst="10.10.0.0/16")
    later("ip.addr.del", name="v0", ip="10.9.0.1/24")
    later("ip.link.down", name="v0")
    later("ip.link.name", name="v0", new="v9")
    later("ip.bridge.add", name="b0")
    later("ip.bridge.addif", name="b0", inf="v9")
    assert [link["master"] for link in later("ip.link.list") if link["name"] == "v9"] == ["b0"]
    later("ip.bridge.delif", name="b0", inf="v9")
    later("ip.bridge.del", name="b0")
    refused(404, "ip.link.up", name="nic9")
    refused(400, "ip.link.up", name="x" * 100_000)
    rule = {"port": 22, "interface": "v9", "subnet": "10.0.0.0/8"}
    later("nft.open_port", **rule)
    assert later("nft.list") == [rule] and later("nft.rule_exists", **rule) is True
    assert later("nft.rule_exists", port=22) is False
    refused(409, "nft.open_port", **rule)
    later("nft.drop_port", **rule)
    refused(404, "nft.drop_port", **rule)
    refused(400, "nft.open_port", port=70_000)


def test_processes():
    job = node.system("sleep 600")
    end = time.monotonic() + 60
    while not [found for found in node.process.list() if found["cmd"]["id"] == job.id and found["pid"]]:
        assert time.monotonic() < end, "the job does not run"
    assert [found["cmd"]["command"] for found in node.process.list(job.id)] == ["core.system"]
    assert node.process.kill(job.id) is True
    assert job.get().state == "KILLED"
    fails(node.process.kill, job.id, said="ERROR")
    process = subprocess.Popen(["sleep", "600"])
    assert later("process.list", pid=process.pid)[0]["cmdline"] == "sleep 600"
    assert len(later("process.list", pid=0)) > 2
    assert later("process.kill", pid=process.pid, signal=9) is True
    assert process.wait() == -9
    refused(404, "process.kill", pid=process.pid)
    refused(400, "process.kill", pid=1)
    refused(400, "process.kill")


def test_the_rest():
    assert later("config.get")["firewall"]["input"] == "accept"
    assert isinstance(later("flist.list"), list)
    refused(404, "flist.info", mountpoint="/no/such/place")


try:
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
    print("passed")
finally:
    for path, file in disks:
        for part in [path + "p1", path]:
            subprocess.run(["umount", "-qA", part], capture_output=True)
        subprocess.run(["partx", "-d", path], capture_output=True)
        subprocess.run(["losetup", "-d", path])
        file.close()
    subprocess.run(["rm", "-rf", folder])
