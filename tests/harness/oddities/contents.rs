//! Contents: zeros, noise and text at every border of block, frame and space; copies, near copies and holes.

use crate::prng::SplitMix64;
use crate::tree::Builder;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: u64 = 1 << 30;

pub(super) fn plant(tree: &Builder) {
    borders(tree);
    copies(tree);
    holes(tree);
}

fn borders(tree: &Builder) {
    tree.dir("contents");
    let mut rng = SplitMix64::new(1);
    let borders = [4 * KIB, 64 * KIB, 256 * KIB, MIB];
    let around = borders.iter().flat_map(|b| [b - 1, *b, b + 1]);
    for size in [1, 2, 100, 2048, 3000].into_iter().chain(around) {
        tree.file(format!("contents/zeros_{size}"), &vec![0; size]);
        tree.file(format!("contents/noise_{size}"), &rng.bytes(size));
        tree.file(format!("contents/text_{size}"), &rng.text(size));
    }
    let mut mixed = rng.bytes(3 * MIB);
    mixed[MIB + 4096..2 * MIB].fill(0);
    mixed[100..5000].fill(0);
    tree.file("contents/noise_zeros_noise", &mixed);
}

fn copies(tree: &Builder) {
    tree.dir("copies/far/away");
    let mut rng = SplitMix64::new(2);
    let medium = rng.bytes(64 * KIB + 1);
    let large = rng.bytes(MIB + 77);
    for dir in ["copies", "copies/far", "copies/far/away"] {
        tree.file(format!("{dir}/medium"), &medium);
        tree.file(format!("{dir}/large"), &large);
        tree.file(format!("{dir}/tiny"), b"same");
    }
    let mut big = rng.bytes(5 * MIB);
    tree.file("copies/big", &big);
    big[2 * MIB..2 * MIB + 4096].copy_from_slice(&rng.bytes(4096));
    tree.file("copies/big_with_one_block_changed", &big);
    big.insert(17, b'!');
    tree.file("copies/big_shifted_by_a_byte", &big);
    big.truncate(3 * MIB + 5);
    tree.file("copies/big_cut_short", &big);
}

fn holes(tree: &Builder) {
    tree.dir("sparse");
    let noise = SplitMix64::new(3).bytes(12 * KIB);
    let islands = [
        (0, &noise[..100]),
        (GIB + 1, &noise[..5000]),
        (4 * GIB - 4096, &noise[..]),
        (4 * GIB + 4096 * 300, b"end"),
    ];
    tree.sparse("sparse/over_4_gib", 4 * GIB + 5 * MIB as u64 + 123, &islands);
    tree.sparse("sparse/only_a_hole", MIB as u64 + 7, &[]);
    tree.sparse("sparse/only_a_large_hole", 3 * GIB, &[]);
    tree.sparse("sparse/hole_first", 200 * KIB as u64, &[(190 * KIB as u64, &noise[..10 * KIB])]);
    tree.sparse("sparse/hole_last", 200 * KIB as u64 + 1, &[(0, &noise[..5000])]);
    tree.sparse(
        "sparse/hole_between",
        2 * MIB as u64,
        &[(0, &noise[..4096]), (2 * MIB as u64 - 4096, &noise[..4096])],
    );
    tree.sparse("sparse/every_other_block", 400 * KIB as u64, &every_other(&noise));
}

fn every_other(noise: &[u8]) -> Vec<(u64, &[u8])> {
    (0..50).map(|i| (i * 8192, &noise[..4096])).collect()
}
