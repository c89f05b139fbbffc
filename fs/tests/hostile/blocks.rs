//! Data blocks that are what their CIDs say, and not what the block table says. Nothing is noticed until they are read;
//! then it is an error for the files they hold and for nobody else.

use g8_cache::Codec;

use super::forge::RawBlock;
use super::*;

/// A block of three or more frames of text, with `words` and other files in it.
fn words_block(forge: &Forge) -> usize {
    let is_it = |block: &RawBlock| block.frames.len() >= 3 && block.frames.iter().all(|f| *f < 30_000);
    forge.map.blocks.iter().position(is_it).expect("a block of text")
}

/// Changes the table's entry of a block of text; `root.stored_bytes` follows, since it is checked when opening.
fn damaged_by(what: &str, change: impl FnOnce(&mut Forge, usize)) {
    let mut forge = Forge::of(&HONEST);
    let index = words_block(&forge);
    change(&mut forge, index);
    forge.root.stored_bytes = forge.map.blocks.iter().flat_map(|block| &block.frames).sum();
    forge.shards[0][index] = BlockId::new(Codec::Raw, forge.map.blocks[index].digest);
    let blamed = forge.shards[0][index];
    forge.link();
    let (id, objects) = forge.seal();
    let damaged = damaged_files(id, &objects);
    assert!(!damaged.is_empty(), "{what}: everything reads as before");
    assert!(damaged.len() < HONEST.files.len() / 2, "{what}: {damaged:?}");
    let report = checked(id, &objects);
    let blamed: Vec<_> = report.problems.iter().filter(|p| p.object == blamed && p.kind == "block").collect();
    assert_eq!(blamed.len(), 1, "{what}: check says {:?}", report.problems);
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < MEMORY_LIMIT, "{what}: {largest} bytes were asked for at once");
}

#[test]
fn a_table_that_describes_a_block_wrongly_is_noticed_on_reading() {
    damaged_by("cuts moved by one byte", |forge, n| {
        let frames = &mut forge.map.blocks[n].frames;
        frames[0] += 1;
        frames[1] -= 1;
    });
    damaged_by("frames swapped", |forge, n| {
        let frames = &mut forge.map.blocks[n].frames;
        assert_ne!(frames[0], frames[1]);
        frames.swap(0, 1);
    });
    damaged_by("a stored byte less", |forge, n| forge.map.blocks[n].frames[0] -= 1);
    damaged_by("a stored byte more", |forge, n| forge.map.blocks[n].frames[0] += 1);
    damaged_by("a plain byte more", |forge, n| forge.map.blocks[n].plain_len += 1);
    damaged_by("a frame called raw", |forge, n| {
        let len = forge.map.frame_len;
        forge.map.blocks[n].frames[0] = len;
    });
}

/// Replaces the first frame of the block by `make` of its plain bytes, under a right CID and with right cuts.
fn replaced_frame(what: &str, make: impl FnOnce(&[u8]) -> Vec<u8>) {
    damaged_by(what, |forge, n| {
        let block = forge.map.blocks[n].clone();
        let stored = forge.objects[&BlockId::new(Codec::Raw, block.digest)].clone();
        let first = block.frames[0] as usize;
        let plain = zstd::bulk::decompress(&stored[..first], 65_536).unwrap();
        let frame = make(&plain);
        let id = forge.put(Codec::Raw, [&frame[..], &stored[first..]].concat());
        forge.map.blocks[n].digest = *id.digest();
        forge.map.blocks[n].frames[0] = frame.len() as u64;
    });
}

