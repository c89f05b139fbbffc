//! What the writer refuses, and how it says so.

use super::*;

fn refusal(change: impl FnOnce(&mut Builder)) -> WriteError {
    let mut tree = small_tree();
    change(&mut tree);
    write(&tree.nodes, DEVICES).expect_err("the writer refuses this tree")
}

const SUB: NodeId = NodeId(1);

#[test]
fn bad_names_are_refused() {
    for name in [b"".as_slice(), b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
        let found = refusal(|tree| _ = tree.file(SUB, name, b""));
        assert_eq!(found, WriteError::EntryName { directory: SUB, name: name.to_vec() });
    }
    let twice = refusal(|tree| _ = tree.file(SUB, b"empty", b""));
    assert_eq!(twice, WriteError::DuplicateName { directory: SUB, name: b"empty".to_vec() });
    assert_eq!(twice.to_string(), "directory 1: \"empty\" stands there twice");
}

#[test]
fn what_is_no_tree_is_refused() {
    assert_eq!(write(&[], DEVICES), Err(WriteError::NoRoot));
    assert_eq!(write(&[node(0, NodeKind::Fifo)], DEVICES), Err(WriteError::NoRoot));
    let name = b"again".to_vec();
    let nowhere = refusal(|tree| tree.link(SUB, b"again", NodeId(99)));
    assert_eq!(nowhere, WriteError::NoSuchNode { directory: SUB, name: name.clone(), node: NodeId(99) });
    let twice = refusal(|tree| tree.link(NodeId::ROOT, b"again", SUB));
    assert_eq!(
        twice,
        WriteError::DirectoryTwice { directory: NodeId::ROOT, name: b"sub".to_vec(), node: SUB }
    );
    let elsewhere = refusal(|tree| tree.link(NodeId(2), b"again", SUB));
    let parent = NodeId::ROOT;
    assert_eq!(
        elsewhere,
        WriteError::WrongParent { directory: NodeId(2), name: name.clone(), node: SUB, parent }
    );
    let root = refusal(|tree| tree.link(NodeId::ROOT, b"again", NodeId::ROOT));
    assert_eq!(root, WriteError::WrongParent { directory: parent, name, node: parent, parent });
    let orphan = refusal(|tree| tree.nodes.push(node(0, NodeKind::Fifo)));
    assert_eq!(orphan, WriteError::Unreachable { node: NodeId(12) });
}

#[test]
fn a_ring_of_directories_beside_the_root_is_refused() {
    let found = refusal(|tree| {
        let (one, two) = (NodeId(12), NodeId(13));
        let dir = |parent, name: &[u8], child| NodeKind::Directory {
            parent,
            entries: vec![(name.to_vec(), child)],
        };
        tree.nodes.push(node(0, dir(two, b"two", two)));
        tree.nodes.push(node(0, dir(one, b"one", one)));
    });
    assert_eq!(found, WriteError::Unreachable { node: NodeId(12) });
}

#[test]
fn bad_nodes_are_refused() {
    let id = NodeId(12);
    let add = |kind: NodeKind| refusal(|tree| _ = tree.add(SUB, b"new", kind));
    for target in [vec![], vec![b'x'; 4096], b"a\0".to_vec()] {
        let len = target.len();
        assert_eq!(add(NodeKind::Symlink { target }), WriteError::SymlinkTarget { node: id, len });
    }
    let (major, minor) = (4096, 0);
    assert_eq!(
        add(NodeKind::CharDevice { major, minor }),
        WriteError::DeviceNumber { node: id, major, minor }
    );
    let (major, minor) = (0, 1 << 20);
    assert_eq!(
        add(NodeKind::BlockDevice { major, minor }),
        WriteError::DeviceNumber { node: id, major, minor }
    );
    let long = Content::Inline(vec![0; INLINE_MAX + 1]);
    assert_eq!(add(NodeKind::Regular(long)), WriteError::InlineContent { node: id, len: INLINE_MAX + 1 });
    assert_eq!(add(chunked(0, 12, &[])), WriteError::FileSize { node: id, size: 0 });
    assert_eq!(add(chunked(1 << 63, 43, &[])), WriteError::FileSize { node: id, size: 1 << 63 });
    for bits in [0, 11, 44, 64, 255] {
        assert_eq!(add(chunked(1, bits, &[None])), WriteError::ChunkBits { node: id, bits });
    }
    let count = WriteError::ChunkCount { node: id, expected: 2, found: 1 };
    assert_eq!(add(chunked(4097, 12, &[None])), count);
    let chunk = Chunk { device: Device::Small, block: 63 };
    let outside = WriteError::ChunkOutside { node: id, index: 0, chunk, needed: 2 };
    assert_eq!(add(chunked(4097, 13, &[Some((Device::Small, 63))])), outside);
    assert_eq!(outside.to_string(), "node 12: chunk 0 needs 2 blocks from block 63 of Small, beyond its end");
    let bits = refusal(|tree| tree.at(SUB).permissions = 0o10_000);
    assert_eq!(bits, WriteError::Permissions { node: SUB, permissions: 0o10_000 });
    let nanos = refusal(|tree| tree.at(SUB).mtime.nanos = 1_000_000_000);
    assert_eq!(nanos, WriteError::Nanoseconds { node: SUB, nanos: 1_000_000_000 });
}

#[test]
fn bad_xattrs_are_refused() {
    let check = |xattrs: &[Xattr]| check_xattrs(xattrs).expect_err("these xattrs cannot be stored");
    for name in ["system.nfs4_acl", "system.posix_acl_access2", "user", "", "os2.x", "btrfs.compression"] {
        assert_eq!(check(&[xattr(name, b"")]), XattrError::Namespace { name: name.into() });
    }
    for name in ["user.".to_owned(), format!("user.{}", "x".repeat(256)), "trusted.a\0".to_owned()] {
        assert_eq!(check(&[xattr(&name, b"")]), XattrError::Name { name: name.into() });
    }
    let long = check(&[xattr("user.v", &[0; 65_536])]);
    assert_eq!(long, XattrError::Value { name: b"user.v".to_vec(), len: 65_536 });
    let twice = [xattr("user.a", b"1"), xattr("user.b", b""), xattr("user.a", b"2")];
    assert_eq!(check(&twice), XattrError::Duplicate { name: b"user.a".to_vec() });
    let many: Vec<_> = (0..4).map(|number| xattr(&format!("user.{number}"), &[0; 65_535])).collect();
    assert_eq!(check(&many), XattrError::TooLarge { bytes: 12 + 4 * 65_540 });
    let found = refusal(|tree| tree.xattr(SUB, "user.", b""));
    assert_eq!(found, WriteError::Xattr { node: SUB, source: XattrError::Name { name: b"user.".to_vec() } });
}
