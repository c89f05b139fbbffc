//! Mounts and daemons come and go: by our own commands, by `umount`, by signals, in any order, and nothing is left behind.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{Flist, Mode, Mounted, args, mount_table, process, store, synthetic, wait};
use rustix::process::{Pid, Signal, kill_process};

const SOON: Duration = Duration::from_secs(10);

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a daemon has a pid"), signal).expect("the daemon runs");
}

fn assert_serves(mounted: &Mounted<'_>) {
    assert_eq!(fs::read(mounted.join("hello")).unwrap(), b"hello, world\n");
}

#[test]
fn the_daemon_ends_with_its_last_mount() {
    let (flist, cid) = Flist::with_image();
    let (first, second) = (flist.mount(&cid), flist.mount(&cid));
    let pid = first.pid();
    assert_eq!(pid, second.pid(), "one daemon for one cache");
    first.umount();
    assert_serves(&second);
    assert!(wait::runs(pid));
    second.umount();
    wait::for_the_end_of(pid, SOON);
    assert!(flist.mounts().is_empty());
    mount_table::assert_none_under(flist.home().path());
}

#[test]
fn an_external_umount_ends_the_mount_and_the_daemon() {
    let (flist, cid) = Flist::with_image();
    let (first, second) = (flist.mount(&cid), flist.mount(&cid));
    let pid = first.pid();
    process::tool("umount", args![first.path()]);
    wait::until("the mount is off the list", SOON, || flist.mounts().len() == 1);
    assert_serves(&second);
    process::tool("umount", args!["-l", second.path()]);
    wait::for_the_end_of(pid, SOON);
    assert!(flist.mounts().is_empty());
    assert_serves(&flist.mount(&cid));
}

#[test]
fn sigterm_unmounts_everything_and_ends_the_daemon() {
    let (flist, cid) = Flist::with_image();
    for signal in [Signal::TERM, Signal::INT] {
        let (first, second) = (flist.mount(&cid), flist.mount(&cid));
        kill(first.pid(), signal);
        wait::for_the_end_of(first.pid(), SOON);
        mount_table::assert_none_under(flist.home().path());
        drop((first, second));
    }
    assert_serves(&flist.mount(&cid));
}

#[test]
fn after_kill_9_the_same_mountpoint_mounts_again() {
    let (flist, cid) = Flist::with_image();
    let dir = flist.mountpoint();
    for _ in 0..3 {
        let mounted = flist.mount_at(&cid, &dir, &[]);
        assert_serves(&mounted);
        kill(mounted.pid(), Signal::KILL);
        wait::for_the_end_of(mounted.pid(), SOON);
        let error = fs::read(mounted.join("dir/noise")).expect_err("its daemon is dead");
        let expected: &[i32] = match mounted.mode() {
            Mode::Fuse => &[libc::ENOTCONN, libc::ECONNABORTED, libc::EIO],
            Mode::Kernel => &[libc::EIO],
        };
        assert!(error.raw_os_error().is_some_and(|code| expected.contains(&code)), "{error}");
        let again = flist.mount_at(&cid, &dir, &[]);
        assert_serves(&again);
        assert_eq!(mount_table::under(&dir).len(), 1, "the dead mount was cleared, not covered");
        again.umount();
        std::mem::forget(mounted);
    }
    mount_table::assert_none_under(flist.home().path());
}

#[test]
fn umount_clears_a_mount_whose_daemon_is_dead() {
    let (flist, cid) = Flist::with_image();
    let mounted = flist.mount(&cid);
    kill(mounted.pid(), Signal::KILL);
    wait::for_the_end_of(mounted.pid(), SOON);
    mounted.umount();
}

/// What one daemon leaves at kill -9 must not stop the mounts of the next one, nor its list.
#[test]
fn dead_mounts_do_not_disturb_living_ones() {
    let (flist, cid) = Flist::with_image();
    let dead = flist.mount(&cid);
    kill(dead.pid(), Signal::KILL);
    wait::for_the_end_of(dead.pid(), SOON);
    let living = flist.mount(&cid);
    assert_serves(&living);
    let listed = process::run(&mut flist.command(args!["mounts", "--json"]), SOON).ok();
    assert!(listed.text().contains(&living.path().display().to_string()));
    living.umount();
}

#[test]
fn a_mount_that_races_with_the_last_umount_succeeds() {
    let (flist, cid) = Flist::with_image();
    let dirs = [flist.mountpoint(), flist.mountpoint()];
    std::thread::scope(|scope| {
        for dir in &dirs {
            scope.spawn(|| {
                for _ in 0..20 {
                    let mounted = flist.mount_at(&cid, dir, &[]);
                    assert_serves(&mounted);
                    mounted.umount();
                }
            });
        }
    });
    mount_table::assert_none_under(flist.home().path());
}

#[test]
fn a_busy_mount_is_not_torn_away() {
    let (flist, cid) = Flist::with_image();
    let mounted = flist.mount(&cid);
    let mut sitting = Command::new("sleep").arg("300").current_dir(mounted.join("dir")).spawn().unwrap();
    let outcome = flist.run_within(SOON, args!["umount", mounted.path()]);
    let still_mounted = mount_table::at(mounted.path()).is_some();
    let still_reads = fs::read(mounted.join("hello"));
    sitting.kill().unwrap();
    sitting.wait().unwrap();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("busy") || outcome.stderr.contains("in use"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&mounted.path().display().to_string()), "{}", outcome.stderr);
    assert!(still_mounted, "a refused umount changes nothing");
    assert_eq!(still_reads.unwrap(), b"hello, world\n");
    mounted.umount();
}

