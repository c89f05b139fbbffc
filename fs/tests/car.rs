//! CARs: what we write others read, what others write we read, and what is damaged is told with its place.

use std::fs;
use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cid::Cid;
use g8_cache::{BlockId, Codec, GetError, MAX_STORED, StoredBlock, VerifiedBlock};
use g8_fs::car::parse::{self, Parsed, Section};
use g8_fs::car::{self, BadCar, Index, Limits, OpenError, Writer};
use g8_fs::source::{Car, CarError, SourceOptions, Spec, open_sources};
use proptest::prelude::*;

fn block(bytes: Vec<u8>, codec: Codec) -> VerifiedBlock {
    StoredBlock::new(BlockId::of(codec, &bytes), bytes).unwrap().verify().unwrap()
}

fn blocks(lens: &[usize]) -> Vec<VerifiedBlock> {
    let kind = |n: usize| if n.is_multiple_of(3) { Codec::DagCbor } else { Codec::Raw };
    let bytes = |n: usize, len: usize| (0..len).map(|i| (i * 31 + n * 7 + i / 251) as u8).collect();
    lens.iter().enumerate().map(|(n, len)| block(bytes(n, *len), kind(n))).collect()
}

fn write(blocks: &[VerifiedBlock]) -> Vec<u8> {
    let roots: Vec<BlockId> = blocks.first().map(VerifiedBlock::id).into_iter().collect();
    let mut writer = Writer::new(Vec::new(), &roots).unwrap();
    blocks.iter().for_each(|block| writer.put(block).unwrap());
    assert_eq!(writer.blocks(), blocks.len() as u64);
    let bytes = writer.bytes();
    let car = writer.finish().unwrap();
    assert_eq!(car.len() as u64, bytes);
    car
}

fn index(car: &[u8]) -> Result<Index, OpenError> {
    Index::read(car, Limits::default())
}

/// The index finds every block where its bytes are.
fn assert_finds(car: &[u8], blocks: &[VerifiedBlock]) {
    let index = index(car).unwrap();
    for block in blocks {
        let (offset, len) = index.find(&block.id()).expect("it is in the archive");
        assert_eq!(&car[offset as usize..offset as usize + len], &block.bytes()[..]);
    }
    assert_eq!(index.bytes(), car.len() as u64);
    assert!(index.damaged().is_empty());
}

/// Where the section of each block begins.
fn offsets(car: &[u8]) -> Vec<usize> {
    let Ok(Parsed::Whole(_, mut at)) = parse::header(car) else { panic!("no header") };
    let mut found = Vec::new();
    while at < car.len() {
        found.push(at);
        let Ok(Parsed::Whole(_, len)) = parse::section(&car[at..]) else { panic!("no section at {at}") };
        at += len;
    }
    found
}

#[tokio::test]
async fn what_we_write_another_reader_reads() {
    let blocks = blocks(&[1, 0, 70_000, 127, 128, MAX_STORED]);
    let car = write(&blocks);
    let mut reader = iroh_car::CarReader::new(Cursor::new(&car)).await.unwrap();
    assert_eq!(reader.header().roots(), [blocks[0].id().cid()]);
    for block in &blocks {
        let (cid, bytes) = reader.next_block().await.unwrap().expect("as many as were put");
        assert_eq!((cid, &bytes[..]), (block.id().cid(), &block.bytes()[..]));
    }
    assert!(reader.next_block().await.unwrap().is_none());
}

#[tokio::test]
async fn what_another_writer_writes_we_read() {
    let blocks = blocks(&[5, 300_000, 0, MAX_STORED, 77]);
    let roots: Vec<Cid> = blocks[..2].iter().map(|block| block.id().cid()).collect();
    let mut writer = iroh_car::CarWriter::new(iroh_car::CarHeader::new_v1(roots.clone()), Vec::new());
    for block in &blocks {
        writer.write(block.id().cid(), block.bytes()).await.unwrap();
    }
    let car = writer.finish().await.unwrap().clone();
    assert_finds(&car, &blocks);
    assert_eq!(index(&car).unwrap().roots(), roots);
}

#[test]
fn an_archive_of_many_steps_is_indexed_whole() {
    let lens: Vec<usize> =
        (0..60).map(|n| if n % 4 == 0 { MAX_STORED - n } else { 200_000 + n * 1000 }).collect();
    let blocks = blocks(&lens);
    let car = write(&blocks);
    assert!(car.len() > 20 << 20, "several steps of reading: {}", car.len());
    assert_finds(&car, &blocks);
    // Bytes that drip are the same archive.
    struct Drip<'a>(&'a [u8]);
    impl std::io::Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let len = buffer.len().min(99_991);
            self.0.read(&mut buffer[..len])
        }
    }
    assert_eq!(Index::read(Drip(&car), Limits::default()).unwrap().blocks(), blocks.len());
}

