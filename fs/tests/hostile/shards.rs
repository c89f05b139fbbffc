//! Shards that do not name the blocks of the block table. A mount does not need them, so it works; whoever pins or
//! collects garbage by them does, so `check` finds every difference.

use g8_cache::Codec;
use g8_fs::format::shard;

use super::*;

/// The files read as ever, and `check` blames the root or the shard.
fn only_check_sees(what: &str, forge: Forge, blamed: Option<BlockId>) {
    let (id, objects) = forge.seal();
    assert!(damaged_files(id, &objects).is_empty(), "{what}");
    let report = checked(id, &objects);
    let blamed = blamed.unwrap_or(id);
    let named = report.problems.iter().any(|p| p.object == blamed && p.kind == "shard");
    assert!(named, "{what}: check says {:?}", report.problems);
}

#[test]
fn a_shard_that_names_other_blocks_is_found() {
    type Lie = (&'static str, fn(&mut Vec<BlockId>));
    let lies: [Lie; 5] = [
        ("one is missing", |links| links.truncate(links.len() - 1)),
        ("one is another", |links| links[0] = BlockId::new(Codec::Raw, [7; 32])),
        ("one is twice", |links| links.push(links[0])),
        ("two are swapped", |links| links.swap(0, 1)),
        ("one is beyond the table", |links| links.push(BlockId::new(Codec::Raw, [7; 32]))),
    ];
    for (what, lie) in lies {
        let mut forge = Forge::of(&HONEST);
        lie(&mut forge.shards[0]);
        forge.link();
        only_check_sees(what, forge, None);
    }
}

#[test]
fn a_shard_that_is_no_shard_is_named() {
    let links = Forge::of(&HONEST).shards[0].clone();
    let honest = shard::encode(&links).unwrap();
    let foreign: Vec<cid::Cid> = vec![BlockId::of(Codec::DagCbor, b"").cid()];
    let many: Vec<BlockId> = vec![links[0]; shard::MAX_LINKS + 1];
    let cases: [(&str, Vec<u8>); 7] = [
        ("nothing", vec![]),
        ("no links", shard::encode(&[]).unwrap()),
        ("too many links", shard::encode(&many).unwrap()),
        ("a link to a node", serde_ipld_dagcbor::to_vec(&foreign).unwrap()),
        ("the root itself", HONEST.objects[&HONEST.id].to_vec()),
        ("a tail", [&honest[..], &[0]].concat()),
        ("an indefinite list", [&[0x9f], &honest[1..], &[0xff]].concat()),
    ];
    for (what, bytes) in cases {
        let mut forge = Forge::of(&HONEST);
        let id = forge.put(Codec::DagCbor, bytes);
        forge.root.shards = vec![id.cid()];
        only_check_sees(what, forge, Some(id));
    }
}

#[test]
fn a_missing_shard_is_named_and_nobody_reading_misses_it() {
    let mut forge = Forge::of(&HONEST);
    let id = forge.root.shard_ids().unwrap()[0];
    forge.objects.remove(&id);
    only_check_sees("missing", forge, Some(id));
}
