//! The fuzz targets on the stable compiler: seeds that the packer wrote, changed by a mutator that always does the
//! same, for a few seconds. `fs/fuzz/README.md` says how to search for longer; the seeds for that are written here.

#[path = "../fuzz/src/lib.rs"]
mod fuzz;
#[path = "support/lab.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod lab;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use g8_cache::{BlockId, Codec, EncodeOptions, Encoder, StoredBlock};
use g8_fs::car::{Index, Limits, Writer};
use g8_fs::elf::Head;
use g8_fs::erofs::Tree;
use g8_fs::format::{Profile, Root, piece, shard};
use g8_fs::pack::PackOptions;

/// Valid inputs of each target.
#[derive(Default)]
struct Seeds {
    root: Vec<Vec<u8>>,
    shard: Vec<Vec<u8>>,
    map: Vec<Vec<u8>>,
    tree: Vec<Vec<u8>>,
    frame: Vec<Vec<u8>>,
    car: Vec<Vec<u8>>,
    profile: Vec<Vec<u8>>,
    elf: Vec<Vec<u8>>,
}

static SEEDS: LazyLock<Seeds> = LazyLock::new(|| {
    let mut seeds = Seeds::default();
    let mut small = lab::sample();
    small.retain(|path, _| !path.starts_with("tiny/"));
    let few = [("a".to_owned(), b"a".to_vec()), ("d/b".to_owned(), lab::noise(1, 200))].into();
    for (files, frame_len) in [(few, 4096), (small, 65_536), (lab::sample(), 1008 << 10)] {
        let options = PackOptions { frame_len, threads: 2, ..PackOptions::default() };
        let packed = lab::pack_files(files, &options);
        let root_bytes = packed.objects[&packed.id].to_vec();
        let root = Root::from_bytes(&root_bytes).unwrap();
        let get = |ids: Vec<BlockId>| ids.iter().map(|id| packed.objects[id].clone()).collect::<Vec<_>>();
        let tree = piece::decode("tree", &get(root.tree_pieces().unwrap()), root.tree_bytes).unwrap();
        let map = piece::decode("map", &get(root.map_pieces().unwrap()), root.map_bytes).unwrap();
        let sizes = Tree::open(tree.as_slice()).unwrap().devices();
        seeds
            .map
            .push([&sizes.small_blocks.to_le_bytes(), &sizes.big_blocks.to_le_bytes(), &map[..]].concat());
        seeds.tree.push(tree);
        seeds.shard.extend(get(root.shard_ids().unwrap()).into_iter().map(Vec::from));
        seeds.root.push(root_bytes);
        // The largest blocks would only make it slow.
        let mut writer = Writer::new(Vec::new(), &[packed.id]).unwrap();
        let small = packed.objects.iter().filter(|(_, bytes)| bytes.len() < 50_000);
        let small: BTreeMap<_, _> = small.collect();
        for (id, bytes) in small.into_iter().take(20) {
            writer.put(&StoredBlock::new(*id, bytes.clone()).unwrap().verify().unwrap()).unwrap();
        }
        seeds.car.push(writer.finish().unwrap());
    }
    let flist = BlockId::of(Codec::DagCbor, b"flist");
    for (label, blocks) in [("", vec![]), ("python3", vec![3, 0, 70_000]), ("all", (0..300).collect())] {
        seeds.profile.push(Profile::new(flist, label, blocks).to_bytes().unwrap());
    }
    // A program and a library: their headers, and where they name others.
    for program in [std::env::current_exe().unwrap(), "/bin/sh".into()] {
        let bytes = fs::read(program).unwrap();
        let dynamic = Head::parse(&bytes).unwrap().dynamic;
        seeds.elf.push([&bytes[..1024], &bytes[dynamic.start as usize..dynamic.end as usize]].concat());
    }
    seeds.shard.push(shard::encode(&[BlockId::of(Codec::Raw, b"alone")]).unwrap());
    for (frame_len, plain) in
        [(4096, lab::text(1, 9_000)), (65_536, lab::noise(2, 3_000)), (8192, vec![7; 20_000])]
    {
        let block = Encoder::new(EncodeOptions { level: 3, frame_len }).unwrap().encode(&plain).unwrap();
        let numbers = [block.plain_len, block.frame_len, block.frames.len() as u32];
        let numbers = numbers.into_iter().chain(block.frames.iter().copied());
        let head: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
        seeds.frame.push([&head[..], &block.stored].concat());
    }
    seeds
});

