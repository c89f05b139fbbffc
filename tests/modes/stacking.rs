//! What containers do with a mount, beyond what `posix/stacking.rs` tries: programs, rights and mappings through overlays,
//! and an overlay that a user namespace mounts for itself.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::idmap::{IdMapped, UserNamespace};
use harness::tmpfs::Tmpfs;
use harness::tree::Builder;
use harness::{Flist, SplitMix64, args, mapping, process, rootfs};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

const NOBODY: u32 = 65_534;
const SHIFT: u32 = 100_000;

/// A root filesystem with a set-user-ID program, one with a capability, and a file for root alone.
fn plant(source: &Path) {
    rootfs::build(source, &["/bin/cat", "/usr/bin/id", "/usr/bin/touch", "/usr/bin/stat"]);
    let tree = Builder::at(source);
    tree.mode("", 0o755);
    fs::copy("/usr/bin/id", tree.path("suid")).unwrap();
    tree.mode("suid", 0o4755);
    tree.file("secret", b"for root\n");
    tree.mode("secret", 0o600);
    fs::copy("/usr/bin/cat", tree.path("capable")).unwrap();
    tree.mode("capable", 0o755);
    process::tool("setcap", args!["cap_dac_override=ep", tree.path("capable")]);
    tree.file("data", &SplitMix64::new(90).bytes(3 << 20));
    tree.file("theirs", b"of user 1,000\n");
    tree.owner("theirs", 1_000, 1_000);
    tree.finish();
}

struct Overlay(PathBuf);

impl Overlay {
    fn new(lower: &Path, scratch: &Path, dir: &Path) -> Self {
        let (upper, work) = (scratch.join("upper"), scratch.join("work"));
        for made in [&upper, &work, &dir.to_owned()] {
            fs::create_dir_all(made).unwrap();
        }
        let layers =
            format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        let layers = std::ffi::CString::new(layers).unwrap();
        mount("overlay", dir, "overlay", MountFlags::empty(), Some(layers.as_c_str())).unwrap();
        Self(dir.to_owned())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn as_nobody(program: &Path, args: &[&Path]) -> process::Outcome {
    let mut command = Command::new(program);
    command.args(args).uid(NOBODY).gid(NOBODY).current_dir("/");
    process::run(&mut command, process::PATIENCE)
}

/// Programs run in it as in a root, their rights count, and contents are right through read and mmap.
fn works_as_a_root(root: &Path, source: &Path) {
    let mut chroot = Command::new("chroot");
    chroot.arg(root).args(["/bin/cat", "/theirs"]);
    assert_eq!(process::run(&mut chroot, process::PATIENCE).ok().text(), "of user 1,000");
    let mut id = Command::new(root.join("suid"));
    id.arg("-u").uid(NOBODY).gid(NOBODY);
    assert_eq!(process::run(&mut id, process::PATIENCE).ok().text(), "0", "set-user-ID");
    assert_ne!(as_nobody(Path::new("/bin/cat"), &[&root.join("secret")]).code, 0);
    assert_eq!(as_nobody(&root.join("capable"), &[&root.join("secret")]).ok().text(), "for root");
    let expected = fs::read(source.join("data")).unwrap();
    let file = File::open(root.join("data")).unwrap();
    for offset in [0, 1_234_567, expected.len() - 1] {
        assert_eq!(mapping::byte_at(&file, offset as u64), Ok(expected[offset]));
    }
    assert!(fs::read(root.join("data")).unwrap() == expected);
}

#[test]
fn an_overlay_on_disk_in_memory_and_on_another_is_a_root_to_run_in() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    plant(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount_with(&cid, &["--allow-other", "--suid"]);
    works_as_a_root(mounted.path(), &source);
    let memory = Tmpfs::mount(&flist.home().dir("memory"), 64);
    let on_disk = Overlay::new(mounted.path(), &flist.home().dir("disk"), &flist.home().join("on-disk"));
    let in_memory = Overlay::new(mounted.path(), memory.path(), &flist.home().join("in-memory"));
    let stacked = Overlay::new(&on_disk.0, &flist.home().dir("second"), &flist.home().join("stacked"));
    for overlay in [&on_disk, &in_memory, &stacked] {
        works_as_a_root(&overlay.0, &source);
        // The same when they were copied up.
        for rel in ["suid", "data"] {
            let mode = fs::metadata(overlay.0.join(rel)).unwrap().permissions();
            fs::set_permissions(overlay.0.join(rel), mode).unwrap();
        }
        works_as_a_root(&overlay.0, &source);
    }
}

#[test]
fn a_user_namespace_mounts_its_own_overlay_on_an_idmapped_flist() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    plant(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount_with(&cid, &["--allow-other"]);
    let view = flist.home().dir("view");
    let _view = IdMapped::new(mounted.path(), &view, SHIFT).expect("the mount accepts an idmap");
    let scratch = flist.home().dir("scratch");
    for name in ["upper", "work", "root"] {
        let dir = flist.home().dir(&format!("scratch/{name}"));
        chown(&dir, Some(SHIFT), Some(SHIFT)).unwrap();
    }
    fs::set_permissions(&scratch, fs::Permissions::from_mode(0o755)).unwrap();
    let script = "set -e; cd \"$1\"; \
        mount -t overlay -o \"userxattr,lowerdir=$0,upperdir=$1/upper,workdir=$1/work\" overlay root; \
        stat -c '%u:%g' root/secret root/theirs; cat root/secret; \
        chroot root /bin/cat /theirs; echo changed > root/theirs; touch root/new; \
        stat -c '%u:%g' root/theirs root/new; cmp root/data \"$2\"";
    let namespace = UserNamespace::new(SHIFT).unwrap();
    let mut command = namespace.command("sh");
    command.args(["-c", script]).args([&view, &scratch, &source.join("data")]);
    let outcome = process::run(&mut command, process::PATIENCE).ok();
    assert_eq!(
        outcome.text().lines().collect::<Vec<_>>(),
        ["0:0", "1000:1000", "for root", "of user 1,000", "1000:1000", "0:0"]
    );
    // Outside, what was written belongs to the shifted users, and the image is as it was.
    let owner =
        |name: &str| fs::metadata(scratch.join("upper").join(name)).map(|m| (m.uid(), m.gid())).unwrap();
    assert_eq!([owner("theirs"), owner("new")], [(SHIFT + 1_000, SHIFT + 1_000), (SHIFT, SHIFT)]);
    assert_eq!(fs::read(mounted.join("theirs")).unwrap(), b"of user 1,000\n");
}
