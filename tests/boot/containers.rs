//! Containers of a machine, from an flist that the host serves over HTTP: made and commanded by both clients, held to their
//! limits, and gone without a trace.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Instant;

use harness::guest::Guest;
use harness::{Flist, Gateway, process, wait};
use serde_json::{Value, json};

use crate::{PATIENCE, python, repository};

/// The same for both clients.
const SCRIPT: &str = r#"
import importlib, sys

module, port, password, cid, url = sys.argv[1:]
client = importlib.import_module(module).Client("127.0.0.1", int(port), password)
client.timeout = 60
number = client.container.create(cid, storage=url, hostname=module, port={8000: 80})
assert str(number) in client.container.list()
inside = client.container.client(number)
assert inside.ping().startswith("PONG ")
result = inside.system("cat /etc/hostname /etc/motd").get()
assert result.state == "SUCCESS" and result.stdout.endswith(f"{module}\nfrom afar\n"), result.stdout
# Its network leads to the host, as that of the machine does.
result = inside.bash(f"wget -q -O - '{url}/ipfs/{cid}?format=raw' | wc -c; exit 3").get()
assert result.state == "ERROR" and int(result.stdout) > 100, result.stdout
client.container.terminate(number)
assert str(number) not in client.container.list()
print("passed")
"#;

/// What runs for ever in a container: more processes than there may be, and one that never rests.
const BOMB: &str = "bomb() { bomb | bomb & }; bomb 2>/dev/null; while :; do :; done";

/// Prints what containers have on a machine beside their processes, and the bridge that stays for others a while.
const TRACES: &str = "find /run/core0/containers /run/core0/flists -mindepth 1; find /run/core0/networks -mindepth 1 ! -name salt
    find /sys/fs/cgroup -type d -name 'container-*'; grep /run/core0/flists /proc/self/mounts || true
    ip -o link show type veth; nft list map inet core0 forwards | grep elements || true";

/// An flist of busybox on the host, served.
struct Image {
    /// Where it is as the guest sees it.
    url: String,
    cid: String,
    _gateway: Gateway,
    _flist: Flist,
}

impl Image {
    fn new() -> Self {
        let flist = Flist::new();
        let root = flist.home().dir("root");
        fill(&root, "from afar");
        let cid = flist.pack(&root);
        let gateway = Gateway::of(&flist);
        Self { url: gateway.url().replace("127.0.0.1", "10.0.2.2"), cid, _gateway: gateway, _flist: flist }
    }

    fn contain(&self, guest: &Guest, limits: Value) -> u64 {
        let arguments = json!({"root": self.cid, "storage": self.url, "limits": limits});
        guest.call("corex.create", arguments).as_u64().unwrap()
    }
}

/// Makes a small root filesystem, which says something.
pub fn fill(root: &Path, motd: &str) {
    for name in ["bin", "etc", "root", "tmp"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("needs busybox-static in /bin");
    for applet in ["cat", "dd", "echo", "sh", "sleep", "touch", "wc", "wget"] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    // bash, as far as this test goes.
    write_program(&root.join("bin/bash"), "#!/bin/sh\nexec /bin/sh \"$@\"\n");
    fs::write(root.join("etc/motd"), format!("{motd}\n")).unwrap();
}

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

pub fn both_clients(guest: &Guest) {
    let image = Image::new();
    for (environment, module) in [("g8core", "g8core"), ("client", "g8os")] {
        let mut client = python(environment);
        client
            .args(["-c", SCRIPT, module, &guest.port().to_string(), guest.password(), &image.cid, &image.url])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env_remove("PYTHONPATH");
        if module == "g8os" {
            client.env("PYTHONPATH", repository().join("core/pyclient/src"));
        }
        assert_eq!(process::run(&mut client, 2 * PATIENCE).ok().text(), "passed", "{module}");
    }
}

pub fn limits(guest: &Guest) {
    let image = Image::new();
    let bombed = image.contain(guest, json!({"memory": 64 << 20, "processes": 24, "cpu": 0.2}));
    let bomb = begin(guest, bombed, BOMB);
    let cgroup = guest.bash("find /sys/fs/cgroup -type d -name 'container-*'");
    assert!(cgroup.starts_with("/sys/fs/cgroup/") && !cgroup.contains('\n'), "{cgroup}");
    wait::until("a process is refused, and all wait for their share of the processor", PATIENCE, || {
        let counted = guest.bash(&format!("cat {cgroup}/pids.events {cgroup}/cpu.stat"));
        count(&counted, "max ") > 0 && count(&counted, "nr_throttled ") > 0
    });
    // Two hundred of a thousand milliseconds, and what a machine so slow counts wrongly.
    let share = format!(
        "used() {{ echo $(grep '^usage_usec' {cgroup}/cpu.stat | tr -dc 0-9) $(cut -d ' ' -f 1 /proc/uptime | tr -d .); }}
        set -- $(used); sleep 3; set -- $* $(used); echo $((($3 - $1) / 1000)) $((($4 - $2) * 10))"
    );
    let share = guest.bash(&share);
    let (used, passed) = share.split_once(' ').expect("two numbers");
    let [used_ms, passed_ms] = [used, passed].map(|n| n.parse::<u64>().unwrap());
    assert!(passed_ms >= 3000 && used_ms * 5 < passed_ms * 2, "{used_ms} ms of {passed_ms} ms were used");

    // One that takes more memory than it may ends as a whole, and the one beside it does not.
    let greedy = image.contain(guest, json!({"memory": 32 << 20}));
    let filling = begin(guest, greedy, "dd if=/dev/zero of=/tmp/fill bs=1M count=128");
    assert_eq!(guest.result_of(&filling)["state"], "ERROR");
    wait::until("the greedy one is gone", PATIENCE, || {
        let alive = guest.call("corex.list", json!({}));
        assert!(alive[bombed.to_string()].is_object(), "{alive}");
        alive[greedy.to_string()].is_null()
    });
    let said = guest.bash("dmesg | grep oom_memcg | tail -n 1");
    assert!(said.contains("/container-"), "{said}");

    // What runs in one that is terminated ends, is answered, and leaves nothing.
    guest.call("corex.terminate", json!({"container": bombed}));
    assert_eq!(guest.result_of(&bomb)["state"], "ERROR");
}

pub fn nothing_is_left(guest: &Guest) {
    let began = Instant::now();
    // An image stays mounted for a while, for the next container of it.
    loop {
        let traces = guest.bash(TRACES);
        if traces.is_empty() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{traces}");
    }
    assert_eq!(guest.call("corex.list", json!({})), json!({}));
    let mounts = guest.call("flist.list", json!({}));
    assert!(!mounts.to_string().contains("/run/core0/flists"), "{mounts}");
}

/// Begins a script in a container: the id of its result.
fn begin(guest: &Guest, container: u64, script: &str) -> String {
    let inner = json!({"command": "core.system", "arguments": {"name": "sh", "args": ["-c", script]}});
    let id = guest.call("corex.dispatch", json!({"container": container, "command": inner}));
    id.as_str().unwrap().to_owned()
}

fn count(said: &str, name: &str) -> u64 {
    let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().parse().unwrap_or(0)
}
