//! Inode numbers, times, links, xattrs, and what the mount table says.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use harness::idmap::IdMapped;
use harness::tree::Builder;
use harness::{Flist, Mode, args, process, synthetic, tmpfs};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;

const NOBODY: u32 = 65_534;

#[test]
fn inode_numbers_belong_to_the_image_and_the_root_has_one_of_its_own() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::tiny(&source);
    let cid = flist.pack(&source);
    let (a, b) = (flist.mount(&cid), flist.mount(&cid));
    // FUSE insists on 1; behind the superblock and its two devices there is room for the root at 44 * 32.
    let root = match a.mode() {
        Mode::Fuse => 1,
        Mode::Kernel => 44,
    };
    assert_eq!(fs::metadata(a.path()).unwrap().ino(), root);
    for rel in synthetic::files(&source) {
        let ino = |m: &harness::Mounted<'_>| fs::symlink_metadata(m.join(&rel)).unwrap().ino();
        assert_eq!(ino(&a), ino(&b), "{}", rel.display());
    }
    // Of either mode.
    let others = Mode::BOTH.map(|mode| flist.mount_with(&cid, &["--mode", mode.name()]));
    for rel in synthetic::files(&source) {
        let ino = |m: &harness::Mounted<'_>| fs::symlink_metadata(m.join(&rel)).unwrap().ino();
        assert_eq!(others.each_ref().map(ino), [ino(&a); 2], "{}", rel.display());
    }
}

#[test]
fn there_is_no_birth_time_and_ctime_is_mtime() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::tiny(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let file = mounted.join(&synthetic::files(&source)[0]);
    let asked = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let answer = statx(CWD, &file, AtFlags::empty(), asked).unwrap();
    assert_eq!(answer.stx_mask & StatxFlags::BTIME.bits(), 0);
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (meta.atime(), meta.atime_nsec()));
}

#[test]
fn an_image_without_any_xattr_has_none_or_does_not_support_them() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::tiny(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let mut buffer = [0; 64];
    let listed = rustix::fs::listxattr(mounted.path(), &mut buffer);
    let got = rustix::fs::getxattr(mounted.path(), "user.x", &mut buffer);
    let expected = match mounted.mode() {
        Mode::Fuse => (Err(Errno::OPNOTSUPP), Err(Errno::OPNOTSUPP)),
        Mode::Kernel => (Ok(0), Err(Errno::NODATA)),
    };
    assert_eq!((listed, got), expected);
}

#[test]
fn values_of_trusted_xattrs_are_for_root_alone_and_in_mode_kernel_their_names_too() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    let tree = Builder::at(&source);
    tree.mode("", 0o755);
    tree.file("file", b"x");
    tree.mode("file", 0o644);
    tree.xattr("file", "trusted.secret", b"value");
    tree.finish();
    let cid = flist.pack(&source);
    let mounted = flist.mount_with(&cid, &["--allow-other"]);
    let ask = |user: u32| {
        let mut command = Command::new("getfattr");
        command.args(["--absolute-names", "-d", "-m", "-"]).arg(mounted.join("file")).uid(user).gid(user);
        process::run(&mut command, process::PATIENCE)
    };
    assert!(ask(0).text().contains("trusted.secret=\"value\""));
    let other = ask(NOBODY);
    assert!(!other.text().contains("value"), "{}", other.text());
    let is_named = other.stderr.contains("trusted.secret") || other.text().contains("trusted.secret");
    assert_eq!(is_named, mounted.mode() == Mode::Fuse, "the name shows in the error: {}", other.stderr);
}

#[test]
fn a_name_that_was_excluded_is_not_a_link() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    let tree = Builder::at(&source);
    tree.file("one", b"linked");
    tree.hardlink("one", "two");
    tree.finish();
    let cid = flist.pack_with(&source, &["--exclude", "/two"]);
    let mounted = flist.mount(&cid);
    assert_eq!(fs::metadata(mounted.join("one")).unwrap().nlink(), 1);
}

#[test]
fn a_sparse_file_beyond_8_pib_keeps_its_size() {
    let flist = Flist::new();
    let source = tmpfs::Tmpfs::mount(&flist.home().dir("source"), 16);
    let size = 9_u64 << 50;
    File::create(source.path().join("huge")).unwrap().set_len(size).unwrap();
    let cid = flist.pack(source.path());
    let mounted = flist.mount(&cid);
    assert_eq!(fs::metadata(mounted.join("huge")).unwrap().len(), size);
}

