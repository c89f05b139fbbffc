//! Random trees, random reads: what the lazy filesystem answers is what lies on the disk.

#[path = "support/lab.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod lab;

use g8_fs::erofs::FileKind;
use g8_fs::filesystem::{Filesystem, FsError};
use g8_fs::pack::PackOptions;
use proptest::collection::vec;
use proptest::prelude::*;

use lab::Files;

const DEADLINE: std::time::Duration = std::time::Duration::from_secs(20);
const FRAMES: [u32; 4] = [4096, 64 << 10, 256 << 10, 1008 << 10];

/// A part of a file. Few seeds, so that files share contents.
#[derive(Clone, Debug)]
enum Stretch {
    Zeros,
    Noise(u64),
    Text(u64),
}

/// Lengths around the borders at which something happens: pages, bundled pieces, frames, large files, blocks.
fn border() -> impl Strategy<Value = usize> {
    let border = prop_oneof![
        3 => Just(0_usize), 3 => Just(128), 4 => Just(4096), 3 => Just(65_536), 2 => Just(262_144),
        1 => Just(1 << 20), 1 => Just(g8_cache::MAX_STORED),
    ];
    (border, -2..=2_isize, prop_oneof![3 => Just(1), 1 => 2..4_usize])
        .prop_map(|(border, off, times)| (border * times).saturating_add_signed(off).min(1_500_000))
}

fn contents() -> impl Strategy<Value = Vec<u8>> {
    let stretch = prop_oneof![
        Just(Stretch::Zeros),
        (1..4_u64).prop_map(Stretch::Noise),
        (1..4_u64).prop_map(Stretch::Text),
    ];
    vec((stretch, border()), 0..4).prop_map(|stretches| {
        let bytes = stretches.into_iter().map(|(stretch, len)| match stretch {
            Stretch::Zeros => vec![0; len],
            Stretch::Noise(seed) => lab::noise(seed, len),
            Stretch::Text(seed) => lab::text(seed, len),
        });
        bytes.collect::<Vec<_>>().concat()
    })
}

fn tree() -> impl Strategy<Value = Files> {
    let path = prop_oneof!["[abc]", "[de]/[abc]", "[de]/f/[abc]"];
    vec((path, contents()), 1..5).prop_map(|files| files.into_iter().collect())
}

/// Which file, where and how much; where and how much are taken modulo what there is.
type Read = (prop::sample::Index, prop::sample::Index, bool, usize);

fn reads() -> impl Strategy<Value = Vec<Read>> {
    vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>(), border()), 40)
}

async fn compare(fs: &Filesystem, files: &Files, reads: &[Read], kept: bool) {
    for (file, at, near_border, len) in reads {
        let (path, contents) = files.iter().nth(file.index(files.len())).unwrap();
        let inode = lab::find(fs, path);
        assert_eq!((inode.kind(), inode.size), (FileKind::Regular, contents.len() as u64));
        let mut offset = at.index(contents.len() + 2);
        if *near_border {
            offset = offset / 4096 * 4096;
        }
        let expected = &contents[offset.min(contents.len())..(offset + len).min(contents.len())];
        let got = lab::read(fs, inode.nid, offset as u64, *len as u32).await.unwrap();
        assert!(got == expected, "{path}: {len} bytes at {offset}");
        if *len > 0 && kept {
            let here = fs.read_now(inode.nid, offset as u64, *len as u32).unwrap();
            let here = here.expect("what was read is here");
            assert!(here.as_ref() == expected, "{path}: {len} bytes at {offset} once more");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, ..ProptestConfig::default() })]

    #[test]
    fn every_read_gives_the_bytes_on_the_disk(
        files in tree(), reads in reads(), frame_len in prop::sample::select(&FRAMES), kept: bool,
    ) {
        let options = PackOptions { frame_len, level: 1, threads: 2, ..PackOptions::default() };
        let packed = lab::pack_files(files, &options);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            // With nothing kept, every frame is fetched and decoded anew.
            let cache = g8_fs::check::memory_cache(if kept { 256 << 20 } else { 0 }).unwrap();
            let sources = lab::from_map(&packed.objects);
            let fs = lab::open(packed.id, &cache, &sources, DEADLINE).await.unwrap();
            compare(&fs, &packed.files, &reads, kept).await;
            for (path, contents) in &packed.files {
                assert!(lab::read_all(&fs, path).await.unwrap() == *contents, "{path}");
            }
        });
    }
}

#[test]
fn what_is_no_file_has_no_bytes() {
    let packed = lab::pack_files(lab::sample(), &PackOptions::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let sources = lab::from_map(&packed.objects);
        let fs = lab::open(packed.id, &lab::memory(), &sources, DEADLINE).await.unwrap();
        let dir = lab::find(&fs, "d").nid;
        assert!(matches!(fs.read_now(dir, 0, 10), Err(FsError::IsADirectory)));
        let words = lab::find(&fs, "words");
        assert!(matches!(fs.lookup(words.nid, b"x"), Err(FsError::NotADirectory)));
        for offset in [words.size, words.size + 1, u64::MAX - 5, u64::MAX] {
            assert!(lab::read(&fs, words.nid, offset, u32::MAX).await.unwrap().is_empty(), "at {offset}");
        }
        assert_eq!(lab::read(&fs, words.nid, words.size - 1, u32::MAX).await.unwrap().len(), 1);
    });
}
