//! What is put on top of a mount: overlayfs, a bind mount, an idmapped view.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use harness::idmap::IdMapped;
use harness::oddities::{self, Scale};
use harness::tmpfs::Tmpfs;
use harness::{Flist, compare, mount_table, synthetic};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

struct Overlay(PathBuf);

impl Overlay {
    fn new(lower: &Path, scratch: &Path, dir: &Path) -> Self {
        let (upper, work) = (scratch.join("upper"), scratch.join("work"));
        for made in [&upper, &work, &dir.to_owned()] {
            fs::create_dir_all(made).unwrap();
        }
        let options =
            format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        let options = std::ffi::CString::new(options).unwrap();
        mount("overlay", dir, "overlay", MountFlags::empty(), Some(options.as_c_str()))
            .expect("overlay on the mount");
        Self(dir.to_owned())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// The root of an overlay has the attributes of its upper directory; all below must be the same.
#[track_caller]
fn assert_same_below(source: &Path, overlay: &Path) {
    let unlike = compare::trees(source, overlay);
    let below: Vec<_> =
        unlike.iter().filter(|d| !d.rel.as_os_str().is_empty()).map(ToString::to_string).collect();
    assert!(below.is_empty(), "{:#?}", &below[..below.len().min(20)]);
}

#[test]
fn an_overlay_on_the_mount_can_be_written_and_leaves_the_image_alone() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::tiny(&source);
    lchown(source.join("dir/text"), Some(70_000), Some(80_000)).unwrap();
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let memory = Tmpfs::mount(&flist.home().dir("memory"), 64);
    for scratch in [flist.home().dir("disk"), memory.path().to_owned()] {
        let overlay = Overlay::new(mounted.path(), &scratch, &flist.home().join("overlay"));
        let at = |rel: &str| overlay.0.join(rel);
        assert_same_below(&source, &overlay.0);
        let mut noise = fs::read(source.join("dir/noise")).unwrap();
        noise.extend_from_slice(b"more");
        fs::OpenOptions::new()
            .append(true)
            .open(at("dir/noise"))
            .and_then(|mut f| std::io::Write::write_all(&mut f, b"more"))
            .unwrap();
        assert!(fs::read(at("dir/noise")).unwrap() == noise, "appended to a lower file");
        fs::set_permissions(at("dir/text"), Permissions::from_mode(0o4711)).unwrap();
        let meta = fs::metadata(at("dir/text")).unwrap();
        assert_eq!(
            (meta.uid(), meta.gid(), meta.mode() & 0o7777),
            (70_000, 80_000, 0o4711),
            "copy-up keeps the owner"
        );
        fs::rename(at("dir/text"), at("moved")).unwrap();
        assert!(fs::read(at("moved")).unwrap() == fs::read(source.join("dir/text")).unwrap());
        fs::remove_file(at("hello")).unwrap();
        assert!(!at("hello").exists() && at("dir/hello_again").exists());
        fs::remove_dir(at("dir/empty")).unwrap();
        fs::write(at("new"), b"new").unwrap();
        drop(overlay);
        compare::assert_same(&source, mounted.path());
    }
}

/// A container in a container: its overlay lies on the overlay of the outer one.
#[test]
fn an_overlay_on_an_overlay_works() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::tiny(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let outer = Overlay::new(mounted.path(), &flist.home().dir("a"), &flist.home().join("outer"));
    let inner = Overlay::new(&outer.0, &flist.home().dir("b"), &flist.home().join("inner"));
    assert_same_below(&source, &inner.0);
    fs::write(inner.0.join("hello"), b"changed inside").unwrap();
    assert_eq!(fs::read(outer.0.join("hello")).unwrap(), b"hello, world\n");
}

#[test]
fn every_oddity_is_seen_through_an_overlay_too() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    oddities::build(&source, Scale { wide: 1_000, levels: 60 });
    // A 0/0 character device is a deleted file to overlayfs, so it cannot be seen through one.
    fs::remove_file(source.join("kinds/char_0_0")).unwrap();
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let overlay = Overlay::new(mounted.path(), &flist.home().dir("scratch"), &flist.home().join("overlay"));
    assert_same_below(&source, &overlay.0);
}

#[test]
fn a_bind_mount_shows_the_same_and_outlives_the_first_name() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::tiny(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let dir = flist.home().dir("bound");
    mount_bind(mounted.path(), &dir).unwrap();
    compare::assert_same(&source, &dir);
    mount_table::unmount(&dir);
    mounted.umount();
}

/// A container with a user namespace sees the shared mount with shifted owners, without a copy.
#[test]
fn an_idmapped_view_shifts_every_owner() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::tiny(&source);
    lchown(source.join("dir/text"), Some(1_000), Some(2_000)).unwrap();
    let cid = flist.pack(&source);
    let mounted = flist.mount_with(&cid, &["--allow-other"]);
    let view = flist.home().dir("view");
    let _view = IdMapped::new(mounted.path(), &view, 100_000).expect("the mount accepts an idmap");
    let owner = |rel: &str| fs::metadata(view.join(rel)).map(|m| (m.uid(), m.gid())).unwrap();
    assert_eq!(owner("hello"), (100_000, 100_000));
    assert_eq!(owner("dir/text"), (101_000, 102_000));
    assert_eq!(fs::read(view.join("hello")).unwrap(), b"hello, world\n");
    assert_eq!(fs::metadata(mounted.join("hello")).unwrap().uid(), 0, "the mount itself is not shifted");
}
