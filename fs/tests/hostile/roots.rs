//! Roots that are no roots, and roots that lie about what they name.

use g8_cache::{Codec, MAX_STORED};
use g8_fs::format::{Root, root};
use ipld_core::ipld::Ipld;

use super::*;

#[test]
fn what_a_root_claims_is_held_against_what_there_is() {
    type Lie = (&'static str, fn(&mut Root), &'static str, &'static str);
    let lies: [Lie; 21] = [
        ("one tree byte more", |r| r.tree_bytes += 1, "tree", ""),
        ("one tree byte less", |r| r.tree_bytes -= 1, "tree", ""),
        ("one map byte more", |r| r.map_bytes += 1, "map", "the root names"),
        ("one map byte less", |r| r.map_bytes -= 1, "map", "longer than"),
        ("an absurd tree", |r| r.tree_bytes = u64::MAX, "root", "more than"),
        ("an absurd map", |r| r.map_bytes = root::MAX_MAP_BYTES + 1, "root", "more than"),
        ("the largest tree in one piece", |r| r.tree_bytes = root::MAX_TREE_BYTES, "root", "cannot hold"),
        ("no tree", |r| r.tree.clear(), "root", "cannot hold"),
        (
            "neither tree nor bytes of it",
            |r| (r.tree, r.tree_bytes) = (vec![], 0),
            "tree",
            "not an EROFS image",
        ),
        ("more pieces than bytes", |r| r.map = vec![r.map[0]; 20_000], "root", "cannot hold"),
        ("one block more", |r| r.blocks += 1, "root", "blocks: the root claims"),
        ("no blocks", |r| (r.blocks, r.shards) = (0, vec![]), "root", "blocks: the root claims"),
        ("blocks without shards", |r| r.blocks = u64::MAX, "root", "shards for"),
        ("one inode less", |r| r.inodes -= 1, "root", "inodes: the root claims"),
        ("other contents", |r| r.content_bytes = u64::MAX, "root", "content_bytes: the root claims"),
        ("other blocks", |r| r.stored_bytes ^= 1, "root", "stored_bytes: the root claims"),
        ("a later version", |r| r.version = 2, "root", "version 2 is not supported"),
        ("another kind", |r| r.kind = "list".into(), "root", "kind is \"list\""),
        ("another system", |r| r.os = "plan9".into(), "root", "is \"plan9\""),
        ("a parent that is no flist", |r| r.parent = Some(r.tree[0]), "root", "wrong codec"),
        ("shards of the wrong codec", |r| r.shards = r.map.clone(), "root", "wrong codec"),
    ];
    for (what, lie, kind, says) in lies {
        let mut forge = Forge::of(&HONEST);
        lie(&mut forge.root);
        refused(what, forge, kind, says);
    }
}

/// A root of these bytes, whatever they are.
fn raw_root(bytes: impl Into<bytes::Bytes>) -> (BlockId, Objects) {
    let mut forge = Forge::of(&HONEST);
    let id = forge.put(Codec::DagCbor, bytes);
    (id, forge.objects)
}

#[test]
fn other_bytes_under_a_right_name_are_no_flist() {
    let honest = &HONEST.objects[&HONEST.id];
    let shard = Forge::of(&HONEST).root.shard_ids().unwrap()[0];
    let indefinite = [&[0xbf], &honest[1..], &[0xff]].concat();
    let wide_header = [&[0xb8, honest[0] & 0x1f], &honest[1..]].concat();
    let cases: [(&str, Vec<u8>); 9] = [
        ("nothing", vec![]),
        ("text", b"<html>not found</html>".to_vec()),
        ("a number", vec![0x01]),
        ("a shard", HONEST.objects[&shard].to_vec()),
        ("a cut root", honest[..honest.len() - 1].to_vec()),
        ("a root with a tail", [&honest[..], &[0]].concat()),
        ("a map of indefinite length", indefinite),
        ("a length in more bytes than it needs", wide_header),
        ("nested lists", vec![0x81; 100_000]),
    ];
    for (what, bytes) in cases {
        let (id, objects) = raw_root(bytes);
        refused_as(what, id, &objects, &[id], "root", "is not a valid flist");
    }
}

#[test]
fn fields_that_are_unknown_missing_or_of_another_type_are_refused() {
    let honest: Ipld = serde_ipld_dagcbor::from_slice(&HONEST.objects[&HONEST.id]).unwrap();
    let changed = |change: &dyn Fn(&mut std::collections::BTreeMap<String, Ipld>)| {
        let Ipld::Map(mut map) = honest.clone() else { panic!("a root is a map") };
        change(&mut map);
        serde_ipld_dagcbor::to_vec(&Ipld::Map(map)).unwrap()
    };
    let v0 = cid::Cid::try_from("QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n").unwrap();
    let git = cid::Cid::new_v1(0x78, *HONEST.id.cid().hash());
    let link = |cid| Ipld::List(vec![Ipld::Link(cid)]);
    let cases = [
        ("an unknown field", changed(&|m| drop(m.insert("extra".into(), Ipld::Null)))),
        ("a missing field", changed(&|m| drop(m.remove("stored_bytes")))),
        ("a negative number", changed(&|m| drop(m.insert("blocks".into(), Ipld::Integer(-1))))),
        ("a text for a number", changed(&|m| drop(m.insert("blocks".into(), Ipld::String("1".into()))))),
        (
            "bytes for a link",
            changed(&|m| drop(m.insert("tree".into(), Ipld::List(vec![Ipld::Bytes(vec![1])])))),
        ),
        ("a link of version 0", changed(&|m| drop(m.insert("tree".into(), link(v0))))),
        ("a link of a foreign codec", changed(&|m| drop(m.insert("tree".into(), link(git))))),
        ("a default that is spelled out", changed(&|m| drop(m.insert("parent".into(), Ipld::Null)))),
    ];
    for (what, bytes) in cases {
        let (id, objects) = raw_root(bytes);
        refused_as(what, id, &objects, &[id], "root", "is not a valid flist");
    }
}

#[test]
fn a_raw_block_is_no_address() {
    let forge = Forge::of(&HONEST);
    let piece = forge.root.tree_pieces().unwrap()[0];
    refused_as("a piece", piece, &forge.objects, &[piece], "root", "is a raw block");
    // The root's own bytes, under the other codec.
    let mut forge = Forge::of(&HONEST);
    let raw = forge.put(Codec::Raw, HONEST.objects[&HONEST.id].clone());
    refused_as("a raw root", raw, &forge.objects, &[raw], "root", "is a raw block");
}

#[test]
fn an_object_larger_than_any_block_is_refused() {
    let (id, objects) = raw_root(vec![0; MAX_STORED + 1]);
    refused_as("the root", id, &objects, &[id], "root", "a block has at most");
    let mut forge = Forge::of(&HONEST);
    let large = forge.put(Codec::Raw, vec![0; MAX_STORED + 1]);
    forge.root.tree = vec![large.cid()];
    let (id, objects) = forge.seal();
    refused_as("a piece", id, &objects, &[large], "tree", "a block has at most");
}

#[test]
fn metadata_that_is_missing_or_wrong_is_named() {
    let forge = Forge::of(&HONEST);
    let parts = [
        ("root", HONEST.id),
        ("tree", forge.root.tree_pieces().unwrap()[0]),
        ("map", forge.root.map_pieces().unwrap()[0]),
    ];
    for (kind, part) in parts {
        let mut missing = HONEST.objects.clone();
        missing.remove(&part);
        refused_as("missing", HONEST.id, &missing, &[part], kind, "no source has block");
        let mut wrong = HONEST.objects.clone();
        wrong.insert(part, HONEST.objects[&part].iter().map(|byte| byte ^ 0x10).collect());
        refused_as("wrong", HONEST.id, &wrong, &[part], kind, "only wrong bytes");
    }
}
