//! The kernel is the judge of contents, fsck.erofs of structure.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use super::oddities::odd_tree;
use super::*;

/// Not /tmp, which may be a tmpfs: the kernel does not mount images from there.
const WORK_DIR: &str = "/var/tmp";

/// An image and its devices as files, mounted until dropped.
struct Mounted {
    dir: TempDir,
    small: File,
    big: File,
}

impl Mounted {
    fn new(image: &[u8]) -> Self {
        let mounted = Self::files(image);
        let path = |name| mounted.dir.path().join(name).display().to_string();
        let options = format!("device={},device={}", path("small"), path("big"));
        mounted.mount(&mounted.dir.path().join("tree"), &options);
        mounted
    }

    /// The three files, not mounted.
    fn files(image: &[u8]) -> Self {
        let dir = tempfile::tempdir_in(WORK_DIR).expect("a directory in /var/tmp");
        fs::write(dir.path().join("tree"), image).unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        let device = |name, blocks: u32, known: std::ops::Range<u32>| {
            let file = File::create_new(dir.path().join(name)).unwrap();
            file.set_len(u64::from(blocks) * BLOCK_SIZE).unwrap();
            for block in known {
                let bytes: Vec<u8> = (0..4096_u32).map(|at| (at / 7 + at + block * 31) as u8).collect();
                file.write_all_at(&bytes, u64::from(block) * BLOCK_SIZE).unwrap();
            }
            File::open(dir.path().join(name)).unwrap()
        };
        let small = device("small", DEVICES.small_blocks, 0..DEVICES.small_blocks);
        let big = device("big", DEVICES.big_blocks, 0..300);
        Self { dir, small, big }
    }

    fn mount(&self, image: &Path, options: &str) {
        let options = CString::new(options).unwrap();
        mount(image, self.path(), c"erofs", MountFlags::RDONLY, options.as_c_str())
            .expect("the kernel mounts the image");
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn device(&self, device: Device) -> &File {
        match device {
            Device::Small => &self.small,
            Device::Big => &self.big,
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Not mounted is fine here: the test has failed before.
        let _ = unmount(self.path(), UnmountFlags::empty());
    }
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("SKIP mounting needs root");
    }
    is_root
}

/// Compares all that the kernel shows of a directory with the nodes, and goes on into its subdirectories.
fn compare_dir(mounted: &Mounted, nodes: &[Node], path: &Path, dir: NodeId, inos: &mut HashMap<NodeId, u64>) {
    let NodeKind::Directory { entries, .. } = &nodes[dir.0 as usize].kind else {
        panic!("{dir} is no directory")
    };
    let mut listed: Vec<Vec<u8>> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().as_bytes().to_vec()).collect();
    listed.sort();
    let mut expected: Vec<Vec<u8>> = entries.iter().map(|(name, _)| name.clone()).collect();
    expected.sort();
    assert_eq!(listed, expected, "{path:?}");
    for (name, id) in entries {
        let path = path.join(OsStr::from_bytes(name));
        let found = fs::symlink_metadata(&path).unwrap();
        match inos.insert(*id, found.ino()) {
            Some(known) => assert_eq!(found.ino(), known, "{path:?} is a hardlink"),
            None => compare_node(mounted, &nodes[id.0 as usize], &path, &found),
        }
        if found.is_dir() {
            compare_dir(mounted, nodes, &path, *id, inos);
        }
    }
}

fn compare_node(mounted: &Mounted, node: &Node, path: &Path, found: &fs::Metadata) {
    assert_eq!((found.uid(), found.gid()), (node.uid, node.gid), "{path:?}");
    assert_eq!((found.mtime(), found.mtime_nsec()), (node.mtime.secs, node.mtime.nanos.into()), "{path:?}");
    let (kind, rdev) = match &node.kind {
        NodeKind::Directory { .. } => (FileKind::Directory, (0, 0)),
        NodeKind::Symlink { target } => {
            assert_eq!(fs::read_link(path).unwrap().as_os_str().as_bytes(), target);
            (FileKind::Symlink, (0, 0))
        }
        NodeKind::Regular(Content::Inline(bytes)) => {
            assert_eq!(&fs::read(path).unwrap(), bytes, "{path:?}");
            (FileKind::Regular, (0, 0))
        }
        NodeKind::Regular(Content::Chunked { size, chunk_bits, chunks }) => {
            assert_eq!(found.size(), *size);
            compare_chunks(mounted, path, *size, *chunk_bits, chunks);
            (FileKind::Regular, (0, 0))
        }
        NodeKind::CharDevice { major, minor } => (FileKind::CharDevice, (*major, *minor)),
        NodeKind::BlockDevice { major, minor } => (FileKind::BlockDevice, (*major, *minor)),
        NodeKind::Fifo => (FileKind::Fifo, (0, 0)),
        NodeKind::Socket => (FileKind::Socket, (0, 0)),
    };
    let number = found.rdev();
    assert_eq!((rustix::fs::major(number), rustix::fs::minor(number)), rdev, "{path:?}");
    assert_eq!(found.mode(), u32::from(kind.mode_bits() | node.permissions), "{path:?}");
    compare_xattrs(node, path);
}

