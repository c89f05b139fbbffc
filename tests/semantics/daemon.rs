//! What goes on working while the daemon is stopped, or gone, or has been told to end.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc;
use std::time::Duration;

use harness::mapping::Mapping;
use harness::{Flist, Mode, mount_table, namespace, process, synthetic, wait};
use rustix::mount::mount_bind;
use rustix::process::{Pid, Signal, kill_process};

/// A stopped daemon answers nothing, so whatever works is the kernel's own.
#[test]
fn what_was_seen_once_is_never_asked_again() {
    namespace::own_mounts();
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::tiny(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let files: Vec<_> = synthetic::files(&source).iter().map(|rel| mounted.join(rel)).collect();
    let use_all = move |files: &[std::path::PathBuf]| {
        for file in files {
            fs::symlink_metadata(file).unwrap();
            fs::read(file).unwrap();
            assert!(fs::metadata(file.with_file_name("no such name")).is_err());
            fs::read_dir(file.parent().unwrap()).unwrap().for_each(|e| drop(e.unwrap()));
        }
    };
    use_all(&files);
    use_all(&files);
    let daemon = Pid::from_raw(mounted.pid()).unwrap();
    kill_process(daemon, Signal::STOP).unwrap();
    let (done, waiting) = mpsc::channel();
    let again = std::thread::spawn(move || {
        for _ in 0..100 {
            use_all(&files);
        }
        done.send(()).unwrap();
    });
    let answered = waiting.recv_timeout(Duration::from_secs(20));
    kill_process(daemon, Signal::CONT).unwrap();
    again.join().unwrap();
    answered.expect("the kernel asked the daemon for something that it had seen");
}

#[test]
fn after_the_death_of_the_daemon_what_the_kernel_has_stays_usable() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::sixty_megabytes(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let seen = mounted.join("dir-00/file-00");
    let bytes = fs::read(&seen).unwrap();
    let size = fs::metadata(&seen).unwrap().size();
    // Nobody on the machine can drop it from the page cache now.
    let _kept = Mapping::new(&fs::File::open(&seen).unwrap(), bytes.len());
    let daemon = mounted.pid();
    kill_process(Pid::from_raw(daemon).unwrap(), Signal::KILL).unwrap();
    wait::for_the_end_of(daemon, Duration::from_secs(10));
    assert_eq!(fs::metadata(&seen).unwrap().size(), size);
    assert!(fs::read(&seen).unwrap() == bytes);
    let unseen = fs::read(mounted.join("dir-30/file-10")).unwrap_err();
    let expected = match mounted.mode() {
        Mode::Fuse => libc::ENOTCONN,
        Mode::Kernel => libc::EIO,
    };
    assert_eq!(unseen.raw_os_error(), Some(expected));
    // Only mode kernel has names that nobody has looked at.
    let never_looked_at = fs::metadata(mounted.join("dir-31/file-11"));
    match mounted.mode() {
        Mode::Fuse => assert_eq!(never_looked_at.unwrap_err().raw_os_error(), Some(libc::ENOTCONN)),
        Mode::Kernel => {
            assert_eq!(
                never_looked_at.unwrap().size(),
                fs::metadata(source.join("dir-31/file-11")).unwrap().size()
            );
        }
    }
}

#[test]
fn a_bind_of_a_mount_outlives_its_umount() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::tiny(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let daemon = mounted.pid();
    let bound = flist.home().dir("bound");
    mount_bind(mounted.path(), &bound).unwrap();
    mounted.umount();
    for rel in synthetic::files(&source) {
        assert!(
            fs::read(bound.join(&rel)).unwrap() == fs::read(source.join(&rel)).unwrap(),
            "{}",
            rel.display()
        );
    }
    assert!(wait::runs(daemon), "somebody still uses what it serves");
    mount_table::unmount(&bound);
    assert!(wait::ends(daemon, process::PATIENCE));
}
