//! Places and rights that mode kernel cannot take for granted: it finds another way, or says why not and leaves nothing.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::connections::Connections;
use harness::mapping::Mapping;
use harness::tmpfs::Tmpfs;
use harness::{Flist, Mode, Mounted, Outcome, args, compare, mount_table, page_cache, process, wait};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process};

const SOON: Duration = Duration::from_secs(20);
const NOBODY: u32 = 65_534;

fn mount_in_kernel<'f>(flist: &'f Flist, cid: &str, cache: &Path) -> Mounted<'f> {
    flist.mount_with(cid, &["--mode", "kernel", "--cache", cache.to_str().unwrap()])
}

/// Everything is right, also when nothing is cached; and after kill -9 the next daemon finds its orphan by the mount table.
fn serves_dies_and_serves_again(flist: &Flist, cid: &str, cache: &Path) {
    let source = flist.home().join("source");
    let mounted = mount_in_kernel(flist, cid, cache);
    assert_eq!(mounted.status().cache, cache);
    compare::assert_same(&source, mounted.path());
    page_cache::drop_everything();
    compare::assert_same(&source, mounted.path());
    kill_process(Pid::from_raw(mounted.pid()).unwrap(), Signal::KILL).unwrap();
    wait::for_the_end_of(mounted.pid(), SOON);
    let options = ["--mode", "kernel", "--cache", cache.to_str().unwrap()];
    let again = flist.mount_at(cid, mounted.path(), &options);
    assert_eq!(mount_table::under(again.path()).len(), 1, "the orphan was cleared");
    compare::assert_same(&source, again.path());
    let daemon = again.pid();
    again.umount();
    wait::for_the_end_of(daemon, SOON);
    let left: Vec<_> = fs::read_dir(cache).unwrap().map(|e| e.unwrap().file_name()).collect();
    let links = left.iter().filter(|name| name.to_string_lossy().starts_with("flist:"));
    assert_eq!(links.count(), 0, "{left:?}");
}

/// tmpfs and overlayfs cannot back EROFS (ENOTBLK), so the tree is served over FUSE too.
#[test]
fn a_cache_in_memory_or_on_an_overlay_serves_the_tree_too() {
    let (flist, cid) = Flist::with_image();
    let memory = Tmpfs::mount(&flist.home().dir("memory"), 64);
    let dir = flist.home().dir("overlay");
    let layers = ["lower", "upper", "work"].map(|name| flist.home().dir(name).display().to_string());
    let options = format!("lowerdir={},upperdir={},workdir={}", layers[0], layers[1], layers[2]);
    let options = std::ffi::CString::new(options).unwrap();
    mount("overlay", &dir, "overlay", MountFlags::empty(), Some(options.as_c_str())).unwrap();
    for below in [memory.path(), &dir] {
        let cache = below.join("cache");
        let source = flist.home().join("source");
        let mounted = mount_in_kernel(&flist, &cid, &cache);
        compare::assert_same(&source, mounted.path());
        page_cache::drop_everything();
        compare::assert_same(&source, mounted.path());
        let daemon = mounted.pid();
        mounted.umount();
        wait::for_the_end_of(daemon, SOON);
    }
    mount_table::unmount(&dir);
}

#[test]
fn a_cache_under_any_name_can_be_told_from_the_mount_table() {
    let (flist, cid) = Flist::with_image();
    for name in ["a b", "a,b", "a:b", "a=b", "a#b", "a\\b", "a\tb", "a@b", "flist:x", "\u{fc}\u{2603}", "%20"]
    {
        let cache = flist.home().join(name);
        serves_dies_and_serves_again(&flist, &cid, &cache);
    }
}

/// Longer than a socket address (108) and a name (255).
#[test]
fn a_cache_under_a_long_path_works() {
    let (flist, cid) = Flist::with_image();
    let long: PathBuf = std::iter::repeat_n("a name of two dozen bytes", 14).collect();
    let cache = flist.home().path().join(long);
    assert!(cache.as_os_str().len() > 300);
    serves_dies_and_serves_again(&flist, &cid, &cache);
}

/// Runs `flist mount` in `mode` through `wrapper`, in a mount namespace of its own.
fn mount_through(flist: &Flist, wrapper: &[&str], mode: &str, cid: &str, dir: &Path) -> Outcome {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(flist.bin()).args(args!["mount", cid, dir, "--mode", mode]);
    flist.environment(&mut command);
    process::run(&mut command, SOON)
}

