//! The image as a machine: one boot, and everything that a machine must be able to.
//!
//! A boot is dear, so there is one for all; each check has a name, all are made, and those that fail are told together.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::guest::Guest;
use harness::{Flist, Gateway, Place, args, cid, process, wait};
use serde_json::json;

mod boot {
    pub mod bootstrap;
    pub mod containers;
}
use boot::{bootstrap, containers};

type Check = (&'static str, fn(&Guest));
type AnyCheck<'a> = (&'static str, &'a dyn Fn(&Guest));

/// In order: the last ones end what others need.
const CHECKS: [Check; 16] = [
    ("the console shows each stage and the address", the_console),
    ("redis is closed without its password", redis_is_closed),
    ("the client g8core 1.0.0 drives it, unmodified", the_old_client),
    ("our client drives it", our_client),
    ("the root is read-only, and what has to be written can be", the_root),
    ("PID 1 is the small program, within 512 KiB", pid_1),
    ("an flist is mounted by the kernel over HTTP from the host, and given on", an_flist),
    ("both clients use containers of an flist that the host serves", containers::both_clients),
    ("a vlan, and a bridge with NAT", networks),
    ("btrfs on the disk", btrfs),
    ("no module of the image is refused", no_trouble),
    ("memory, processes and processor time of a container are limited", containers::limits),
    ("a job that forks without end is ended, and all together leave some processes to the node", crowds),
    ("the bootstrap file of the host is followed", bootstrap::is_followed),
    ("containers have left nothing", containers::nothing_is_left),
    ("a killed manager comes back, redis with it, and a vlan as planned", a_killed_manager),
];

#[test]
fn a_machine_boots_from_the_image_and_does_what_a_node_does() {
    let place = Place::new();
    let host = bootstrap::Host::new(&place);
    let guest = Guest::boot(&place, &host.own());
    eprintln!("it answers after {:.1} s", guest.booted_in.as_secs_f64());
    let mut failed = Vec::new();
    let lets_in = |guest: &Guest| host.lets_in(guest);
    let mut checks: Vec<AnyCheck<'_>> = CHECKS.iter().map(|(name, check)| (*name, check as _)).collect();
    let is_the_source = |guest: &Guest| host.is_the_source(guest);
    checks
        .push(("what is named by its CID alone comes from the source of the bootstrap file", &is_the_source));
    checks.push(("the bootstrap file's password opens redis, and its controllers are looked for", &lets_in));
    checks.push(("what is written at last is on a disk that stays mounted", &a_mounted_disk));
    for (name, check) in checks {
        let began = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(|| check(&guest))).is_ok();
        eprintln!(
            "{} in {:.1} s: {name}",
            if passed { "ok" } else { "FAILED" },
            began.elapsed().as_secs_f64()
        );
        failed.extend((!passed).then_some(name));
    }
    assert!(failed.is_empty(), "{failed:#?}\n{}", guest.said());
    guest.power_off();
    the_disk_is_whole(&place);
}

fn the_console(guest: &Guest) {
    // Nobody waits for them.
    guest.until_it_says("drivers    done");
    let said = guest.said();
    for stage in ["pseudo_fs", "root", "drivers", "network", "redis", "bootstrap", "services"] {
        assert!(said.contains(&format!("{stage:<10} done")), "{stage}\n{said}");
    }
    assert!(said.contains("eth0 10.0.2.15/24 by 10.0.2.2") && said.contains("10.0.2.15:6379"), "{said}");
    // Its clock began in 2000.
    assert!(said.contains("the clock said 2000-01-01T00:00:") && said.contains("it is set to 20"), "{said}");
    let (made, now) = (guest.bash("sed -n 's/^made //p' /etc/g8os/manifest"), guest.bash("date +%s"));
    let [made, now] = [made, now].map(|seconds| seconds.parse::<u64>().unwrap());
    assert!((made..made + 3600).contains(&now), "{made} {now}");
    assert!(!said.contains(guest.password()) && !said.contains("password"), "{said}");
}

fn redis_is_closed(guest: &Guest) {
    let mut nobody = guest.connect(None).unwrap();
    let refused = redis::cmd("PING").query::<String>(&mut nobody).unwrap_err();
    assert!(refused.to_string().contains("NOAUTH"), "{refused}");
    assert!(guest.connect(Some("wrong")).is_err());
}

fn the_old_client(guest: &Guest) {
    let script = r#"
import sys
from g8core import Client
c = Client("127.0.0.1", int(sys.argv[1]), sys.argv[2])
assert c.ping().startswith("PONG "), c.ping()
r = c.system("cat", stdin="some input").get()
assert (r.state, r.stdout, r.stderr) == ("SUCCESS", "some input\n", ""), r
assert c.bash("echo 20::[1,2]").get().data == "[1,2]"
assert any(nic["name"] == "eth0" for nic in c.info.nic()), c.info.nic()
print("passed")
"#;
    let mut python = python("g8core");
    python.args(["-c", script, &guest.port().to_string(), guest.password()]);
    assert_eq!(process::run(&mut python, PATIENCE).ok().text(), "passed");
}

