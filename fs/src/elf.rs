//! What an ELF file says about others that it needs to run: its loader and its libraries (gABI, chapters 4 and 5).
//!
//! Only 64-bit little-endian files are read, which are all those of the machines we run on. The bytes are hostile: every offset
//! is checked, tables are bounded, and what does not fit is no program.

use std::ops::Range;

/// First bytes of the files that are read: magic, 64 bits, little-endian.
pub const MAGIC: &[u8] = b"\x7fELF\x02\x01";
/// Bytes of the file header.
const HEADER: usize = 64;
/// Bytes of a program header, and most of them.
const SEGMENT: usize = 56;
const MAX_SEGMENTS: usize = 64;
/// Bytes of the dynamic section, at most; an entry has 16.
pub const MAX_DYNAMIC: u64 = 16 << 10;
/// Libraries that one file may name.
const MAX_NEEDED: usize = 128;
/// Longest name of a file.
pub const MAX_NAME: u64 = 255;

const PT_LOAD: u32 = 1;
const PF_W: u32 = 2;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

/// What the beginning of a file says.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// Where in the file the path of the loader is, with a NUL behind it.
    pub interpreter: Option<Range<u64>>,
    /// Where in the file the dynamic section is.
    pub dynamic: Range<u64>,
    /// Where in the file all is that the loader writes to before the program runs.
    pub relocated: Range<u64>,
    /// `e_machine`.
    pub machine: u16,
    loads: Vec<Load>,
}

#[derive(Debug, PartialEq, Eq)]
struct Load {
    address: u64,
    file: Range<u64>,
}

impl Head {
    /// Reads the beginning of a file. None when it is not a program that needs others.
    pub fn parse(bytes: &[u8]) -> Option<Head> {
        if !bytes.starts_with(MAGIC) || bytes.len() < HEADER {
            return None;
        }
        let (machine, at) = (u16_at(bytes, 18)?, u64_at(bytes, 32)?);
        let (size, count) = (u16_at(bytes, 54)?, usize::from(u16_at(bytes, 56)?));
        if usize::from(size) != SEGMENT || count > MAX_SEGMENTS {
            return None;
        }
        let table = bytes.get(usize::try_from(at).ok()?..)?.get(..count * SEGMENT)?;
        let (mut interpreter, mut dynamic, mut relocated, mut loads) = (None, None, 0..0, Vec::new());
        for segment in table.chunks_exact(SEGMENT) {
            let (offset, address, len) = (u64_at(segment, 8)?, u64_at(segment, 16)?, u64_at(segment, 32)?);
            let file = offset..offset.checked_add(len)?;
            match u32_at(segment, 0)? {
                PT_LOAD => {
                    if u32_at(segment, 4)? & PF_W != 0 {
                        relocated = file.clone();
                    }
                    loads.push(Load { address, file });
                }
                PT_DYNAMIC if len <= MAX_DYNAMIC => dynamic = Some(file),
                PT_INTERP if len <= MAX_NAME + 1 => interpreter = Some(file),
                _ => {}
            }
        }
        Some(Head { interpreter, dynamic: dynamic?, relocated, machine, loads })
    }

    /// Reads the dynamic section: where in the file the names of the libraries that it needs begin.
    pub fn needed(&self, dynamic: &[u8]) -> Vec<u64> {
        let (mut names, mut strings) = (Vec::new(), None);
        for entry in dynamic.chunks_exact(16) {
            match (u64_at(entry, 0), u64_at(entry, 8)) {
                (Some(0), _) | (None, _) | (_, None) => break,
                (Some(DT_NEEDED), Some(name)) if names.len() < MAX_NEEDED => names.push(name),
                (Some(DT_STRTAB), Some(address)) => strings = self.in_file(address),
                (Some(_), Some(_)) => {}
            }
        }
        let Some(strings) = strings else { return Vec::new() };
        names.into_iter().filter_map(|name| strings.checked_add(name)).collect()
    }

    /// Where in the file a byte of the running program is.
    fn in_file(&self, address: u64) -> Option<u64> {
        self.loads.iter().find_map(|load| {
            let inside = address.checked_sub(load.address)?;
            (inside < load.file.end - load.file.start).then(|| load.file.start + inside)
        })
    }
}

/// A string with a NUL behind it.
pub fn string(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(&bytes[..end]).filter(|string| !string.is_empty())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a whole file: its loader and its libraries.
    fn all(file: &[u8]) -> Option<(Option<String>, Vec<String>)> {
        let part = |range: Range<u64>| file.get(range.start as usize..(range.end as usize).min(file.len()));
        let text = |bytes: &[u8]| string(bytes).map(|name| String::from_utf8_lossy(name).into_owned());
        let head = Head::parse(file)?;
        let interpreter = head.interpreter.clone().and_then(|range| text(part(range)?));
        let needed = head.needed(part(head.dynamic.clone())?);
        let end = |at: u64| at.saturating_add(MAX_NAME + 1);
        let names = needed.into_iter().filter_map(|at| text(part(at..end(at))?)).collect();
        Some((interpreter, names))
    }

    #[test]
    fn this_program_needs_its_loader_and_the_c_library() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let (interpreter, libraries) = all(&own).unwrap();
        assert!(interpreter.unwrap().starts_with("/lib"));
        assert!(libraries.iter().any(|name| name.starts_with("libc.so")), "{libraries:?}");
    }

    #[test]
    fn other_files_are_no_programs() {
        assert_eq!(Head::parse(b""), None);
        assert_eq!(Head::parse(MAGIC), None);
        assert_eq!(Head::parse(&[0; 4096]), None);
        assert_eq!(Head::parse(b"#!/bin/sh\n"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at: prop::sample::Index, change: [u8; 8], cut: prop::sample::Index) {
            let own = std::fs::read("/bin/sh").unwrap();
            let mut head = own[..4096].to_vec();
            let at = at.index(1024);
            head[at..at + 8].copy_from_slice(&change);
            head.truncate(cut.index(head.len()).max(at));
            let _ = all(&head);
            if let Some(parsed) = Head::parse(&head) {
                let _ = parsed.needed(&head);
            }
        }
    }
}
