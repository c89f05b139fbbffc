//! `flist run`: the command's exit code, its environment, and nothing left behind.

use std::fs;
use std::path::Path;

use harness::{Flist, Origin, Outcome, args, compare, mount_table, rootfs, wait};

struct Container {
    flist: Flist,
    cid: String,
}

impl Container {
    /// A small root filesystem packed with `options`.
    fn new(options: &[&str]) -> Self {
        let flist = Flist::new();
        let source = flist.home().join("source");
        rootfs::build(
            &source,
            &["/bin/true", "/bin/cat", "/usr/bin/env", "/usr/bin/id", "/bin/ls", "/bin/mount"],
        );
        fs::write(source.join("bin/not-executable"), b"#!/bin/sh\n").unwrap();
        let cid = flist.pack_with(&source, options);
        Self { flist, cid }
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Outcome {
        let mut words = args!["run", self.cid];
        words.extend(options.iter().map(Into::into));
        words.push("--".into());
        words.extend(command.iter().map(Into::into));
        self.flist.run(words)
    }

    fn sh(&self, script: &str) -> Outcome {
        self.run(&[], &["/bin/sh", "-c", script])
    }
}

#[test]
fn run_exits_with_the_code_of_the_command() {
    let c = Container::new(&[]);
    c.run(&[], &["/bin/true"]).ok();
    c.run(&[], &["true"]).ok();
    c.sh("exit 7").exits(7);
    c.sh("kill -9 $$").exits(137);
    c.run(&[], &["/bin/no-such-program"]).exits(127);
    c.run(&[], &["no-such-program"]).exits(127);
    c.run(&[], &["/bin/not-executable"]).exits(126);
    let unknown = harness::cid::encode(harness::cid::DAG_CBOR, harness::cid::SHA2_256, &[1; 32]);
    c.flist.run(args!["run", unknown, "--", "/bin/true"]).exits(125);
    nothing_is_left(&c.flist);
}

#[test]
fn output_and_errors_of_the_command_stay_apart() {
    let c = Container::new(&[]);
    let outcome = c.sh("echo out; echo err >&2").ok();
    assert_eq!(outcome.text(), "out");
    assert!(outcome.stderr.contains("err") && !outcome.stderr.contains("out"), "{}", outcome.stderr);
}

#[test]
fn the_config_of_the_image_sets_entrypoint_environment_directory_and_user() {
    let options = [
        "--entrypoint",
        "/bin/sh",
        "--entrypoint",
        "-c",
        "--env",
        "GREETING=hello there",
        "--workdir",
        "/tmp",
        "--user",
        "1234:2345",
    ];
    let c = Container::new(&options);
    let outcome = c.run(&[], &["echo \"$GREETING\"; pwd; id -u; id -g"]).ok();
    assert_eq!(outcome.text().lines().collect::<Vec<_>>(), ["hello there", "/tmp", "1234", "2345"]);
    nothing_is_left(&c.flist);
}

#[test]
fn what_a_command_writes_is_thrown_away_and_the_image_unchanged() {
    let c = Container::new(&[]);
    c.sh(
        "echo changed > /etc/passwd && echo new > /new && rm /bin/cat && cat /new 2>/dev/null; test -e /new",
    )
    .ok();
    assert!(c.sh("cat /etc/passwd").ok().text().starts_with("root:"));
    c.sh("test -e /new").exits(1);
    let mounted = c.flist.mount(&c.cid);
    compare::assert_same(&c.flist.home().join("source"), mounted.path());
}

#[test]
fn a_command_sees_its_own_processes_devices_and_network_only() {
    let c = Container::new(&[]);
    let processes = c.sh("for p in /proc/[0-9]*; do echo ${p#/proc/}; done").ok().text();
    assert!(processes.lines().count() <= 3 && processes.lines().any(|p| p == "1"), "{processes}");
    assert_eq!(
        c.sh("echo lost > /dev/null; cat /dev/null; ls /dev/zero /dev/urandom").ok().text(),
        "/dev/urandom\n/dev/zero"
    );
    let interfaces = c.sh("cat /proc/net/dev").ok().text();
    assert_eq!(interfaces.lines().filter(|l| l.contains(':')).count(), 1, "only lo: {interfaces}");
    let host = c.run(&["--net", "host"], &["/bin/cat", "/proc/net/dev"]).ok().text();
    assert_eq!(host.lines().count(), fs::read_to_string("/proc/net/dev").unwrap().lines().count());
    let home = c.flist.home().path().display().to_string();
    c.sh(&format!("test -e {home}")).exits(1);
    assert!(
        !c.sh("cat /proc/self/mountinfo").ok().text().contains(&home),
        "no trace of the host's directories"
    );
}

#[test]
fn a_command_has_few_rights_unless_privileged() {
    let c = Container::new(&[]);
    let status = |options: &[&str], key: &str| {
        let text = c.run(options, &["/bin/cat", "/proc/self/status"]).ok().text();
        text.lines().find_map(|l| l.strip_prefix(key).map(|v| v.trim().to_owned())).unwrap_or_default()
    };
    assert_eq!(status(&[], "NoNewPrivs:"), "1");
    assert_eq!(status(&[], "CapEff:"), "00000000a80425fb", "docker's default capabilities");
    assert_ne!(c.sh("mount -t tmpfs none /tmp").code, 0);
    assert_ne!(c.sh("echo 1 > /proc/sys/vm/drop_caches").code, 0);
    assert_ne!(status(&["--privileged"], "CapEff:"), "00000000a80425fb");
    c.run(&["--privileged"], &["/bin/sh", "-c", "mount -t tmpfs none /tmp"]).ok();
    nothing_is_left(&c.flist);
}

#[test]
fn a_run_beside_a_mount_shares_its_daemon_and_leaves_it_alone() {
    let c = Container::new(&[]);
    let mounted = c.flist.mount(&c.cid);
    c.sh("exit 3").exits(3);
    assert!(wait::runs(mounted.pid()));
    assert!(fs::read(mounted.join("etc/passwd")).unwrap().starts_with(b"root:"));
    mounted.umount();
    nothing_is_left(&c.flist);
}

/// Neither mounts, nor directories in the usual places, nor a daemon.
#[track_caller]
fn nothing_is_left(flist: &Flist) {
    mount_table::assert_none_under(flist.home().path());
    let left = || flist.mounts();
    wait::until("no mount is listed", std::time::Duration::from_secs(10), || left().is_empty());
    for line in fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
        let ours = Path::new(flist.cache()).display().to_string();
        assert!(!line.contains(&ours), "{line}");
    }
}

/// The daemon that mounts it knows what is to be run.
#[test]
fn what_an_image_says_of_itself_is_fetched_once() {
    let c = Container::new(&["--env", "SAID=by the image"]);
    let origin = Origin::over(c.flist.store());
    let user = Flist::new();
    let script = "echo $SAID";
    let ran = user.ok(args!["run", c.cid, "--from", origin.url(), "--", "/bin/sh", "-c", script]);
    assert_eq!(ran.text(), "by the image");
    let mut asked: Vec<String> = origin.asked().into_iter().map(|asked| asked.cid).collect();
    assert!(asked.contains(&c.cid), "{asked:?}");
    asked.sort();
    let all = asked.len();
    asked.dedup();
    assert_eq!(asked.len(), all, "something was asked for twice: {:#?}", origin.asked());
}
