//! What is written is read back, and the bytes never change.

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::compare::assert_same;
use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_valid_and_reads_back(nodes in arbitrary::tree()) {
        let image = write(&nodes, DEVICES).unwrap();
        prop_assert_eq!(&image, &write(&nodes, DEVICES).unwrap());
        assert_same(&nodes, &image);
    }
}

#[test]
fn the_order_of_entries_and_xattrs_does_not_reach_the_image() {
    let tree = small_tree();
    let mut shuffled = tree.nodes.clone();
    for node in &mut shuffled {
        node.xattrs.reverse();
        if let NodeKind::Directory { entries, .. } = &mut node.kind {
            entries.reverse();
        }
    }
    assert_eq!(write(&shuffled, DEVICES).unwrap(), tree.write());
}

/// Published trees are named by their bytes: when this fails, every one of them gets another name.
#[test]
fn a_fixed_tree_has_fixed_bytes() {
    let mut tree = small_tree();
    for number in 0..1000 {
        let name = format!("entry {number}");
        tree.file(NodeId(1), name.as_bytes(), name.as_bytes());
    }
    let digest: [u8; 32] = Sha256::digest(tree.write()).into();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "1a27b9491e51b6de8ea5ff89846c76029c24892d407e8d3ec390e23809292c52");
}

#[test]
fn the_small_tree_reads_back() {
    let tree = small_tree();
    let image = tree.write();
    assert_same(&tree.nodes, &image);
    let summary = validate(&Tree::open(&image).unwrap()).unwrap();
    let expected = Summary {
        inodes: 12,
        directories: 3,
        files: 4,
        symlinks: 1,
        others: 4,
        content_bytes: 12 + 10_000 + (5 << 30),
        has_xattrs: true,
    };
    assert_eq!(summary, expected);
}

#[test]
fn frequent_times_take_half_an_inode_and_ties_go_to_the_later_one() {
    let mut tree = Builder::new();
    for (number, secs) in [10, 10, 20, 20].into_iter().enumerate() {
        let id = tree.file(NodeId::ROOT, &[b'a' + number as u8], b"");
        tree.at(id).mtime = Mtime { secs, nanos: 1 };
    }
    let image = tree.write();
    let opened = Tree::open(&image).unwrap();
    let root = opened.inode(opened.root()).unwrap();
    let extended = |name: &[u8]| opened.inode(opened.lookup(&root, name).unwrap().unwrap()).unwrap().extended;
    assert!(extended(b"a") && extended(b"b") && !extended(b"c") && !extended(b"d"));
}