#[test]
fn a_block_that_stands_there_twice_is_one_and_its_right_copy_counts() {
    let blocks = blocks(&[10, 20]);
    let twice = [&blocks[..], &blocks[..]].concat();
    let mut car = write(&twice);
    assert_eq!(index(&car).unwrap().blocks(), 2);
    let first = offsets(&car)[1];
    car[first + 45] ^= 1;
    let index = index(&car).unwrap();
    assert_eq!((index.blocks(), index.damaged_count()), (2, 1));
    let (offset, _) = index.find(&blocks[1].id()).unwrap();
    assert!(offset as usize > first + 45);
}

#[test]
fn blocks_of_others_are_left_out() {
    use multihash::Multihash;
    let ours = blocks(&[10]);
    let mut car = write(&ours);
    let sha = *ours[0].id().cid().hash();
    let strange = [
        Cid::new_v1(0x70, sha),
        Cid::new_v0(sha).unwrap(),
        Cid::new_v1(0x55, Multihash::wrap(0x1e, &[1; 32]).unwrap()),
        Cid::new_v1(0x55, Multihash::wrap(0, b"identity").unwrap()),
    ];
    for cid in strange {
        let cid = cid.to_bytes();
        car.push(cid.len() as u8 + 3);
        car.extend_from_slice(&cid);
        car.extend_from_slice(b"abc");
    }
    let index = index(&car).unwrap();
    assert_eq!((index.blocks(), index.foreign(), index.damaged_count()), (1, 4, 0));
}

#[test]
fn wrong_bytes_are_left_out_and_told_with_their_offset() {
    let blocks = blocks(&[100, 200, 300]);
    let good = write(&blocks);
    let starts = offsets(&good);
    for (n, start) in starts.iter().enumerate() {
        let mut car = good.clone();
        let end = starts.get(n + 1).copied().unwrap_or(car.len());
        car[end - 1] ^= 0x10;
        let index = index(&car).unwrap();
        let [(id, offset)] = index.damaged()[..] else { panic!("one is damaged: {:?}", index.damaged()) };
        assert_eq!((id, index.blocks()), (blocks[n].id(), 2));
        assert!((*start..end).contains(&(offset as usize)));
        assert!(index.find(&id).is_none() && index.find_damaged(&id).is_some());
    }
}

#[test]
fn an_archive_that_is_cut_says_where_and_what_is_missing() {
    let blocks = blocks(&[100, 200, 300]);
    let car = write(&blocks);
    let starts = offsets(&car);
    for cut in 0..car.len() {
        let outcome = index(&car[..cut]);
        if starts.contains(&cut) {
            assert_eq!(outcome.unwrap().blocks(), starts.iter().position(|start| *start == cut).unwrap());
            continue;
        }
        match outcome.expect_err("it is cut") {
            OpenError::Empty => assert_eq!(cut, 0),
            OpenError::Cut { offset, cid, missing } => {
                let begun = starts.iter().rposition(|start| *start < cut);
                assert_eq!(offset as usize, begun.map_or(0, |n| starts[n]), "cut at {cut}");
                assert!(missing > 0 && cut as u64 + missing <= car.len() as u64, "cut at {cut}: {missing}");
                if let Some(n) = begun
                    && cut > starts[n] + 40
                {
                    assert_eq!(cid, Some(blocks[n].id().cid()));
                }
            }
            other => panic!("cut at {cut}: {other}"),
        }
    }
}

#[test]
fn what_is_no_archive_says_why() {
    let good = write(&blocks(&[100]));
    let section = offsets(&good)[0];
    let patched = |at: usize, bytes: &[u8]| [&good[..at], bytes].concat();
    let bad = [
        (b"#!/bin/sh\necho hello, this is a script and no archive".to_vec(), "header"),
        (vec![0xff; 100], "not a varint"),
        (vec![0x80; 9], "cut off"),
        (vec![0; 4096], "header"),
        (vec![0xff, 0xff, 0x7f], "no CAR"),
        ([&[0x0a_u8][..], b"\xa1gversion\x02", &[0; 60]].concat(), "version 2"),
        ([&[0x0a_u8][..], b"\xa1gversion\x01"].concat(), "names no roots"),
        (patched(section, &[0]), "does not begin with a CID"),
        (patched(section, &[40; 41]), "does not begin with a CID"),
        (patched(section, &[0xff, 0xff, 0xff, 0xff, 0x0f]), "more than any block"),
        (patched(section, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]), "not a varint"),
        (patched(section, &[0xa0, 0]), "not a varint"),
    ];
    for (bytes, words) in bad {
        let error = index(&bytes).expect_err(words).to_string();
        assert!(
            error.contains(words) || (words == "no CAR" && error.contains("is not a CAR")),
            "{words}: {error}"
        );
    }
}

#[test]
fn an_opening_is_bounded_in_blocks_and_time() {
    let car = write(&blocks(&[10, 20, 30]));
    let few = Limits { blocks: 2, ..Limits::default() };
    assert!(matches!(Index::read(&car[..], few), Err(OpenError::TooMany(2))));
    let large = write(&blocks(&[MAX_STORED; 20].map(|len| len - 1)));
    let over = Limits { until: Some(Instant::now()), ..Limits::default() };
    assert!(matches!(Index::read(&large[..], over), Err(OpenError::Late { .. })));
}

