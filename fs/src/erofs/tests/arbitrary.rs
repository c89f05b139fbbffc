//! Random small trees.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What to add next; the selectors choose among what exists by then.
#[derive(Clone, Debug)]
struct Step {
    dir: prop::sample::Index,
    name: Vec<u8>,
    node: Option<Node>,
    link: prop::sample::Index,
}

/// A random tree: every kind of node, hardlinks, xattrs, directories of several blocks.
pub fn tree() -> impl Strategy<Value = Vec<Node>> {
    (vec(step(), 0..80), any::<bool>()).prop_map(|(steps, crowd)| grow(steps, crowd))
}

fn grow(steps: Vec<Step>, crowd: bool) -> Vec<Node> {
    let mut tree = Builder::new();
    let mut dirs = vec![NodeId::ROOT];
    let mut files = Vec::new();
    for (index, step) in steps.into_iter().enumerate() {
        let dir = dirs[step.dir.index(dirs.len())];
        // A number keeps names apart; names that are the number alone sort before `.`.
        let name = [step.name.as_slice(), format!("!{index}").as_bytes()].concat();
        match step.node {
            Some(node) => {
                let id = tree.add(dir, &name, node.kind.clone());
                *tree.at(id) = node;
                if let NodeKind::Directory { parent, .. } = &mut tree.at(id).kind {
                    *parent = dir;
                    dirs.push(id);
                } else {
                    files.push(id);
                }
            }
            None if !files.is_empty() => tree.link(dir, &name, files[step.link.index(files.len())]),
            None => {}
        }
    }
    if crowd {
        for number in 0..300 {
            let name = format!("{number:0width$}", width = 1 + number % 200);
            tree.file(dirs[number % dirs.len()], name.as_bytes(), b"crowd");
        }
    }
    tree.nodes
}

fn step() -> impl Strategy<Value = Step> {
    let name = vec(any::<u8>().prop_filter("no name", |byte| !matches!(byte, 0 | b'/')), 0..=251);
    let selector = any::<prop::sample::Index>;
    (selector(), name, prop::option::weighted(0.85, any_node()), selector())
        .prop_map(|(dir, name, node, link)| Step { dir, name, node, link })
}

fn any_node() -> impl Strategy<Value = Node> {
    let id = prop_oneof![Just(0), 0..70_000_u32, any::<u32>()];
    let secs = prop_oneof![3 => Just(1_700_000_000), 1 => any::<i64>()];
    (0..=0o7777_u16, id.clone(), id, secs, prop_oneof![Just(0), 0..1_000_000_000_u32], xattrs(), kind())
        .prop_map(|(permissions, uid, gid, secs, nanos, xattrs, kind)| {
            let mtime = Mtime { secs, nanos };
            Node { permissions, uid, gid, mtime, xattrs, kind }
        })
}

fn kind() -> impl Strategy<Value = NodeKind> {
    let target = vec(1..=255_u8, 1..=4095);
    let number = || (0..4096_u32, 0..1_u32 << 20);
    prop_oneof![
        4 => Just(NodeKind::Directory { parent: NodeId::ROOT, entries: Vec::new() }),
        2 => target.prop_map(|target| NodeKind::Symlink { target }),
        3 => vec(any::<u8>(), 0..=INLINE_MAX).prop_map(|bytes| NodeKind::Regular(Content::Inline(bytes))),
        4 => chunked_file(),
        1 => number().prop_map(|(major, minor)| NodeKind::CharDevice { major, minor }),
        1 => number().prop_map(|(major, minor)| NodeKind::BlockDevice { major, minor }),
        1 => Just(NodeKind::Fifo),
        1 => Just(NodeKind::Socket),
    ]
}

fn chunked_file() -> impl Strategy<Value = NodeKind> {
    let chunk = prop::option::of((any::<bool>(), 0..40_u32));
    (12..=16_u8, vec(chunk, 1..20), 1..=4096_u64).prop_map(|(bits, chunks, last)| {
        let size = ((chunks.len() as u64 - 1) << bits) + last;
        let chunks = chunks.iter().map(|chunk| {
            chunk.map(|(is_big, block)| (if is_big { Device::Big } else { Device::Small }, block))
        });
        chunked(size, bits, &chunks.collect::<Vec<_>>())
    })
}

fn xattrs() -> impl Strategy<Value = Vec<Xattr>> {
    let name = prop::sample::subsequence(
        vec![
            "user.a",
            "user.b",
            "security.selinux",
            "trusted.overlay.opaque",
            "system.posix_acl_access",
            "user.c",
        ],
        0..4,
    );
    let value = || prop_oneof![Just(b"common".to_vec()), vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..6000)];
    (name, [value(), value(), value()]).prop_map(|(names, values)| {
        names.into_iter().zip(values).map(|(name, value)| xattr(name, &value)).collect()
    })
}