#[test]
fn without_the_right_to_mount_every_mode_says_so_and_leaves_nothing() {
    let (flist, cid) = Flist::with_image();
    let dir = flist.mountpoint();
    let wrapper = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    for mode in ["kernel", "auto", "fuse"] {
        let outcome = mount_through(&flist, &wrapper, mode, &cid, &dir).exits(1);
        assert!(outcome.stderr.contains("not permitted"), "{mode}: {}", outcome.stderr);
        if mode == "kernel" {
            assert!(outcome.stderr.contains("--mode fuse"), "no way out: {}", outcome.stderr);
        }
        assert!(outcome.stdout.is_empty() && !outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        mount_table::assert_none_under(&dir);
    }
}

/// A container: its root may mount FUSE, and no EROFS.
#[test]
fn in_a_user_namespace_auto_falls_back_to_fuse_and_says_why() {
    let (flist, cid) = Flist::with_image();
    let dir = flist.mountpoint();
    let script = "flist=$0; \"$flist\" mount \"$1\" \"$2\" --mode auto && cat \"$2/hello\" && \"$flist\" mounts --json && \"$flist\" umount \"$2\"";
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(flist.bin())
        .args(args![cid, dir]);
    flist.environment(&mut command);
    let outcome = process::run(&mut command, SOON).ok();
    assert!(
        outcome.text().contains("hello, world") && outcome.text().contains("\"fuse\""),
        "{}",
        outcome.text()
    );
    assert!(outcome.text().contains("\"fallback\""), "{}", outcome.text());
    assert!(outcome.stderr.contains("mode fuse, which is slower"), "{}", outcome.stderr);

    let wrapper = ["unshare", "--user", "--map-root-user", "--mount"];
    let refused = mount_through(&flist, &wrapper, "kernel", &cid, &dir).exits(1);
    assert!(
        refused.stderr.contains("mode kernel") && refused.stderr.contains("--mode fuse"),
        "{}",
        refused.stderr
    );
    mount_table::assert_none_under(&dir);
}

#[test]
fn an_ordinary_user_who_asks_for_mode_kernel_is_told_about_mode_fuse() {
    let (flist, cid) = Flist::with_image();
    let home = flist.home().dir("nobody");
    process::tool("cp", args![flist.bin(), home.join("flist")]);
    fs::create_dir(home.join("mnt")).unwrap();
    process::tool("chown", args!["-hR", "65534:65534", home]);
    let script = "mknod \"$0\" c 10 229 && chmod 666 \"$0\" && mount --bind \"$0\" /dev/fuse && exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(flist.home().join("fuse")).arg(home.join("flist"));
    command.args(args!["mount", cid, home.join("mnt"), "--mode", "kernel"]);
    flist.environment(&mut command);
    command.env("HOME", &home).env("G8_CACHE", home.join("cache"));
    let refused = process::run(&mut command, SOON).exits(1);
    assert!(
        refused.stderr.contains("mode kernel") && refused.stderr.contains("--mode fuse"),
        "{}",
        refused.stderr
    );
    // Even without a device to ask.
    let mut command = Command::new(home.join("flist"));
    command.args(args!["mount", cid, home.join("mnt"), "--mode", "kernel"]).uid(NOBODY).gid(NOBODY);
    flist.environment(&mut command);
    command.env("HOME", &home).env("G8_CACHE", home.join("cache"));
    process::run(&mut command, SOON).exits(1);
    mount_table::assert_none_under(&home);
}

/// Somebody aborts the connection while the mount is in use: its path is free, and who was on it hangs nowhere.
#[test]
fn an_aborted_mount_in_use_gives_its_path_free_and_hangs_nobody() {
    let (flist, cid) = Flist::with_image();
    let connections = Connections::new(flist.home());
    let dir = flist.mountpoint();
    let mounted = flist.mount_at(&cid, &dir, &[]);
    let (daemon, connection) = (mounted.pid(), connections.only_of(mounted.pid()));
    let other = flist.mount(&cid);
    let expected = fs::read(flist.home().join("source/dir/text")).unwrap();
    let mut cached = File::open(mounted.join("dir/text")).unwrap();
    let kept = Mapping::new(&cached, expected.len());
    let uncached = File::open(mounted.join("dir/noise")).unwrap();
    let mut sitting = Command::new("sleep").arg("300").current_dir(mounted.join("dir")).spawn().unwrap();
    connections.abort(connection);
    wait::until("the path is free", SOON, || mount_table::at(&dir).is_none());
    let mut bytes = Vec::new();
    if mounted.mode() == Mode::Kernel {
        cached.read_to_end(&mut bytes).unwrap();
        assert!(bytes == expected, "what the kernel has");
    }
    let again = flist.mount_at(&cid, &dir, &[]);
    assert_eq!(again.pid(), daemon, "one mount is not the daemon");
    compare::assert_same(&flist.home().join("source"), again.path());
    sitting.kill().unwrap();
    sitting.wait().unwrap();
    drop((cached, uncached, kept));
    wait::until("the connection is gone with its last user", SOON, || !connections.has(connection));
    again.umount();
    other.umount();
    wait::for_the_end_of(daemon, SOON);
}