/// A folder with the archive of `blocks` in it.
fn on_disk(blocks: &[VerifiedBlock]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.car");
    fs::write(&path, write(blocks)).unwrap();
    (dir, path)
}

#[tokio::test]
async fn a_file_that_changes_after_it_was_opened_is_an_error_and_never_wrong_bytes() {
    let blocks = blocks(&[1000, 2000, 3000]);
    let (_dir, path) = on_disk(&blocks);
    let sources = open_sources(&[Spec::Car(path.clone())], SourceOptions::default()).unwrap();
    let fetch = async |n: usize| {
        sources.fetch_verified(blocks[n].id(), Instant::now() + Duration::from_secs(20)).await
    };
    assert_eq!(fetch(2).await.unwrap().bytes(), blocks[2].bytes());

    // Another file with its name is another file.
    fs::rename(&path, path.with_extension("old")).unwrap();
    fs::write(&path, b"something else").unwrap();
    assert_eq!(fetch(1).await.unwrap().bytes(), blocks[1].bytes());

    let file = fs::File::options().write(true).open(path.with_extension("old")).unwrap();
    let len = file.metadata().unwrap().len();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xaa; 100], len - 4000).unwrap();
    let error = fetch(1).await.unwrap_err();
    assert!(matches!(error, GetError::Wrong { .. }), "{error}");
    file.set_len(len - 10).unwrap();
    let error = fetch(2).await.unwrap_err();
    assert!(error.to_string().contains("cut since it was opened"), "{error}");
    assert_eq!(fetch(0).await.unwrap().bytes(), blocks[0].bytes());
}

#[tokio::test]
async fn a_damaged_block_is_an_error_that_says_where_it_lies() {
    let blocks = blocks(&[1000, 2000]);
    let (_dir, path) = on_disk(&blocks);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let sources = open_sources(&[Spec::Car(path)], SourceOptions::default()).unwrap();
    let soon = Instant::now() + Duration::from_secs(20);
    sources.fetch_verified(blocks[0].id(), soon).await.unwrap();
    let error = sources.fetch_verified(blocks[1].id(), soon).await.unwrap_err().to_string();
    assert!(error.contains("has wrong bytes") && error.contains("offset"), "{error}");
}

#[test]
fn two_who_open_one_file_share_what_one_has_read() {
    let (_dir, path) = on_disk(&blocks(&[1000]));
    let one = Car::open(&path, None).unwrap();
    let same = path.with_extension("link");
    fs::hard_link(&path, &same).unwrap();
    // A new name changes the time of the last change, so it is read anew; then it is shared again.
    let two = Car::open(&same, None).unwrap();
    assert!(Arc::ptr_eq(&two, &Car::open(&path, None).unwrap()));
    drop((one, two));
    fs::write(&path, write(&blocks(&[1000, 2000]))).unwrap();
    assert_eq!(Car::open(&path, None).unwrap().index().blocks(), 2);
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert!(matches!(Car::open(&at("missing"), None), Err(CarError::Missing(_))));
    assert!(matches!(Car::open(dir.path(), None), Err(CarError::NotAFile(_))));
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(matches!(Car::open(&at("fifo"), None), Err(CarError::NotAFile(_))));
    fs::write(at("empty"), b"").unwrap();
    assert!(matches!(Car::open(&at("empty"), None), Err(CarError::Open(_, OpenError::Empty))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_panic_and_lengths_stay_in_them(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(Parsed::Whole(_, len)) = parse::header(&bytes) {
            prop_assert!(len <= bytes.len());
        }
        match parse::section(&bytes) {
            Ok(Parsed::Whole(Section { data, .. }, len)) => prop_assert!(data.end == len && len <= bytes.len()),
            Ok(Parsed::Short(need, _)) => prop_assert!(need > bytes.len() && need <= car::MAX_SECTION + 10),
            Err(BadCar::Varint | BadCar::SectionLen(_) | BadCar::Cid(_)) => {}
            Err(other) => prop_assert!(false, "{}", other),
        }
        let _ = index(&bytes);
    }

    #[test]
    fn any_blocks_survive_writing_and_reading(lens in prop::collection::vec(0..3000_usize, 0..12)) {
        let blocks = blocks(&lens);
        let car = write(&blocks);
        assert_finds(&car, &blocks);
        // One flipped bit somewhere: an error, or every block that is found is right.
        for flip in [car.len() / 3, car.len() / 2, car.len() - 1] {
            let mut bad = car.clone();
            bad[flip] ^= 4;
            let Ok(index) = index(&bad) else { continue };
            for id in index.ids() {
                let (offset, len) = index.find(id).unwrap();
                prop_assert_eq!(BlockId::of(id.codec(), &bad[offset as usize..][..len]), *id);
            }
        }
    }
}