#[test]
fn the_mount_table_names_the_flist_and_its_cache() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::tiny(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at = mounted.path().to_str().unwrap();
    let line = table.lines().find(|l| l.split(' ').nth(4) == Some(at)).expect("it is in the table");
    let fields: Vec<&str> = line.split(' ').collect();
    let dash = fields.iter().position(|f| *f == "-").unwrap();
    let cache = flist.cache().display();
    let (kind, shown) = match mounted.mode() {
        Mode::Fuse => ("fuse.flist", format!("flist:{cid}@{cache}")),
        Mode::Kernel => ("erofs", format!("{cache}/flist:{cid}")),
    };
    assert_eq!((fields[dash + 1], fields[dash + 2]), (kind, shown.as_str()));
    assert!(!std::path::Path::new(&shown).exists(), "a name for the table, and nothing in the cache");
    for option in ["ro", "nosuid", "nodev", "noatime"] {
        assert!(fields[5].split(',').any(|o| o == option), "{option} in {}", fields[5]);
    }
    assert!(!fields[5].contains("noexec"));
    let read_ahead = |bdi: &str| {
        let text = fs::read_to_string(format!("/sys/class/bdi/{bdi}/read_ahead_kb")).unwrap();
        text.trim().parse::<u32>().unwrap()
    };
    match mounted.mode() {
        Mode::Fuse => assert_eq!(read_ahead(fields[2]), 512),
        Mode::Kernel => assert_eq!(read_ahead(&harness::mount_table::erofs_name(mounted.path())), 512),
    }
}

#[test]
fn without_allow_other_a_fuse_mount_is_for_its_owner_alone() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::tiny(&source);
    fs::set_permissions(&source, fs::Permissions::from_mode(0o755)).unwrap();
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let mut command = Command::new("ls");
    command.arg(mounted.path()).uid(NOBODY).gid(NOBODY);
    let listed = process::run(&mut command, process::PATIENCE);
    let dir = flist.home().dir("shifted");
    let shifted = IdMapped::new(mounted.path(), &dir, 100_000);
    match mounted.mode() {
        Mode::Fuse => {
            assert_ne!(listed.code, 0);
            assert!(listed.stderr.contains("Permission denied"));
            assert_eq!(shifted.err().and_then(|e| e.raw_os_error()), Some(libc::EINVAL));
        }
        Mode::Kernel => {
            assert!(listed.ok().text().contains("hello"));
            let _shifted = shifted.expect("EROFS takes an idmap");
            assert_eq!(fs::metadata(dir.join("hello")).unwrap().uid(), 100_000);
        }
    }
}

#[test]
fn file_capabilities_count_with_suid_only() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    let tree = Builder::at(&source);
    tree.mode("", 0o755);
    tree.file("secret", b"for root\n");
    tree.mode("secret", 0o600);
    fs::copy("/usr/bin/cat", tree.path("cat")).unwrap();
    tree.mode("cat", 0o755);
    process::tool("setcap", args!["cap_dac_override=ep", tree.path("cat")]);
    tree.finish();
    let cid = flist.pack(&source);
    for (options, code) in [(&["--allow-other"][..], 1), (&["--allow-other", "--suid"][..], 0)] {
        let mounted = flist.mount_with(&cid, options);
        let mut command = Command::new(mounted.join("cat"));
        command.arg(mounted.join("secret")).uid(NOBODY).gid(NOBODY);
        assert_eq!(process::run(&mut command, process::PATIENCE).code, code, "{options:?}");
    }
}

#[test]
fn ioctls_are_not_for_files_of_an_flist_but_fionread_is() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    let tree = Builder::at(&source);
    tree.file("file", &[7; 1000]);
    tree.finish();
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let file = File::open(mounted.join("file")).unwrap();
    const FS_IOC_GETFLAGS: libc::c_ulong = 0x8008_6601;
    for request in [libc::TCGETS as libc::c_ulong, FS_IOC_GETFLAGS] {
        let mut answer = [0_u8; 128];
        // SAFETY: both requests write less than the buffer holds.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), request as _, answer.as_mut_ptr()) };
        assert_eq!(
            (done, std::io::Error::last_os_error().raw_os_error()),
            (-1, Some(libc::ENOTTY)),
            "{request:#x}"
        );
    }
    let mut left: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::FIONREAD as _, &mut left) };
    assert_eq!((done, left), (0, 1000));
}