fn our_client(guest: &Guest) {
    let mut python = python("client");
    let password = guest.password().replace(' ', "%20");
    python
        .args(["-m", "g8os.cli", "ping"])
        .env("PYTHONPATH", repository().join("core/pyclient/src"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("G8_NODE", format!("redis://:{password}@127.0.0.1:{}", guest.port()));
    let said = process::run(&mut python, PATIENCE).ok().text();
    assert!(said.starts_with("PONG "), "{said}");
}

fn the_root(guest: &Guest) {
    let refused =
        "for place in / /etc /usr/bin /root; do if touch $place/x 2>/dev/null; then echo $place; fi; done";
    assert_eq!(guest.bash(refused), "");
    guest.bash("for place in /run /tmp /var /var/log /var/lib; do touch $place/x; rm $place/x; done");
    // Another mount than the kernel's first one, which containers could not leave; of a file system with a bound.
    let root = guest.bash("grep ' / / ' /proc/self/mountinfo");
    let fields: Vec<&str> = root.split(' ').collect();
    assert!(!root.contains('\n') && fields[0] != fields[1] && fields[5].starts_with("ro"), "{root}");
    assert_eq!(
        guest.bash("stat -f -c %T /; stat -c %a /; ls -d /new-root 2>/dev/null || true"),
        "tmpfs\n755"
    );
    let resolver = guest.bash("grep -v ^options /etc/resolv.conf; hostname");
    assert_eq!(resolver, "nameserver 10.0.2.3\ng8os");
}

fn pid_1(guest: &Guest) {
    assert_eq!(guest.bash("readlink /proc/1/exe"), "/usr/bin/core0-init");
    let anonymous = guest.bash("grep RssAnon /proc/1/status");
    let kib: u64 = anonymous.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib <= 512, "{anonymous}");
    assert_eq!(guest.bash("grep Threads /proc/1/status | tr -dc 0-9"), "1");
}

fn crowds(guest: &Guest) {
    let all: u64 = guest
        .bash("sort -n /proc/sys/kernel/pid_max /proc/sys/kernel/threads-max | head -n 1")
        .parse()
        .unwrap();
    // The kernel holds all jobs to this; the manager is none of them.
    let cgroup = guest.bash("cut -d: -f3 /proc/self/cgroup");
    assert_eq!(cgroup, "/g8os/jobs");
    assert_eq!(guest.bash(&format!("cat /sys/fs/cgroup{cgroup}/pids.max")), (all * 90 / 100).to_string());
    let manager = guest.bash(
        "for process in /proc/[0-9]*; do grep -qsx core0 $process/comm && cat $process/cgroup; done; true",
    );
    assert!(manager.lines().any(|line| line == "0::/"), "{manager}");
    let bomb = "while :; do sleep 600 & done >/dev/null 2>&1";
    let result = guest.result("bash", json!({"script": bomb}));
    assert_eq!((&result["state"], &result["code"]), (&json!("ERROR"), &json!(1137)), "{result}");
    let said = format!("more than the {} that it may have", all * 15 / 100);
    assert!(result["critical"].as_str().is_some_and(|critical| critical.contains(&said)), "{result}");
    guest.bash("until ! grep -qsx sleep /proc/[0-9]*/comm; do :; done");
}

fn an_flist(guest: &Guest) {
    let (flist, cid) = Flist::with_image();
    let gateway = Gateway::of(&flist);
    // The host as the guest sees it.
    let url = gateway.url().replace("127.0.0.1", "10.0.2.2");
    guest.bash("mkdir /var/flist");
    let mounted = guest.call(
        "flist.mount",
        json!({"ref": cid, "mountpoint": "/var/flist", "from": [url], "mode": "kernel"}),
    );
    assert_eq!(mounted["mode"], "kernel", "{mounted}");
    assert_eq!(guest.bash("cat /var/flist/hello"), "hello, world");
    let digest = process::tool("sha256sum", [flist.home().join("source/dir/noise").into()]).text();
    let there = guest.bash("sha256sum /var/flist/dir/noise");
    assert_eq!(there.split(' ').next(), digest.split(' ').next());
    guest.call("flist.umount", json!({"mountpoint": "/var/flist"}));
    drop(gateway);
    it_is_given_on(guest, &cid, digest.split(' ').next());
}

/// What the machine has read, its gateway gives to others: each block by its CID, and so all of the flist.
fn it_is_given_on(guest: &Guest, cid: &str, digest: Option<&str>) {
    assert_eq!(guest.call("service.status", json!({"name": "gateway"}))["state"], "ready");
    let elsewhere = Flist::new();
    let digest_of = |bytes: &[u8]| {
        let file = elsewhere.home().join("bytes");
        std::fs::write(&file, bytes).unwrap();
        let said = process::tool("sha256sum", args![file]).text();
        said.split(' ').next().unwrap().to_owned()
    };
    let ask = |cid: &str, options: &[&str]| {
        let mut words = args!["-s", "--max-time", "60", format!("{}/ipfs/{cid}?format=raw", guest.gateway())];
        words.extend(options.iter().map(Into::into));
        process::tool("curl", words).stdout
    };
    let root = digest_of(&ask(cid, &["--fail"]));
    let named: String = cid::bytes(cid).unwrap()[4..].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(root, named, "what the gateway gives is not {cid}");
    let nobodys = cid::encode(cid::RAW, cid::SHA2_256, &[7; 32]);
    assert_eq!(ask(&nobodys, &["-o", "/dev/null", "-w", "%{http_code}"]), b"404");
    let read = elsewhere.ok(args!["cat", "--from", guest.gateway(), cid, "dir/noise"]);
    assert_eq!(Some(&*digest_of(&read.stdout)), digest);
}

fn networks(guest: &Guest) {
    guest.bash("ip link add link eth0 name eth0.7 type vlan id 7; ip link set eth0.7 up");
    assert!(guest.bash("ip -d link show eth0.7").contains("vlan protocol 802.1Q id 7"));
    guest.bash("ip link del eth0.7");
    let network = json!({"mode": "static", "nat": true, "settings": {"cidr": "10.9.0.1/24"}});
    guest.call("bridge.create", json!({"name": "br0", "network": network}));
    assert!(guest.bash("nft list table inet core0").contains("br0"));
    assert!(guest.bash("ip addr show br0").contains("10.9.0.1/24"));
    guest.call("bridge.delete", json!({"name": "br0"}));
}

fn btrfs(guest: &Guest) {
    let arguments = json!({"label": "data", "metadata": "single", "data": "single", "devices": ["/dev/vda"]});
    guest.call("btrfs.create", arguments);
    guest.bash("mkdir /var/disk");
    guest.call("disk.mount", json!({"source": "/dev/vda", "target": "/var/disk"}));
    guest.call("btrfs.subvol_create", json!({"path": "/var/disk/sub"}));
    guest.bash("echo text > /var/disk/sub/file; sync; grep -q '/var/disk btrfs' /proc/mounts");
    guest.call("disk.umount", json!({"source": "/var/disk"}));
}

/// Nobody syncs it: that is for the way down.
fn a_mounted_disk(guest: &Guest) {
    guest.call("disk.mount", json!({"source": "/dev/vda", "target": "/var/disk"}));
    guest.bash("echo late > /var/disk/late; ln -s late /var/disk/link");
}

/// The way down left nothing behind in memory: the image has the last that was written, and no fault.
fn the_disk_is_whole(place: &Place) {
    let disk = place.join("disk");
    process::tool("btrfs", ["check".into(), "--readonly".into(), disk.clone().into()]);
    let restored = place.dir("restored");
    process::tool("btrfs", ["restore".into(), "--symlinks".into(), disk.into(), restored.clone().into()]);
    assert_eq!(std::fs::read_to_string(restored.join("late")).ok().as_deref(), Some("late\n"));
    assert_eq!(std::fs::read_link(restored.join("link")).ok().as_deref(), Some(Path::new("late")));
}

fn no_trouble(guest: &Guest) {
    // Looked for there: busybox shows the last 16 KiB unless told, and a result has the end of what is long.
    let words = "BUG:|Oops|module verification failed|Unknown symbol|Call Trace";
    let found = guest.bash(&format!("dmesg -s 1000000 | grep -E -A 30 '{words}' || true"));
    assert_eq!(found, "");
}

fn a_killed_manager(guest: &Guest) {
    let find = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q '^[^ ]*core0 run' && echo ${p#/proc/}; done; true";
    let before = guest.bash(find);
    // The next one finds a plan for the network.
    let plan = "[link.eth0]\naddress = \"dhcp\"\n[link.\"eth0.9\"]\nvlan = { on = \"eth0\", id = 9 }\naddress = \"10.9.9.9/24\"";
    guest.bash(&format!(
        "mount -o remount,bind,rw /; echo '{plan}' > /etc/g8os/net.toml; mount -o remount,bind,ro /"
    ));
    guest.bash_or_interrupted(&format!("kill -9 {before} & true"));
    wait::until("another manager runs", PATIENCE, || {
        guest.bash_or_interrupted(find).is_some_and(|after| !after.is_empty() && after != before)
    });
    wait::until("the plan is carried out", PATIENCE, || {
        let shown = guest.bash("ip -d addr show eth0.9 2>/dev/null || true");
        shown.contains("vlan protocol 802.1Q id 9") && shown.contains("10.9.9.9/24")
    });
    guest.until_it_says("eth0 10.0.2.15/24 by 10.0.2.2, eth0.9 10.9.9.9/24");
    // It has gone through its stages, and what redis was told holds on.
    assert!(guest.bash("cat /run/core0/redis/redis.conf").contains("bind 127.0.0.1 -10.0.2.15"));
}

const PATIENCE: Duration = Duration::from_secs(60);

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A Python of the tests, from `core/tests/python/NAME.txt`.
fn python(name: &str) -> Command {
    let mut setup = Command::new(repository().join(".ci/setup"));
    let made = process::run(setup.args(["venv", name]), Duration::from_secs(600)).ok();
    Command::new(PathBuf::from(made.text()).join("bin/python"))
}
