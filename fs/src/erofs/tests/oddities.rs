//! Trees at the edges of what the format holds.

use super::compare::assert_same;
use super::*;

fn check(tree: &Builder) -> Vec<u8> {
    let image = tree.write();
    assert_same(&tree.nodes, &image);
    image
}

/// Every oddity but the crowd in one tree; the kernel test mounts it, too.
pub fn odd_tree() -> Builder {
    let mut tree = small_tree();
    let root = NodeId::ROOT;
    let names = tree.dir(root, b"names");
    for byte in (1..=255).filter(|byte| !matches!(byte, b'/' | b'.')) {
        tree.file(names, &[byte], &[byte]);
        tree.file(names, &[b'.', byte], b"");
        tree.file(names, &[byte; 255], b"long");
    }
    tree.file(names, b"...", b"three dots");
    tree.file(names, b"..!", b"sorts behind ..");
    let links = tree.dir(root, b"links");
    for len in [1, 255, 256, 3900, 4030, 4031, 4032, 4033, 4063, 4064, 4065, 4095_u16] {
        let target = b"/target".iter().copied().cycle().take(len.into()).collect();
        tree.add(links, len.to_string().as_bytes(), NodeKind::Symlink { target });
    }
    let times = tree.dir(root, b"times");
    for secs in [-1, 0, i64::from(u32::MAX) + 7, -2_000_000_000, 1 << 33] {
        for nanos in [0, 1, 999_999_999] {
            let id = tree.file(times, format!("{secs}.{nanos}").as_bytes(), b"");
            tree.at(id).mtime = Mtime { secs, nanos };
        }
    }
    let owners = tree.dir(root, b"owners");
    for (number, uid) in [65_535, 65_536, u32::MAX - 1].into_iter().enumerate() {
        let id = tree.file(owners, &[b'0' + number as u8], b"");
        (tree.at(id).uid, tree.at(id).gid, tree.at(id).permissions) = (uid, uid, 0o7777);
    }
    let devices = tree.dir(root, b"devices");
    tree.add(devices, b"char", NodeKind::CharDevice { major: 4095, minor: (1 << 20) - 1 });
    tree.add(devices, b"block", NodeKind::BlockDevice { major: 4095, minor: 256 });
    let shared = tree.file(devices, b"many names", b"x");
    for number in 0..70_000 {
        tree.link(devices, format!("name {number}").as_bytes(), shared);
    }
    add_xattrs(&mut tree);
    add_files(&mut tree);
    tree
}

fn add_xattrs(tree: &mut Builder) {
    let dir = tree.dir(NodeId::ROOT, b"xattrs");
    let acl = [
        2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255,
        255, 255,
    ];
    for number in 0..40_usize {
        let id = tree.file(dir, format!("file {number}").as_bytes(), &vec![7; number * 40]);
        tree.xattr(id, "system.posix_acl_access", &acl);
        tree.xattr(id, "user.empty", b"");
        tree.xattr(id, "user.number", &vec![number as u8; number * 90]);
        tree.xattr(id, &format!("trusted.{}", "n".repeat(1 + number * 6)), b"value");
    }
    tree.xattr(dir, "system.posix_acl_default", &acl);
    let large = tree.file(dir, b"large", b"inline content behind large xattrs");
    tree.xattr(large, "user.large", &vec![0xa5; 60_000]);
    tree.xattr(large, "user.larger", &vec![0x5a; 65_535]);
    let link = tree.add(dir, b"link", NodeKind::Symlink { target: vec![b't'; 300] });
    tree.xattr(link, "trusted.on a link", &[1; 4000]);
    let many = [tree.file(dir, b"many 1", b""), tree.file(dir, b"many 2", b"")];
    for id in many {
        for number in 0..300 {
            tree.xattr(id, &format!("user.{number}"), format!("{number}").as_bytes());
        }
    }
}