/// Reads the first and last blocks of each chunk through the kernel.
fn compare_chunks(mounted: &Mounted, path: &Path, size: u64, bits: u8, chunks: &[Option<Chunk>]) {
    let file = File::open(path).unwrap();
    let tested = (0..).zip(chunks).filter(|(index, _)| chunks.len() < 100 || index % 99_991 == 0);
    for (index, chunk) in tested {
        let start = index << bits;
        let len = (size - start).min(1 << bits);
        for inside in [0, len.saturating_sub(5000)] {
            let mut found = vec![1; 5000.min(len - inside) as usize];
            let mut expected = vec![0; found.len()];
            file.read_exact_at(&mut found, start + inside).unwrap();
            if let Some(Chunk { device, block }) = chunk {
                let address = u64::from(*block) * BLOCK_SIZE + inside;
                mounted.device(*device).read_exact_at(&mut expected, address).unwrap();
            }
            assert!(found == expected, "{path:?}, chunk {index}, byte {inside}");
        }
    }
}

fn compare_xattrs(node: &Node, path: &Path) {
    let mut buffer = vec![0; 65_536];
    let len = rustix::fs::llistxattr(path, buffer.as_mut_slice()).unwrap();
    let mut listed: Vec<&[u8]> =
        buffer[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    listed.sort();
    let mut expected: Vec<&[u8]> = node.xattrs.iter().map(|xattr| xattr.name.as_slice()).collect();
    expected.sort();
    assert_eq!(listed, expected, "{path:?}");
    for xattr in &node.xattrs {
        let mut value = vec![0; 65_536];
        let len = rustix::fs::lgetxattr(path, xattr.name.as_slice(), value.as_mut_slice()).unwrap();
        assert!(value[..len] == xattr.value, "{path:?}, {}", xattr.name.escape_ascii());
    }
}

/// The kernel hides `user.` xattrs of special files and ACLs of symlinks, and reads no ACL that is not well formed.
fn without_hidden_xattrs(mut nodes: Vec<Node>) -> Vec<Node> {
    for node in &mut nodes {
        let shows_user = matches!(node.kind, NodeKind::Regular(_) | NodeKind::Directory { .. });
        node.xattrs.retain(|Xattr { name, value }| match name.strip_prefix(b"system.posix_acl_") {
            Some(_) => shows_user && value.starts_with(&[2, 0, 0, 0]),
            None => shows_user || !name.starts_with(b"user."),
        });
    }
    nodes
}

#[test]
fn the_kernel_shows_what_was_written() {
    if !is_root() {
        return;
    }
    let nodes = without_hidden_xattrs(odd_tree().nodes);
    let mounted = Mounted::new(&write(&nodes, DEVICES).unwrap());
    let root = fs::metadata(mounted.path()).unwrap();
    compare_node(&mounted, &nodes[0], &mounted.path(), &root);
    let mut inos = HashMap::new();
    compare_dir(&mounted, &nodes, &mounted.path(), NodeId::ROOT, &mut inos);
    assert_eq!(inos.len() + 1, nodes.len());
}

#[test]
fn the_kernel_finds_every_name_of_a_large_directory() {
    if !is_root() {
        return;
    }
    let mut tree = Builder::new();
    for number in 0..100_000_u32 {
        tree.file(NodeId::ROOT, format!("{number:x}").as_bytes(), b"");
    }
    let mounted = Mounted::new(&tree.write());
    compare_dir(&mounted, &tree.nodes, &mounted.path(), NodeId::ROOT, &mut HashMap::new());
}

#[test]
fn the_kernel_shows_random_trees_as_written() {
    use proptest::strategy::{Strategy, ValueTree};
    use proptest::test_runner::TestRunner;

    if !is_root() {
        return;
    }
    let mut runner = TestRunner::deterministic();
    for _ in 0..20 {
        let tree = arbitrary::tree().new_tree(&mut runner).unwrap().current();
        let mut nodes = without_hidden_xattrs(tree);
        for node in &mut nodes {
            // -1 means "no owner" to stat(2) callers and the kernel's id maps.
            node.uid = node.uid.min(u32::MAX - 1);
            node.gid = node.gid.min(u32::MAX - 1);
        }
        let mounted = Mounted::new(&write(&nodes, DEVICES).unwrap());
        compare_dir(&mounted, &nodes, &mounted.path(), NodeId::ROOT, &mut HashMap::new());
    }
}

#[test]
fn tree_and_devices_in_one_file_are_an_image_of_their_own() {
    if !is_root() {
        return;
    }
    let tree = small_tree();
    let devices = DeviceSizes { small_blocks: DEVICES.small_blocks, big_blocks: DEVICES.big_blocks };
    let files = Mounted::files(&write(&tree.nodes, devices).unwrap());
    let mut joined = File::create(files.dir.path().join("joined")).unwrap();
    for name in ["tree", "small", "big"] {
        let mut part = File::open(files.dir.path().join(name)).unwrap();
        // Sparse copies keep the test small: only the start of `big` has data.
        let len = part.metadata().unwrap().len();
        let end = joined.metadata().unwrap().len();
        std::io::copy(&mut std::io::Read::take(&mut part, 1 << 21), &mut joined).unwrap();
        joined.set_len(end + len).unwrap();
        std::io::Seek::seek(&mut joined, std::io::SeekFrom::End(0)).unwrap();
    }
    files.mount(&files.dir.path().join("joined"), "");
    compare_dir(&files, &tree.nodes, &files.path(), NodeId::ROOT, &mut HashMap::new());
}

#[test]
fn fsck_accepts_the_images() {
    let mut crowd = Builder::new();
    for number in 0..20_000_u32 {
        crowd.file(NodeId::ROOT, format!("{number:x}").as_bytes(), b"crowd");
    }
    for tree in [small_tree(), odd_tree(), crowd, Builder::new()] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tree");
        fs::write(&path, tree.write()).unwrap();
        let output = Command::new("fsck.erofs").args(["--device=/dev/null"; 2]).arg(&path).output();
        let output = output.expect("fsck.erofs runs; it comes with erofs-utils");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