#[test]
fn each_cache_has_a_daemon_of_its_own() {
    let (flist, cid) = Flist::with_image();
    let other = Flist::beside(&flist);
    let (a, b) = (flist.mount(&cid), other.mount(&cid));
    assert_ne!(a.pid(), b.pid());
    assert_eq!(a.status().cache, flist.cache());
    assert_eq!(b.status().cache, other.cache());
    // The daemon of a mount is found from the mount, whatever cache the caller has.
    other.ok(args!["umount", a.path()]);
    wait::for_the_end_of(a.pid(), SOON);
    assert_serves(&b);
}

#[test]
fn mounts_tells_what_is_mounted_where() {
    let (flist, cid) = Flist::with_image();
    let mounted = flist.mount_with(&cid, &["--mode", "fuse"]);
    fs::read(mounted.join("dir/noise")).unwrap();
    let status = mounted.status();
    assert!(status.reference.contains(&cid) && status.mode == Mode::Fuse, "{status:#?}");
    assert!(status.bytes_read >= 100_000 && status.requests > 0, "{status:#?}");
    assert!(
        status.bytes_fetched > 0 && status.bytes_fetched <= 2 * store::size(flist.store()),
        "{status:#?}"
    );
    assert_eq!(status.wrong, 0);
    let listed = flist.ok(args!["mounts"]).text();
    assert!(listed.contains(&mounted.path().display().to_string()), "{listed}");
    let line = mount_table::at(mounted.path()).unwrap();
    assert!(line.options.split(',').any(|o| o == "ro"), "{line:?}");
    for option in ["nosuid", "nodev"] {
        assert!(line.options.contains(option), "{option} by default: {line:?}");
    }
}

/// A pipe ends when its last writer closes it, and the daemon lives on.
#[test]
fn mount_in_a_pipe_returns_although_its_daemon_lives_on() {
    let (flist, cid) = Flist::with_image();
    let dir = flist.mountpoint();
    let mut child = flist
        .command(args!["mount", cid, dir])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pipes = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reader =
        std::thread::spawn(move || (std::io::read_to_string(pipes.0), std::io::read_to_string(pipes.1)));
    assert!(child.wait().unwrap().success());
    let mounted = flist.adopt(&dir);
    wait::until("both pipes are closed", SOON, || reader.is_finished());
    assert_serves(&mounted);
}

/// It must not hold the shell's directory busy, nor die with its terminal.
#[test]
fn the_daemon_is_detached_from_its_caller() {
    let (flist, cid) = Flist::with_image();
    let mounted = flist.mount(&cid);
    let pid = mounted.pid();
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
    let daemon = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert_ne!(session(&daemon), session(&fs::read_to_string("/proc/self/stat").unwrap()), "its own session");
}

/// The session in a line of /proc/PID/stat: 0 when its leader is outside our pid namespace, where getsid(2) says 0 too.
fn session(stat: &str) -> i32 {
    stat.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap().parse().unwrap()
}

/// Runs as nobody, in a mount namespace where /dev/fuse is open to all as on every desktop; this machine may keep it shut.
const ORDINARY_USER: &str = r#"
set -e
mknod "$HOME/../fuse" c 10 229 && chmod 666 "$HOME/../fuse" && mount --bind "$HOME/../fuse" /dev/fuse
exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -ec '
    cd "$HOME"
    cid=$(flist pack source)
    flist mount "$cid" mnt
    cat mnt/hello
    flist mounts --json > mounts.json
    grep -q "$HOME/mnt" mounts.json
    flist umount mnt
    ! grep -q "$HOME" /proc/self/mountinfo
'
"#;

#[test]
fn an_ordinary_user_can_pack_mount_and_umount() {
    if !std::path::Path::new("/usr/bin/fusermount3").exists() {
        return harness::skip::skip("fusermount3 is not installed");
    }
    let flist = Flist::new();
    let home = flist.home().dir("nobody");
    synthetic::tiny(&home.join("source"));
    fs::create_dir(home.join("mnt")).unwrap();
    process::tool("cp", args![flist.bin(), home.join("flist")]);
    process::tool("chown", args!["-hR", "65534:65534", home]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", ORDINARY_USER]);
    flist.environment(&mut command);
    let spec = format!("dir:{}", home.join("store").display());
    command.env("HOME", &home).env("G8_TO", &spec).env("G8_FROM", &spec).env("G8_CACHE", home.join("cache"));
    // Mode kernel is for root alone, so the whole suite's mode is not asked for.
    command.env("G8_MODE", "auto");
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", home.display()));
    let outcome = process::run(&mut command, process::PATIENCE).ok();
    assert_eq!(outcome.text(), "hello, world");
    let listed = fs::read(home.join("mounts.json")).unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
    assert_eq!(listed[0]["mode"], "fuse");
    let pid = listed[0]["pid"].as_i64().unwrap_or_else(|| panic!("{listed:#}"));
    wait::for_the_end_of(pid as i32, SOON);
}
