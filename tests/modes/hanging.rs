//! Nobody answers: the source hangs, or the daemon is stopped. Readers get an error in time or can be killed, and a mount
//! can be taken away whatever is under way.

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::connections::{Connection, Connections};
use harness::hanging::HangingStore;
use harness::store::{self, How};
use harness::tree::Builder;
use harness::{Flist, Mode, SplitMix64, args, mount_table, namespace, page_cache, process, wait};
use rustix::process::{Pid, Signal, kill_process};

/// Generous: the machine may be busy. Without bounds these tests would wait for a minute and more.
const SOON: Duration = Duration::from_secs(25);

/// An image with a small and a big file, and a user who has mounted nothing.
fn image() -> (Flist, String) {
    namespace::own_mounts();
    let flist = Flist::new();
    let tree = Builder::at(&flist.home().join("source"));
    let mut rng = SplitMix64::new(41);
    tree.dir("dir");
    tree.file("dir/small", &rng.bytes(200_000));
    tree.file("dir/big", &rng.bytes(3 << 20));
    tree.finish();
    let cid = flist.pack(&flist.home().join("source"));
    (flist, cid)
}

/// A process that reads `path` and waits for a request of `connection`.
fn waiting_reader(path: &std::path::Path, connections: &Connections, connection: Connection) -> Child {
    let reader = Command::new("cat").arg(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait::until("a request waits", SOON, || connections.waiting(connection) > 0);
    reader
}

/// Kills a process that waits in the kernel; it must go at once.
fn kill(mut reader: Child) {
    reader.kill().unwrap();
    wait::for_the_end_of(reader.id() as i32, SOON);
    reader.wait().unwrap();
}

#[test]
fn a_source_that_hangs_is_an_error_at_the_deadline_and_no_answer_for_ever() {
    let (flist, cid) = image();
    let source = flist.home().join("source");
    let store = HangingStore::copy_of(flist.store());
    let mounted = flist.mount_with(&cid, &["--from", &store.spec(), "--deadline", "2"]);
    store.hang();
    for rel in ["dir/small", "dir/big"] {
        let began = Instant::now();
        let error = fs::read(mounted.join(rel)).unwrap_err();
        assert!(began.elapsed() < SOON, "{rel} took {:?}", began.elapsed());
        // EROFS has one word for all that goes wrong below it.
        let expected = match mounted.mode() {
            Mode::Fuse => libc::ETIMEDOUT,
            Mode::Kernel => libc::EIO,
        };
        assert_eq!(error.raw_os_error(), Some(expected), "{rel}: {error}");
        assert_eq!(
            fs::metadata(mounted.join(rel)).unwrap().len(),
            fs::metadata(source.join(rel)).unwrap().len()
        );
    }
    store.answer();
    for rel in ["dir/small", "dir/big"] {
        wait::until(rel, SOON, || match fs::read(mounted.join(rel)) {
            Ok(bytes) => bytes == fs::read(source.join(rel)).unwrap() || panic!("WRONG BYTES in {rel}"),
            Err(_) => false,
        });
    }
    mounted.umount();
}

/// The last unmount of EROFS waits for its requests and cannot be killed meanwhile, so the daemon ends them.
#[test]
fn a_mount_whose_requests_hang_can_be_unmounted_once_its_readers_are_killed() {
    let (flist, cid) = image();
    let connections = Connections::new(flist.home());
    for rel in ["dir/small", "dir/big"] {
        let store = HangingStore::copy_of(flist.store());
        // So long that it cannot be what ends the wait.
        let mounted = flist.mount_with(&cid, &["--from", &store.spec(), "--deadline", "600"]);
        let (dir, daemon) = (mounted.path().to_owned(), mounted.pid());
        let connection = connections.only_of(daemon);
        store.hang();
        let reader = waiting_reader(&mounted.join(rel), &connections, connection);
        assert_eq!(fs::read_dir(mounted.join("dir")).unwrap().count(), 2, "names need nobody");
        let refused = flist.run_within(SOON, args!["umount", dir]).exits(1);
        assert!(refused.stderr.contains("in use"), "{}", refused.stderr);
        kill(reader);
        flist.run_within(SOON, args!["umount", dir]).ok();
        mount_table::assert_none_under(&dir);
        wait::until("the connection is gone", SOON, || !connections.has(connection));
        wait::for_the_end_of(daemon, SOON);
    }
}

/// It unmounts what it can and detaches the rest; whoever still waits for an answer gets an error with its end.
#[test]
fn a_daemon_that_is_told_to_stop_while_its_source_hangs_ends_with_its_mounts() {
    let (flist, cid) = image();
    let connections = Connections::new(flist.home());
    let store = HangingStore::copy_of(flist.store());
    let mounted = flist.mount_with(&cid, &["--from", &store.spec(), "--deadline", "600"]);
    let (daemon, connection) = (mounted.pid(), connections.only_of(mounted.pid()));
    store.hang();
    let mut reader = waiting_reader(&mounted.join("dir/big"), &connections, connection);
    kill_process(Pid::from_raw(daemon).unwrap(), Signal::TERM).unwrap();
    wait::for_the_end_of(daemon, SOON);
    assert!(mount_table::at(mounted.path()).is_none());
    wait::for_the_end_of(reader.id() as i32, SOON);
    assert!(!reader.wait().unwrap().success(), "what was not answered is an error");
    wait::until("the connection is gone", SOON, || !connections.has(connection));
}

/// The daemon drops what nobody has read for three seconds from the page cache of FUSE, for which the kernel takes the locks
/// of the pages and cannot be killed meanwhile. A page that waits for its contents is locked: a daemon that was killed
/// then never ended, nor did its connection, nor whoever waited.
#[test]
fn a_daemon_that_is_killed_while_its_source_hangs_for_long_ends_too() {
    let (flist, cid) = image();
    let connections = Connections::new(flist.home());
    let store = HangingStore::copy_of(flist.store());
    let mounted = flist.mount_with(&cid, &["--from", &store.spec(), "--deadline", "600"]);
    let (daemon, connection) = (mounted.pid(), connections.only_of(mounted.pid()));
    store.hang();
    let reader = waiting_reader(&mounted.join("dir/small"), &connections, connection);
    // No event tells that the daemon has tried; it would have by now.
    std::thread::sleep(Duration::from_secs(5));
    kill_process(Pid::from_raw(daemon).unwrap(), Signal::KILL).unwrap();
    let has_ended = wait::ends(daemon, SOON);
    if !has_ended {
        // Or it would stay for as long as the machine runs.
        connections.abort(connection);
    }
    assert!(has_ended, "the daemon cannot be killed");
    wait::for_the_end_of(reader.id() as i32, SOON);
    kill(reader);
    process::tool("umount", args![mounted.path()]);
    wait::until("the connection is gone", SOON, || !connections.has(connection));
}

/// Whatever the daemon of mode fuse knows of a file, it must not touch a page that waits: the kernel has locked it. Here a
/// page on the border of two blocks waits for the second, which hangs, while the first is at hand and is read beside it.
#[test]
fn a_daemon_that_is_killed_while_half_of_a_page_is_at_hand_ends_too() {
    let (flist, cid) = image();
    let source = flist.home().join("source");
    let expected = fs::read(source.join("dir/big")).unwrap();
    let connections = Connections::new(flist.home());
    let (before, border) = border(&flist, &cid, &expected);
    let hanging = HangingStore::copy_of(flist.store());
    let mounted = flist.mount_with(&cid, &["--mode", "fuse", "--from", &hanging.spec(), "--deadline", "600"]);
    let (daemon, connection) = (mounted.pid(), connections.only_of(mounted.pid()));
    fs::metadata(mounted.join("dir/big")).unwrap();
    fs::read(hanging.path().join(before.strip_prefix(flist.store()).unwrap())).unwrap();
    hanging.hang();
    // At the same time, so that neither finds the first block in memory.
    let page = |number: usize| {
        let file = fs::File::open(mounted.join("dir/big")).unwrap();
        page_cache::read_at_random(&file);
        let mut bytes = [0; 4096];
        file.read_exact_at(&mut bytes, number as u64 * 4096).map(|()| bytes)
    };
    let page = &page;
    std::thread::scope(|scope| {
        let waits = scope.spawn(move || page(border));
        let answered = scope.spawn(move || page(border - 1)).join().unwrap();
        assert!(answered.unwrap() == expected[(border - 1) * 4096..border * 4096]);
        // No event tells that the daemon has tried; it would have by now.
        std::thread::sleep(Duration::from_secs(1));
        kill_process(Pid::from_raw(daemon).unwrap(), Signal::KILL).unwrap();
        let has_ended = wait::ends(daemon, SOON);
        if !has_ended {
            // Or it would stay for as long as the machine runs.
            connections.abort(connection);
        }
        assert!(waits.join().unwrap().is_err(), "nobody has the second block");
        assert!(has_ended, "the daemon cannot be killed");
    });
}

/// The object that holds what comes before some page in the file, and the page, which the next object begins in.
fn border(flist: &Flist, cid: &str, expected: &[u8]) -> (std::path::PathBuf, usize) {
    let mut runs = Vec::new();
    for (_, object) in store::objects(flist.store()) {
        let damage = store::damage(&object, &How::Remove);
        let other = Flist::beside(flist);
        let dir = other.mountpoint();
        if other.run(args!["mount", cid, dir]).code == 0 {
            let mounted = other.adopt(&dir);
            let file = fs::File::open(mounted.join("dir/big")).unwrap();
            page_cache::read_at_random(&file);
            let pages = 0..expected.len() / 4096;
            let fails = |n: &usize| file.read_exact_at(&mut [0; 4096], *n as u64 * 4096).is_err();
            let bad: Vec<usize> = pages.filter(fails).collect();
            if let [first, .., last] = bad[..] {
                runs.push((first, last, object));
            }
        }
        drop(damage);
    }
    runs.sort();
    // They share the page of the border.
    let pair = runs.windows(2).find(|w| w[0].1 == w[1].0).expect("blocks end within pages");
    (pair[0].2.clone(), pair[0].1)
}

#[test]
fn readers_of_a_stopped_daemon_can_be_killed_and_go_on_when_it_does() {
    let (flist, cid) = image();
    let source = flist.home().join("source");
    let connections = Connections::new(flist.home());
    let mounted = flist.mount(&cid);
    let connection = connections.only_of(mounted.pid());
    fs::metadata(mounted.join("dir/small")).unwrap();
    fs::metadata(mounted.join("dir/big")).unwrap();
    let daemon = Pid::from_raw(mounted.pid()).unwrap();
    kill_process(daemon, Signal::STOP).unwrap();
    kill(waiting_reader(&mounted.join("dir/small"), &connections, connection));
    let went_on = Command::new("cmp").args([mounted.join("dir/big"), source.join("dir/big")]).spawn();
    let mut went_on = went_on.unwrap();
    kill_process(daemon, Signal::CONT).unwrap();
    wait::for_the_end_of(went_on.id() as i32, process::PATIENCE);
    assert!(went_on.wait().unwrap().success());
    harness::compare::assert_same(&source, mounted.path());
    mounted.umount();
}