/// A xorshift generator: the same numbers on every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound.max(1) as u64) as usize
    }

    /// Numbers at which arithmetic tends to go wrong.
    fn odd_number(&mut self) -> u64 {
        let near =
            [0, 1 << 7, 1 << 8, 1 << 12, 1 << 16, 1_032_192, 1 << 31, 1 << 32, 1 << 43, 1 << 63, u64::MAX];
        match self.below(3) {
            0 => self.roll(),
            _ => near[self.below(near.len())].wrapping_add(self.below(5) as u64).wrapping_sub(2),
        }
    }
}

/// Changes `bytes` in one to four places.
fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = dice.below(bytes.len());
        match dice.below(8) {
            0 | 1 => bytes[at] ^= 1 << dice.below(8),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff, b'/', b'.'][dice.below(8)],
            3 => overwrite(bytes, at & !3, &(dice.odd_number() as u32).to_le_bytes()),
            4 => overwrite(bytes, at & !7, &dice.odd_number().to_le_bytes()),
            5 => bytes.truncate(at),
            6 => {
                let other = &others[dice.below(others.len())];
                let from = dice.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                // A part of itself somewhere else, as a record that stands twice.
                let (len, to) = (dice.below(64).min(bytes.len() - at), dice.below(bytes.len()));
                let part = bytes[at..at + len].to_vec();
                overwrite(bytes, to, &part);
            }
        }
    }
}

/// As much of `value` as there is room for.
fn overwrite(bytes: &mut [u8], at: usize, value: &[u8]) {
    let room = value.len().min(bytes.len() - at);
    bytes[at..at + room].copy_from_slice(&value[..room]);
}

fn smoke(name: &str, seeds: &[Vec<u8>], rounds: usize, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz-seeds").join(name);
    fs::create_dir_all(&folder).unwrap();
    for (n, seed) in seeds.iter().enumerate() {
        fs::write(folder.join(n.to_string()), seed).unwrap();
        target(seed);
        for cut in (0..seed.len().min(3000)).chain([seed.len()]) {
            target(&seed[..cut]);
        }
    }
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..rounds {
        let mut bytes = seeds[dice.below(seeds.len())].clone();
        mutate(&mut bytes, seeds, &mut dice);
        let outcome = std::panic::catch_unwind(|| target(&bytes));
        if let Err(panic) = outcome {
            let kept = folder.with_extension(format!("crash-{round}"));
            fs::write(&kept, &bytes).unwrap();
            eprintln!("round {round} of {name}: the input is in {}", kept.display());
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn seeds_are_accepted() {
    let seeds = &*SEEDS;
    assert!(seeds.root.iter().all(|bytes| Root::from_bytes(bytes).is_ok()));
    assert!(seeds.profile.iter().all(|bytes| Profile::from_bytes(bytes).is_ok()));
    assert!(seeds.elf.iter().all(|bytes| Head::parse(bytes).is_some()));
    assert!(seeds.shard.iter().all(|bytes| shard::decode(bytes).is_ok()));
    assert!(
        seeds
            .tree
            .iter()
            .all(|bytes| Tree::open(bytes).is_ok_and(|tree| g8_fs::erofs::validate(&tree).is_ok()))
    );
    assert!(seeds.car.iter().all(|bytes| Index::read(&bytes[..], Limits::default()).is_ok()));
    assert!(seeds.map.len() == 3 && seeds.frame.len() == 3);
}

#[test]
fn no_root_panics_or_breaks_its_promises() {
    smoke("root", &SEEDS.root, 600_000, fuzz::fuzz_root);
}

#[test]
fn no_profile_panics_or_breaks_its_promises() {
    smoke("profile", &SEEDS.profile, 300_000, fuzz::fuzz_profile);
}

#[test]
fn no_program_panics_or_breaks_its_promises() {
    smoke("elf", &SEEDS.elf, 300_000, fuzz::fuzz_elf);
}

#[test]
fn no_shard_panics_or_breaks_its_promises() {
    smoke("shard", &SEEDS.shard, 600_000, fuzz::fuzz_shard);
}

#[test]
fn no_map_panics_or_breaks_its_promises() {
    smoke("map", &SEEDS.map, 1_000_000, fuzz::fuzz_map);
}

#[test]
fn no_tree_panics_or_breaks_its_promises() {
    smoke("tree", &SEEDS.tree, 80_000, fuzz::fuzz_tree);
}

#[test]
fn no_frame_panics_or_breaks_its_promises() {
    smoke("frame", &SEEDS.frame, 150_000, fuzz::fuzz_frame);
}

#[test]
fn no_car_panics_or_breaks_its_promises() {
    smoke("car", &SEEDS.car, 60_000, fuzz::fuzz_car);
}