fn add_files(tree: &mut Builder) {
    let dir = tree.dir(NodeId::ROOT, b"files");
    for len in [0, 1, 2047, INLINE_MAX] {
        tree.file(dir, format!("inline {len}").as_bytes(), &vec![b'i'; len]);
    }
    for len in [1, 4095, 4096, 4097, 100_000] {
        let chunks = [Some((Device::Small, 10))];
        tree.add(dir, format!("chunk {len}").as_bytes(), chunked(len, 31, &chunks));
    }
    let holes: Vec<_> = (0..50).map(|number| (number % 3 != 1).then_some((Device::Small, number))).collect();
    tree.add(dir, b"holes", chunked(50 * 4096 - 5, 12, &holes));
    tree.add(dir, b"all hole", chunked(1 << 40, 40, &[None]));
    let huge = [None, Some((Device::Big, 100)), None];
    tree.add(dir, b"chunks above 4 GiB", chunked((2 << 32) + 12_345, 32, &huge));
    tree.add(dir, b"widest chunk", chunked((6 << 30) + 1, 43, &[Some((Device::Big, 200))]));
    let longest = vec![None; 1 << 20];
    tree.add(dir, b"longest file", chunked(i64::MAX as u64, 43, &longest));
}

#[test]
fn odd_trees_read_back() {
    check(&odd_tree());
    check(&Builder::new());
}

#[test]
fn a_directory_of_100_000_entries_reads_back() {
    let mut tree = Builder::new();
    let dir = tree.dir(NodeId::ROOT, b"crowd");
    for number in 0..100_000_u32 {
        tree.file(dir, format!("{:08x} {number}", number.wrapping_mul(2_654_435_769)).as_bytes(), b"");
    }
    let image = check(&tree);
    let opened = Tree::open(&image).unwrap();
    let root = opened.inode(opened.root()).unwrap();
    let crowd = opened.inode(opened.lookup(&root, b"crowd").unwrap().unwrap()).unwrap();
    for absent in [b"".as_slice(), b"!", b"80000000", b"ffffffff 1", b"zzz", &[255; 300]] {
        assert_eq!(opened.lookup(&crowd, absent).unwrap(), None);
    }
    for wild in [341, 511, 512, 5000 << 9, u64::MAX, u64::MAX - 1, 1 << 63] {
        opened.read_dir(&crowd, wild).unwrap().for_each(|entry| _ = entry.unwrap());
    }
}

#[test]
fn neighbouring_chunks_and_holes_are_joined() {
    let mut tree = Builder::new();
    let chunks = [
        Some((Device::Small, 1)),
        Some((Device::Small, 2)),
        None,
        None,
        Some((Device::Big, 3)),
        Some((Device::Small, 4)),
    ];
    tree.add(NodeId::ROOT, b"f", chunked(6 * 4096 - 96, 12, &chunks));
    let image = check(&tree);
    let opened = Tree::open(&image).unwrap();
    let root = opened.inode(opened.root()).unwrap();
    let file = opened.inode(opened.lookup(&root, b"f").unwrap().unwrap()).unwrap();
    let at = |device, address| Place::Device { device, address };
    let expected = [
        (0, at(Device::Small, 4096), 8192),
        (100, at(Device::Small, 4196), 8092),
        (5000, at(Device::Small, 9096), 3192),
        (8192, Place::Hole, 8192),
        (16_384, at(Device::Big, 12_288), 4096),
        (20_480, at(Device::Small, 16_384), 4000),
        (24_479, at(Device::Small, 20_383), 1),
    ];
    for (offset, place, len) in expected {
        assert_eq!(opened.map(&file, offset).unwrap(), Mapping { place, len });
    }
}

#[test]
fn the_largest_device_can_be_used_to_its_last_block() {
    let mut tree = Builder::new();
    tree.add(NodeId::ROOT, b"last", chunked(4096, 12, &[Some((Device::Big, u32::MAX - 1))]));
    let devices = DeviceSizes { small_blocks: u32::MAX, big_blocks: u32::MAX };
    let image = write(&tree.nodes, devices).unwrap();
    assert_same(&tree.nodes, &image);
    assert_eq!(Tree::open(&image).unwrap().devices(), devices);
}
