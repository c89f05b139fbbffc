//! Compares an image with the nodes it was written from, through every question that the reader answers.

use std::collections::HashMap;

use super::*;

/// Asserts that the image is valid and that its reader tells exactly the nodes.
pub fn assert_same(nodes: &[Node], image: &[u8]) {
    let tree = Tree::open(image).expect("the writer's image opens");
    let summary = validate(&tree).expect("the writer's image is valid");
    assert_eq!(summary.inodes, nodes.len() as u64);
    assert_eq!(tree.inode_count(), nodes.len() as u64);
    let mut nids = HashMap::from([(NodeId::ROOT, tree.root())]);
    let mut links: HashMap<NodeId, u32> = HashMap::new();
    let mut pending = vec![(NodeId::ROOT, NodeId::ROOT)];
    while let Some((id, parent)) = pending.pop() {
        let dir = tree.inode(nids[&id]).unwrap();
        let NodeKind::Directory { entries, .. } = &nodes[id.0 as usize].kind else {
            panic!("{id} is no directory")
        };
        let mut expected = entries.clone();
        expected.extend([(b".".to_vec(), id), (b"..".to_vec(), parent)]);
        expected.sort();
        let listed: Vec<Dirent<'_>> = tree.read_dir(&dir, 0).unwrap().map(Result::unwrap).collect();
        assert_eq!(listed.len(), expected.len());
        for (index, (entry, (name, target))) in listed.iter().zip(&expected).enumerate() {
            assert_eq!(entry.name, name);
            assert_eq!(tree.lookup(&dir, name).unwrap(), Some(entry.nid));
            assert_eq!(tree.inode(entry.nid).unwrap().kind(), entry.kind);
            assert_eq!(*nids.entry(*target).or_insert(entry.nid), entry.nid, "one node, one nid");
            let next = tree.read_dir(&dir, entry.cookie).unwrap().next().map(Result::unwrap);
            assert_eq!(next.as_ref(), listed.get(index + 1), "a cookie continues behind its entry");
        }
        for (_, target) in entries {
            let is_dir = matches!(nodes[target.0 as usize].kind, NodeKind::Directory { .. });
            *links.entry(if is_dir { id } else { *target }).or_default() += 1;
            if is_dir {
                pending.push((*target, id));
            }
        }
    }
    for (index, node) in nodes.iter().enumerate() {
        let id = NodeId(index as u32);
        let inode = tree.inode(nids[&id]).unwrap();
        let is_dir = matches!(node.kind, NodeKind::Directory { .. });
        let named = links.get(&id).copied().unwrap_or(0);
        assert_eq!(inode.nlink, if is_dir { named + 2 } else { named });
        assert_node(&tree, &inode, node);
    }
}

fn assert_node(tree: &Tree<&[u8]>, inode: &Inode, node: &Node) {
    assert_eq!(inode.permissions(), node.permissions);
    assert_eq!((inode.uid, inode.gid, inode.mtime), (node.uid, node.gid, node.mtime));
    let mut xattrs: Vec<Xattr> = tree
        .xattrs(inode)
        .unwrap()
        .map(Result::unwrap)
        .map(|xattr| Xattr { name: [xattr.prefix, xattr.name].concat(), value: xattr.value.to_vec() })
        .collect();
    let mut expected = node.xattrs.clone();
    xattrs.sort();
    expected.sort();
    assert_eq!(xattrs, expected);
    for xattr in &node.xattrs {
        assert_eq!(tree.xattr(inode, &xattr.name).unwrap(), Some(xattr.value.as_slice()));
    }
    assert_eq!(tree.xattr(inode, b"user.certainly absent").unwrap(), None);
    let (kind, rdev) = match &node.kind {
        NodeKind::Directory { .. } => (FileKind::Directory, Rdev::default()),
        NodeKind::Symlink { target } => {
            assert_eq!(tree.read_link(inode).unwrap(), target);
            (FileKind::Symlink, Rdev::default())
        }
        NodeKind::Regular(content) => {
            assert_content(tree, inode, content);
            (FileKind::Regular, Rdev::default())
        }
        &NodeKind::CharDevice { major, minor } => (FileKind::CharDevice, Rdev { major, minor }),
        &NodeKind::BlockDevice { major, minor } => (FileKind::BlockDevice, Rdev { major, minor }),
        NodeKind::Fifo => (FileKind::Fifo, Rdev::default()),
        NodeKind::Socket => (FileKind::Socket, Rdev::default()),
    };
    assert_eq!((inode.kind(), inode.rdev), (kind, rdev));
    assert_eq!(inode.mode, u32::from(kind.mode_bits() | node.permissions));
}

fn assert_content(tree: &Tree<&[u8]>, inode: &Inode, content: &Content) {
    let end = tree.map(inode, inode.size);
    assert_eq!(end, Err(TreeError::BeyondEnd { nid: inode.nid, size: inode.size, offset: inode.size }));
    match content {
        Content::Inline(bytes) => {
            assert_eq!(inode.size, bytes.len() as u64);
            for offset in 0..bytes.len() {
                let rest = &bytes[offset..];
                let expected = Mapping { place: Place::Inline(rest), len: rest.len() as u64 };
                assert_eq!(tree.map(inode, offset as u64).unwrap(), expected);
            }
        }
        Content::Chunked { size, chunk_bits, chunks } => {
            assert_eq!(inode.size, *size);
            let mut at = 0;
            while at < *size {
                let mapping = tree.map(inode, at).unwrap();
                assert!(mapping.len > 0 && at + mapping.len <= *size);
                // Every chunk that the mapping touches lies where the mapping says.
                let first = at >> chunk_bits;
                for index in first..=(at + mapping.len - 1) >> chunk_bits {
                    let place = match chunks[index as usize] {
                        None => Place::Hole,
                        Some(chunk) => Place::Device {
                            device: chunk.device,
                            address: u64::from(chunk.block) * BLOCK_SIZE - ((index - first) << chunk_bits),
                        },
                    };
                    assert_eq!(mapping.place, place);
                }
                let inside = mapping.len / 2;
                let later = tree.map(inode, at + inside).unwrap();
                if chunks.len() as u64 <= Mapping::JOIN_MAX {
                    assert_eq!(later.len, mapping.len - inside, "the rest of a run is as long from inside");
                }
                at += mapping.len;
            }
        }
    }
}
