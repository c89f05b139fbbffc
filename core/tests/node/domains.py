"""Every command of a node, sent by the client g8core 1.0.0, unmodified: by its own calls, and what came after it by `raw`.

Run with the port and the password of a node in a network namespace of its own, its folder, an flist and the store of that.
The tests run in the order of this file: the last one checks that no command was left out.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid

from g8core import Client, client

node = Client("127.0.0.1", int(sys.argv[1]), sys.argv[2])
# Test machines are slow and loaded; the client waits for 10 s and cannot be told otherwise.
node.timeout = 60
node_folder, flist, store = sys.argv[3:]
folder = tempfile.mkdtemp()
disks = []
# Those that the node has carried out, whichever call of the client sent them.
succeeded = set()
get = client.Response.get


def noting(response, *arguments):
    result = get(response, *arguments)
    if result.state == "SUCCESS" and not result.payload["container"]:
        succeeded.add(result.payload["command"])
    return result


client.Response.get = noting


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


def until(what):
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def later(command, **arguments):
    """A command that the client does not have."""
    result = node.raw(command, arguments).get(60)
    assert result.state == "SUCCESS" and result.level == 20, (command, arguments, result.payload)
    return json.loads(result.data)


def push(command, arguments, **fields):
    """A command with fields that came after the client."""
    id = fields.setdefault("id", str(uuid.uuid4()))
    node._redis.rpush("core:default", json.dumps({"command": command, "arguments": arguments, **fields}))
    return node.response_for(id)


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
    # Its removal goes on for a moment.
    again = {"mountpoint": mountpoint, "devices": [second]}
    until(lambda: node.raw("btrfs.device_add", again).get(60).state == "SUCCESS")
    later("btrfs.device_remove", mountpoint=mountpoint, devices=[second])
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


def messages(stream, count):
    """The texts of the first messages of a stream: a redis stream, which the client knows nothing of."""
    entries = []

    def come():
        entries[:] = node._redis.execute_command("XRANGE", stream, "-", "+")
        return len(entries) >= count

    until(come)
    return [fields[b"text"].decode() for _, fields in entries[:count]]


def test_the_node_itself():
    assert later("core.state")["rss"] > 0
    described = later("system.commands")["commands"]
    assert {"core.ping", "bash", "disk.mktable"} <= {command["command"] for command in described}
    (shown,) = [command for command in described if command["command"] == "job.kill"]
    assert shown["role"] == "operate" and "id" in shown["arguments"]["required"]
    assert later("config.get")["firewall"]["input"] == "accept"
    # It is no machine that could be switched off. Where one is, `power.rs` does so.
    for command in ("core.reboot", "core.poweroff"):
        assert "no machine" in refused(406, command)
    assert node.ping().startswith("PONG ")


def test_jobs():
    assert node.system("echo here").get().stdout == "here\n"
    job = node.system("sleep 600")
    until(lambda: [found for found in later("job.list", id=job.id) if found["pid"]])
    assert [found["cmd"]["command"] for found in later("job.list", id=job.id)] == ["core.system"]
    assert job.id in [found["id"] for found in later("job.list")]
    assert later("job.kill", id=job.id, signal=9) is True
    result = job.get()
    assert (result.state, result.payload["code"]) == ("KILLED", 1137)
    refused(404, "job.kill", id=job.id)
    jobs = [node.system("sleep 600") for _ in range(2)]
    for job in jobs:
        until(lambda: [found for found in later("job.list", id=job.id) if found["pid"]])
    assert later("job.killall") == 2
    assert [job.get().state for job in jobs] == ["KILLED"] * 2
    times = folder + "/times"
    job = push("bash", {"script": f"echo >> {times}; exit 3"}, max_restart=1)
    assert (job.get().state, os.stat(times).st_size) == ("ERROR", 2)
    stream = later("logger.subscribe", queue="chosen", source="job quiet")["stream"]
    job = push("bash", {"script": "echo out; echo err >&2; echo 3::three >&2"}, id="quiet", log_levels=[2, 3])
    assert job.get().stdout == "out\n"
    assert messages(stream, 2) == ["err", "three"]
    assert later("logger.unsubscribe", queue="chosen") is True
    assert push("bash", {"script": "true"}, log_levels=[99]).get().payload["code"] == 400
    ticks = folder + "/ticks"
    job = push("bash", {"script": f"echo >> {ticks}"}, recurring_period=0.1)
    until(lambda: os.path.exists(ticks) and os.stat(ticks).st_size >= 3)
    assert later("job.unschedule", id=job.id) is True
    assert job.get().state == "SUCCESS"


def test_terminals():
    arguments = {"script": "stty size; read -r line; echo got $line", "terminal": {"rows": 24, "cols": 80}}
    job = push("bash", arguments, stream=True)
    until(lambda: node.raw("job.input", {"id": job.id, "terminal": {"rows": 25, "cols": 81}}).get(60).state == "SUCCESS")
    assert later("job.input", id=job.id, data="typed\n") is True
    assert job.get().stdout.endswith("got typed\r\n")
    refused(404, "job.input", id=job.id, data="x")


def test_logs_and_statistics():
    stream = later("logger.subscribe", queue="old", levels=[1], source="job talks")["stream"]
    go = folder + "/go"
    script = f"echo one; echo two >&2; echo '10::rooms:3|A'; while [ ! -e {go} ]; do sleep 0.05; done; echo three"
    job = push("bash", {"script": script}, id="talks")
    assert messages(stream, 1) == ["one"]
    own = later("core.subscribe", id="talks")["stream"]
    open(go, "w").close()
    assert job.get().state == "SUCCESS"
    assert messages(stream, 2) == ["one", "three"]
    assert "three" in messages(own, 4)
    assert later("logger.unsubscribe", queue="old") is True
    assert [(found["key"], found["last_value"]) for found in later("aggregator.query", key="rooms")] == [("rooms", 3.0)]


def test_services():
    units = node_folder + "/services"
    os.makedirs(units, exist_ok=True)
    with open(units + "/old.toml", "w") as unit:
        unit.write('exec = ["sh", "-c", "echo hello; exec sleep 600"]\n')
    assert "old" in later("service.reload")

    def ready():
        return later("service.status", name="old")["state"] == "ready"

    until(ready)
    first = later("service.list")["old"]["pid"]
    until(lambda: [line["text"] for line in later("service.logs", name="old")] == ["hello"])
    assert later("service.stop", name="old")["state"] == "stopped"
    later("service.start", name="old")
    until(ready)
    second = later("service.status", name="old")["pid"]
    later("service.restart", name="old")
    until(lambda: ready() and later("service.status", name="old")["pid"] not in (first, second))
    os.unlink(units + "/old.toml")
    assert "old" not in later("service.reload")
    for command in ("status", "start", "stop", "restart", "logs"):
        refused(404, "service." + command, name="old")
        refused(404, "service." + command, name="../old")


def test_flists():
    mountpoint = folder + "/flist"
    os.mkdir(mountpoint)
    sources = ["dir:" + store]
    mounted = later("flist.mount", **{"ref": flist, "mountpoint": mountpoint, "from": sources})
    assert (mounted["ref"], mounted["mountpoint"]) == (flist, mountpoint)
    with open(mountpoint + "/etc/passwd") as file:
        assert file.readline().startswith("root:")
    assert [found["mountpoint"] for found in later("flist.list")] == [mountpoint]
    assert later("flist.info", mountpoint=mountpoint)["ref"] == flist
    refused(412, "flist.mount", **{"ref": flist, "mountpoint": mountpoint, "from": sources})
    later("flist.umount", mountpoint=mountpoint)
    assert not os.path.ismount(mountpoint)
    refused(404, "flist.umount", mountpoint=mountpoint)
    refused(404, "flist.info", mountpoint=mountpoint)


def test_containers():
    # What the client has calls of its own for is in ../python/test_g8core.py.
    number = node.container.create(flist, storage="dir:" + store)
    assert later("corex.get", query=number)["id"] == number
    assert str(number) in later("corex.find", tags=[]) and str(number) in node.container.list()
    assert node.container.client(number).system("hostname").get().stdout == f"core-{number}\n"
    node.container.terminate(number)
    refused(404, "corex.get", query=number)


def test_no_command_of_the_node_was_left_out():
    commands = {command["command"] for command in later("system.commands")["commands"]}
    assert commands - succeeded == {"core.reboot", "core.poweroff"}, commands - succeeded


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
