//! Mounts of flists by a node: its own program is the daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use g8_fs::pack::{PackOptions, Progress, pack};
use g8_fs::source::DirStore;
use serde_json::{Value, json};

use crate::dev;
use crate::harness::{Node, PATIENCE, runs, said, until, with_own_mounts};

fn data(result: &Value) -> Value {
    assert_eq!((&result["state"], &result["level"]), (&"SUCCESS".into(), &20.into()), "{result}");
    serde_json::from_str(result["data"].as_str().unwrap()).unwrap()
}

/// The code of a failure and what it says.
fn refused(result: &Value) -> (u64, String) {
    assert_eq!(result["state"], "ERROR", "{result}");
    (result["code"].as_u64().unwrap(), result["data"].as_str().unwrap().to_owned())
}

#[test]
fn an_flist_is_mounted_described_and_unmounted() {
    let node = Node::start();
    let tree = node.dir.join("tree");
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/motd"), "hello from an flist\n").unwrap();
    let store = DirStore::create(&node.dir.join("a store")).unwrap();
    let (options, cancel) = (PackOptions::default(), AtomicBool::new(false));
    let cid = pack(&tree, &options, &store, &Progress::default(), &cancel).unwrap().cid.to_string();
    let mountpoint = node.dir.join("mnt");
    fs::create_dir(&mountpoint).unwrap();
    let from = format!("dir:{}", node.dir.join("a store").display());

    assert_eq!(data(&node.call("flist.list", json!({}))), json!([]));
    let mount = json!({"ref": cid, "mountpoint": mountpoint, "from": [from]});
    let mounted = data(&node.call("flist.mount", mount.clone()));
    assert_eq!((&mounted["ref"], &mounted["mountpoint"]), (&cid.clone().into(), &json!(mountpoint)));
    assert_eq!(fs::read_to_string(mountpoint.join("etc/motd")).unwrap(), "hello from an flist\n");
    let daemon = mounted["pid"].as_u64().unwrap();
    let program = fs::read_link(format!("/proc/{daemon}/exe")).unwrap();
    assert_eq!(program, Path::new(env!("CARGO_BIN_EXE_core0")), "another program serves the flist");
    assert_eq!(data(&node.call("flist.list", json!({}))).as_array().unwrap().len(), 1);
    assert_eq!(data(&node.call("flist.info", json!({"mountpoint": mountpoint})))["ref"], cid.as_str());
    let (code, said) = refused(&node.call("flist.mount", mount));
    assert_eq!(code, 412, "{said}");
    let (code, _) = refused(&node.call("filesystem.remove", json!({"path": mountpoint})));
    assert_eq!(code, 412);

    data(&node.call("flist.umount", json!({"mountpoint": mountpoint})));
    assert!(!mountpoint.join("etc").exists());
    let (code, _) = refused(&node.call("flist.umount", json!({"mountpoint": mountpoint})));
    assert_eq!(code, 404);
    // With nothing to serve it ends, and the manager collects it.
    let end = Instant::now() + PATIENCE;
    while Path::new(&format!("/proc/{daemon}")).exists() {
        assert!(Instant::now() < end, "the daemon is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An flist with one file in it, which a node has mounted below its folder.
fn mounted_flist(node: &Node) -> (PathBuf, u64) {
    let tree = node.dir.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "hello").unwrap();
    let store = DirStore::create(&node.dir.join("store")).unwrap();
    let (options, cancel) = (PackOptions::default(), AtomicBool::new(false));
    let cid = pack(&tree, &options, &store, &Progress::default(), &cancel).unwrap().cid.to_string();
    let mountpoint = node.dir.join("mnt");
    fs::create_dir(&mountpoint).unwrap();
    let from = format!("dir:{}", node.dir.join("store").display());
    let mount = json!({"ref": cid, "mountpoint": mountpoint, "from": [from]});
    let mounted = data(&node.call("flist.mount", mount));
    (mountpoint, mounted["pid"].as_u64().unwrap())
}

#[test]
fn a_mount_and_its_daemon_outlive_a_manager_that_is_killed_and_the_next_one_knows_them() {
    let mut node = Node::start();
    let (mountpoint, daemon) = mounted_flist(&node);
    node.kill_manager();
    assert!(runs(daemon as i32));
    assert_eq!(fs::read_to_string(mountpoint.join("file")).unwrap(), "hello");
    node.restart();
    let listed = data(&node.call("flist.list", json!({})));
    let listed: Vec<_> = listed.as_array().unwrap().iter().map(|m| (&m["pid"], &m["mountpoint"])).collect();
    assert_eq!(listed, [(&json!(daemon), &json!(mountpoint))]);
    assert_eq!(fs::read_to_string(mountpoint.join("file")).unwrap(), "hello");
    data(&node.call("flist.umount", json!({"mountpoint": mountpoint})));
    until("the daemon has ended", || !runs(daemon as i32));
}

#[test]
fn a_node_that_ends_in_order_ends_its_own_mounts_and_leaves_those_of_others() {
    let mut node = Node::start();
    let (mountpoint, daemon) = mounted_flist(&node);
    let status = data(&node.call("flist.info", json!({"mountpoint": mountpoint})));
    let others = node.dir.join("others");
    fs::create_dir(&others).unwrap();
    let flist = |words: &[&str]| {
        let ran = Command::new(flist_program())
            .args(words)
            .env("G8_CACHE", node.dir.join("cache"))
            .env("G8_FROM", format!("dir:{}", node.dir.join("store").display()))
            .output()
            .unwrap();
        assert!(ran.status.success(), "flist {words:?}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    flist(&["mount", status["ref"].as_str().unwrap(), others.to_str().unwrap()]);
    // The next manager knows what this one mounted.
    node.kill_manager();
    node.restart();
    node.stop();
    assert!(!mountpoint.join("file").exists(), "it is mounted still\n{}", said(&node.dir));
    assert_eq!(fs::read_to_string(others.join("file")).unwrap(), "hello");
    assert!(runs(daemon as i32));
    node.restart();
    data(&node.call("flist.umount", json!({"mountpoint": others})));
    until("the daemon has ended", || !runs(daemon as i32));
}

#[test]
fn what_cannot_be_mounted_is_told() {
    let node = Node::start();
    let here = node.dir.join("mnt");
    fs::create_dir(&here).unwrap();
    let store = format!("dir:{}", node.dir.join("no store").display());
    let cid = "bafyreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
    for (arguments, code, expected) in [
        (json!({"ref": cid, "mountpoint": here, "from": [store]}), 412, "no store"),
        (json!({"ref": "no cid", "mountpoint": here}), 400, "no cid"),
        (json!({"ref": "no-such-tag", "mountpoint": here}), 404, "no-such-tag"),
        (json!({"ref": "ipns://example.org", "mountpoint": here}), 412, "example.org"),
        (json!({"ref": format!("{cid}?gw=http://127.0.0.1:1"), "mountpoint": here}), 400, "127.0.0.1"),
        (json!({"ref": cid, "mountpoint": node.dir.join("missing")}), 412, "missing"),
        (json!({"ref": cid, "mountpoint": here, "from": ["nfs:/x"]}), 400, "nfs"),
        (json!({"ref": cid, "mountpoint": here, "mode": "slow"}), 400, "unknown variant"),
        (json!({"mountpoint": here}), 400, "missing field `ref`"),
    ] {
        let (found, said) = refused(&node.call("flist.mount", arguments.clone()));
        assert!(found == code && said.contains(expected), "{arguments}: {found} {said}");
    }
}

#[test]
fn a_node_has_the_settings_that_flist_has() {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "hello").unwrap();
    let store = DirStore::create(&folder.path().join("store")).unwrap();
    let (options, cancel) = (PackOptions::default(), AtomicBool::new(false));
    let cid = pack(&tree, &options, &store, &Progress::default(), &cancel).unwrap().cid.to_string();
    let from = format!("dir:{}", folder.path().join("store").display());
    let here = folder.path().join("mnt");
    fs::create_dir(&here).unwrap();

    let dir = folder.path().join("node");
    fs::create_dir(&dir).unwrap();
    let environment = [
        ("G8_FROM", from.as_str()),
        ("G8_CACHE_SIZE", "64M"),
        ("G8_CACHE_MEMORY", "8M"),
        ("G8_MODE", "fuse"),
        ("G8_DEADLINE", "7"),
    ];
    let node = Node::start_with(&dir, &environment);
    let mounted =
        data(&node.call("flist.mount", json!({"ref": format!("ipfs://{cid}"), "mountpoint": here})));
    assert_eq!(mounted["mode"], "fuse", "{mounted}");
    assert_eq!(fs::read_to_string(here.join("file")).unwrap(), "hello");
    let daemon = fs::read_to_string(format!("/proc/{}/cmdline", mounted["pid"])).unwrap().replace('\0', " ");
    assert!(daemon.contains("--cache-size 67108864 --cache-memory 8388608"), "{daemon}");
    data(&node.call("flist.umount", json!({"mountpoint": here})));
    drop(node);

    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let node = Node::start_with(&other, &[("G8_CACHE_SIZE", "lots")]);
    let (code, said) = refused(&node.call("flist.mount", json!({"ref": cid, "mountpoint": here})));
    assert!(code == 412 && said.contains("G8_CACHE_SIZE: a size is"), "{code} {said}");
}

/// The program `flist` of the same build.
pub fn flist_program() -> PathBuf {
    let beside = || Path::new(env!("CARGO_BIN_EXE_core0")).with_file_name("flist");
    let program = std::env::var_os("FLIST_BIN").map_or_else(beside, PathBuf::from);
    assert!(program.is_file(), "no {}: build it with `cargo build -p flist-tools`", program.display());
    program
}

/// A user of `flist` and of a node, in whose environment nothing says where anything is but where the home is.
fn node_and_flist_are_one(xdg: bool) {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let (kept, cache) = match xdg {
        true => (home.join("data"), home.join("cache")),
        false => (home.join(".local/share"), home.join(".cache")),
    };
    let mut environment = vec![("HOME", home.as_path())];
    if xdg {
        environment.extend([("XDG_DATA_HOME", kept.as_path()), ("XDG_CACHE_HOME", cache.as_path())]);
    }
    let flist = |words: &[&str]| {
        let ran = Command::new(flist_program())
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        assert!(ran.status.success(), "flist {words:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    };
    let path = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (tree, here, there) = (path("home/tree"), path("here"), path("there"));
    fs::write(Path::new(&tree).join("file"), "the same").unwrap();
    let node = dev::start(&folder.path().join("node"), &folder.path().join("stdout"), &environment);

    // One store and one list of names: what flist packs and names the node mounts.
    let cid = flist(&["pack", &tree]);
    flist(&["tag", "our/tree", &cid]);
    assert!(kept.join("g8os/store").is_dir());
    let mounted = data(&node.call("flist.mount", json!({"ref": "our/tree", "mountpoint": here})));
    assert_eq!(mounted["ref"], cid.as_str());
    assert_eq!(fs::read_to_string(Path::new(&here).join("file")).unwrap(), "the same");
    // One cache with one daemon: each sees and ends the mounts of the other.
    let mounts: Value = serde_json::from_str(&flist(&["mounts", "--json"])).unwrap();
    assert!(mounts.to_string().contains(&here), "{mounts}");
    assert!(cache.join("g8os").is_dir() && !folder.path().join("node/cache").exists());
    flist(&["mount", &cid, &there]);
    let listed = data(&node.call("flist.list", json!({})));
    let pids: Vec<&Value> = listed.as_array().unwrap().iter().map(|mount| &mount["pid"]).collect();
    assert_eq!(pids, [&mounted["pid"], &mounted["pid"]], "{listed}");
    data(&node.call("flist.umount", json!({"mountpoint": there})));
    flist(&["umount", &here]);
    assert_eq!(data(&node.call("flist.list", json!({}))), json!([]));
}

#[test]
fn node_and_flist_use_the_same_store_cache_and_daemon_when_nobody_says_where() {
    with_own_mounts(|| [false, true].into_iter().for_each(node_and_flist_are_one));
}
