//! Just enough of CIDs to write strange ones and to prove the objects of a store: base32, varints, nothing else.

/// Codec of raw bytes.
pub const RAW: u64 = 0x55;
/// Codec of dag-cbor nodes.
pub const DAG_CBOR: u64 = 0x71;
/// Codec of protobuf nodes, which no flist uses.
pub const DAG_PB: u64 = 0x70;
/// Multihash code of SHA-256, the only one an flist uses.
pub const SHA2_256: u64 = 0x12;
/// Multihash code of SHA-512.
pub const SHA2_512: u64 = 0x13;
/// Multihash code of BLAKE3.
pub const BLAKE3: u64 = 0x1e;
/// Multihash code of "the digest is the content".
pub const IDENTITY: u64 = 0x00;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The text of a CIDv1.
pub fn encode(codec: u64, hash: u64, digest: &[u8]) -> String {
    let mut bytes = vec![1];
    for number in [codec, hash, digest.len() as u64] {
        varint(&mut bytes, number);
    }
    bytes.extend_from_slice(digest);
    text(&bytes)
}

/// The codec of a CIDv1 that is written in base32.
pub fn codec(cid: &str) -> Option<u64> {
    let bytes = unbase32(cid.strip_prefix('b')?)?;
    // All codecs in use fit in one byte.
    bytes.get(1).map(|b| u64::from(*b))
}

/// The bytes of a CID that is written in base32.
pub fn bytes(cid: &str) -> Option<Vec<u8>> {
    unbase32(cid.strip_prefix('b')?)
}

/// A CID in base32.
pub fn text(cid: &[u8]) -> String {
    format!("b{}", base32(cid))
}

/// Appends a number as an unsigned varint.
pub fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push((number as u8 & 0x7f) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn base32(bytes: &[u8]) -> String {
    let mut out = String::new();
    for group in bytes.chunks(5) {
        let mut bits = [0_u8; 8];
        bits[3..3 + group.len()].copy_from_slice(group);
        let bits = u64::from_be_bytes(bits);
        for i in 0..(group.len() * 8).div_ceil(5) {
            out.push(char::from(ALPHABET[(bits >> (35 - 5 * i)) as usize & 31]));
        }
    }
    out
}

fn unbase32(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut count, mut out) = (0_u32, 0, Vec::new());
    for c in text.bytes() {
        bits = (bits << 5) | ALPHABET.iter().position(|a| *a == c)? as u32;
        count += 5;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(out)
}