#[test]
fn a_frame_of_another_length_than_declared_is_refused() {
    let compress = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).unwrap();
    replaced_frame("one byte more", |plain| compress(&[plain, b"!"].concat()));
    replaced_frame("one byte less", |plain| compress(&plain[1..]));
    replaced_frame("a bomb", |_| compress(&vec![0; 50 << 20]));
    replaced_frame("nothing", |_| compress(&[]));
    replaced_frame("two frames", |plain| [compress(&plain[..100]), compress(&plain[100..])].concat());
    replaced_frame("an empty frame behind", |plain| [compress(plain), compress(&[])].concat());
    replaced_frame("no zstd at all", |_| b"no zstd".to_vec());
    replaced_frame("a header that lies", |plain| {
        // 65,536 plain bytes: magic, descriptor, then the size less 256 in two bytes.
        let mut frame = compress(&plain[..60_000]);
        assert_eq!(frame[4] >> 6, 1, "a size of two bytes");
        frame[5..7].copy_from_slice(&(65_536u32 - 256).to_le_bytes()[..2]);
        frame
    });
    replaced_frame("no size in the header", |plain| {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_contentsize(false).unwrap();
        std::io::Write::write_all(&mut encoder, plain).unwrap();
        encoder.finish().unwrap()
    });
    replaced_frame("a window of 2 GiB", |_| {
        // Descriptor without single segment: window 2^31, content size in 8 bytes, then an RLE block.
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1100_0000, 21 << 3];
        frame.extend(65_536u64.to_le_bytes());
        frame.extend(&(100u32 << 3 | 0b011).to_le_bytes()[..3]);
        frame.push(7);
        frame
    });
}

#[test]
fn a_missing_or_wrong_block_concerns_its_own_files_alone() {
    let forge = Forge::of(&HONEST);
    for victim in &forge.shards[0] {
        let mut missing = HONEST.objects.clone();
        missing.remove(victim);
        let mut wrong = HONEST.objects.clone();
        wrong.insert(*victim, HONEST.objects[victim].iter().map(|byte| byte ^ 1).collect());
        for objects in [missing, wrong] {
            let unreadable = runtime().block_on(async {
                let sources = lab::from_map(&objects);
                let fs = lab::open(HONEST.id, &lab::memory(), &sources, SOON).await.unwrap();
                let mut unreadable = 0;
                for (path, contents) in &HONEST.files {
                    match lab::read_all(&fs, path).await {
                        Ok(bytes) => assert!(bytes == *contents, "{path} has wrong bytes"),
                        Err(FsError::Get(GetError::NotFound { id, .. } | GetError::Wrong { id, .. })) => {
                            assert_eq!(id, *victim);
                            unreadable += 1;
                        }
                        Err(other) => panic!("{path}: {}", chain(&other)),
                    }
                }
                unreadable
            });
            assert!((1..=HONEST.files.len() - 3).contains(&unreadable), "{unreadable} files of {victim}");
            let report = checked(HONEST.id, &objects);
            let named: Vec<_> = report.problems.iter().map(|p| (p.object, p.kind)).collect();
            assert_eq!(named, [(*victim, "block")]);
        }
    }
}

/// The check decoded every block once, by the first of its descriptions; a second one that lies was believed.
#[test]
fn a_block_that_is_described_twice_is_judged_by_both() {
    let mut forge = Forge::of(&HONEST);
    let index = words_block(&forge);
    let mut lie = forge.map.blocks[index].clone();
    lie.frames[0] += 1;
    lie.frames[1] -= 1;
    let object = BlockId::new(Codec::Raw, lie.digest);
    let last = forge.map.blocks.len() as u32;
    forge.map.blocks.push(lie);
    forge.map.block_count += 1;
    forge.shards[0].push(object);
    forge.root.blocks += 1;
    forge.root.stored_bytes = forge.map.blocks.iter().flat_map(|block| &block.frames).sum();
    // The files go where the lie is.
    forge.map.change_extents(|extent| {
        if extent.block == index as u32 {
            extent.block = last;
        }
    });
    forge.link();
    let (id, objects) = forge.seal();
    assert!(!damaged_files(id, &objects).is_empty());
    let problems = checked(id, &objects).problems;
    assert!(problems.iter().any(|p| p.object == object && p.kind == "block"), "{problems:?}");
}
