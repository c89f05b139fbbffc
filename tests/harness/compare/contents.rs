//! The bytes of two regular files of the same size.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, SeekFrom, openat, seek};
use rustix::io::{Errno, pread};

use super::attributes::Side;

const STEP: usize = 1 << 20;

/// Two buffers, kept over a whole comparison.
pub(super) struct Buffers {
    a: Vec<u8>,
    b: Vec<u8>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { a: vec![0; STEP], b: vec![0; STEP] }
    }
}

impl Buffers {
    /// The first byte in which they differ. What is a hole on both sides is not read.
    pub(super) fn first_difference(&mut self, a: &Side<'_>, b: &Side<'_>) -> Result<Option<u64>, String> {
        let open = |side: &Side<'_>| {
            openat(side.dir, side.name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        };
        let fa = open(a).map_err(|e| format!("the first tree cannot open it: {e}"))?;
        let fb = open(b).map_err(|e| format!("the second tree cannot open it: {e}"))?;
        let size = a.stat.st_size as u64;
        let mut at = 0;
        while at < size {
            if size > STEP as u64 {
                at = next_data(&fa, at, size).min(next_data(&fb, at, size));
            }
            let len = (size - at).min(STEP as u64) as usize;
            let (x, y) = (&mut self.a[..len], &mut self.b[..len]);
            fill(&fa, x, at).map_err(|e| format!("the first tree cannot read it at {at}: {e}"))?;
            fill(&fb, y, at).map_err(|e| format!("the second tree cannot read it at {at}: {e}"))?;
            if x != y {
                let inside = x.iter().zip(y.iter()).position(|(p, q)| p != q).unwrap_or(0);
                return Ok(Some(at + inside as u64));
            }
            at += len as u64;
        }
        Ok(None)
    }
}

/// Where data begins at or behind `at`; `size` when only a hole is left; `at` when the filesystem does not know.
fn next_data(file: &OwnedFd, at: u64, size: u64) -> u64 {
    match seek(file, SeekFrom::Data(at)) {
        Ok(offset) => offset,
        Err(Errno::NXIO) => size,
        Err(_) => at,
    }
}

fn fill(file: &OwnedFd, buffer: &mut [u8], at: u64) -> Result<(), String> {
    let mut done = 0;
    while done < buffer.len() {
        match pread(file, &mut buffer[done..], at + done as u64) {
            Ok(0) => return Err(format!("it ends {} bytes early", buffer.len() - done)),
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.to_string()),
        }
    }
    Ok(())
}
