//! Who may do what: permissions, ACLs, suid, devices, and other users.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use harness::tree::Builder;
use harness::{Flist, Mode, Outcome, process};
use rustix::fs::FileType;

const NOBODY: u32 = 65_534;
const GUEST: u32 = 4_321;

fn plant(source: &Path) {
    let tree = Builder::at(source);
    tree.mode("", 0o755);
    for (rel, mode, uid, gid) in [
        ("public", 0o644, 0, 0),
        ("private", 0o600, 0, 0),
        ("for_the_group", 0o640, 0, GUEST),
        ("for_the_owner", 0o400, GUEST, 0),
        ("not_for_its_owner", 0o077, GUEST, 0),
        ("by_list", 0o640, 0, 0),
    ] {
        tree.file(rel, rel.as_bytes());
        tree.owner(rel, uid, gid);
        tree.mode(rel, mode);
    }
    // user:: rw-, user:GUEST r--, group:: r--, mask r--, other ---
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in
        [(1_u16, 6_u16, u32::MAX), (2, 4, GUEST), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
    {
        list.extend([tag.to_le_bytes(), perm.to_le_bytes()].concat());
        list.extend(id.to_le_bytes());
    }
    tree.xattr("by_list", "system.posix_acl_access", &list);
    tree.dir("closed");
    tree.file("closed/inside", b"x");
    tree.mode("closed", 0o700);
    tree.dir("no_listing");
    tree.file("no_listing/known", b"known");
    tree.mode("no_listing/known", 0o644);
    tree.mode("no_listing", 0o711);
    std::fs::copy("/usr/bin/id", tree.path("id")).unwrap();
    tree.mode("id", 0o4755);
    tree.node("null", FileType::CharacterDevice, 1, 3);
    tree.mode("null", 0o666);
    tree.finish();
}

fn run_as(user: u32, program: impl AsRef<std::ffi::OsStr>, args: Vec<OsString>) -> Outcome {
    let mut command = Command::new(program);
    command.args(args).uid(user).gid(user).current_dir("/");
    process::run(&mut command, process::PATIENCE)
}

fn reads(user: u32, file: &Path) -> bool {
    run_as(user, "cat", harness::args![file]).code == 0
}

#[test]
fn with_allow_other_every_user_has_the_rights_the_tree_gives() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    plant(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount_with(&cid, &["--allow-other"]);
    let table = [
        ("public", true, true),
        ("private", false, false),
        ("for_the_group", false, true),
        ("for_the_owner", false, true),
        ("not_for_its_owner", true, false),
        ("by_list", false, true),
        ("closed/inside", false, false),
        ("no_listing/known", true, true),
    ];
    for (rel, nobody, guest) in table {
        for (user, expected) in [(NOBODY, nobody), (GUEST, guest)] {
            assert_eq!(reads(user, &source.join(rel)), expected, "the source itself: {rel} for {user}");
            assert_eq!(reads(user, &mounted.join(rel)), expected, "{rel} for {user}");
        }
        assert!(reads(0, &mounted.join(rel)), "{rel} for root");
    }
    assert_ne!(run_as(NOBODY, "ls", harness::args![mounted.join("no_listing")]).code, 0);
    assert_eq!(run_as(0, "ls", harness::args![mounted.join("no_listing")]).code, 0);
}

/// In mode fuse the kernel keeps everybody else out. In mode kernel the mount is one like any other, and the image's
/// permissions decide, as with `--allow-other`.
#[test]
fn without_allow_other_nobody_else_sees_a_fuse_mount() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    plant(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    for rel in ["public", "no_listing/known", ""] {
        let outcome = run_as(NOBODY, "stat", harness::args![mounted.join(rel)]);
        match mounted.mode() {
            Mode::Fuse => assert_ne!(outcome.code, 0, "{rel}: {}", outcome.text()),
            Mode::Kernel => assert_eq!(outcome.code, 0, "{rel}: {}", outcome.stderr),
        }
    }
    for rel in ["private", "for_the_group", "closed/inside"] {
        assert!(!reads(NOBODY, &mounted.join(rel)), "{rel}");
    }
    assert!(reads(0, &mounted.join("public")));
}

#[test]
fn suid_counts_only_when_asked_for() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    plant(&source);
    let cid = flist.pack(&source);
    for (options, expected) in [(&["--allow-other"][..], "65534"), (&["--allow-other", "--suid"][..], "0")] {
        let mounted = flist.mount_with(&cid, options);
        let outcome = run_as(NOBODY, mounted.join("id"), harness::args!["-u"]).ok();
        assert_eq!(outcome.text(), expected, "{options:?}");
        mounted.umount();
    }
}

#[test]
fn devices_open_only_when_asked_for() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    plant(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let error = std::fs::File::open(mounted.join("null")).expect_err("nodev is the default");
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    mounted.umount();
    let mounted = flist.mount_with(&cid, &["--dev"]);
    assert_eq!(std::fs::read(mounted.join("null")).unwrap(), b"");
    std::fs::write(mounted.join("null"), b"into the void").unwrap();
}
