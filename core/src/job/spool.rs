//! What was read of the output of a process, in memory that the spawner keeps for the next manager.
//!
//! Bytes go from a pipe into it in one system call, which is done or not done when a manager is killed: none is lost and
//! none is there twice. What lies far back is folded into a [`State`] from time to time, so that a job that prints for
//! ever takes [`FOLD`] bytes of each stream and a state.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
use rustix::pipe::{SpliceFlags, splice, tee};
use serde::{Deserialize, Serialize};

use super::tail::Tail;
use crate::log::CHUNK;
use crate::process::{Message, Messages};

/// Bytes after which they are folded.
const FOLD: u64 = 512 << 10;
/// Where the two places for states are; one of them counts.
const PLACES: [u64; 2] = [4 << 10, 1 << 30];
/// Longest state that is believed.
const STATE_MAX: u64 = 64 << 20;
/// Most bytes that are looked at in a pipe: more than any pipe holds by default.
const PEEK: usize = 1 << 20;

/// What all bytes up to some place have come to.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    pub messages: [Messages; 2],
    pub tails: [Tail; 2],
    pub answer: Option<Message>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Spool {
    /// Both streams, each byte at its own place; what was folded is a hole.
    bytes: [File; 2],
    lengths: [u64; 2],
    /// The states, and in the first 16 bytes which of them counts and how long it is.
    states: File,
    place: usize,
    folded: [u64; 2],
}

impl Spool {
    pub fn new() -> io::Result<Self> {
        let file = || memfd_create("core0-spool", MemfdFlags::CLOEXEC).map(File::from);
        Ok(Self { bytes: [file()?, file()?], lengths: [0; 2], states: file()?, place: 0, folded: [0; 2] })
    }

    /// What another manager kept, with its state and the bytes that came after that.
    pub fn open(kept: [OwnedFd; 3]) -> io::Result<(Self, Option<State>, [Vec<u8>; 2])> {
        let [out, err, states] = kept.map(File::from);
        let lengths = [out.metadata()?.len(), err.metadata()?.len()];
        let mut spool = Self { bytes: [out, err], lengths, states, place: 0, folded: [0; 2] };
        let state = spool.load()?;
        if let Some(state) = &state {
            spool.folded = [state.messages[0].fed(), state.messages[1].fed()];
        }
        let mut rests = [Vec::new(), Vec::new()];
        for (which, rest) in rests.iter_mut().enumerate() {
            rest.resize(lengths[which].saturating_sub(spool.folded[which]) as usize, 0);
            spool.bytes[which].read_exact_at(rest, spool.folded[which])?;
        }
        Ok((spool, state, rests))
    }

    /// For the spawner.
    pub fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        self.bytes.iter().chain([&self.states]).map(|file| Ok(file.try_clone()?.into())).collect()
    }

    /// Moves bytes out of a pipe, and gives them; none at its end.
    pub fn take(&mut self, which: usize, pipe: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
        let (file, length) = (&self.bytes[which], &mut self.lengths[which]);
        let mut end = *length;
        let count = splice(pipe, None, file, Some(&mut end), CHUNK, SpliceFlags::NONBLOCK)?;
        let mut bytes = vec![0; count];
        file.read_exact_at(&mut bytes, *length)?;
        *length = end;
        Ok(bytes)
    }

    /// Whether there is much to fold.
    pub fn is_long(&self) -> bool {
        (0..2).any(|which| self.lengths[which] - self.folded[which] > FOLD)
    }

    /// Folds all bytes, which have come to this.
    pub fn fold(&mut self, state: &State) -> io::Result<()> {
        let json = serde_json::to_vec(state)?;
        let (old, place) = (self.place, 1 - self.place);
        self.states.write_all_at(&json, PLACES[place])?;
        // Small enough to be written or not.
        let counts = [(place as u64).to_ne_bytes(), (json.len() as u64).to_ne_bytes()].concat();
        self.states.write_all_at(&counts, 0)?;
        (self.place, self.folded) = (place, self.lengths);
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.states, punch, PLACES[old], STATE_MAX)?;
        for (file, folded) in self.bytes.iter().zip(self.folded).filter(|(_, folded)| *folded > 0) {
            fallocate(file, punch, 0, folded)?;
        }
        Ok(())
    }

    fn load(&mut self) -> io::Result<Option<State>> {
        let mut counts = [0; 16];
        match self.states.read_exact_at(&mut counts, 0) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let [place, length] = [0, 8].map(|at| u64::from_ne_bytes(std::array::from_fn(|i| counts[at + i])));
        let place = usize::from(place == 1);
        if length > STATE_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a state that is too long"));
        }
        let mut json = vec![0; length as usize];
        self.states.read_exact_at(&mut json, PLACES[place])?;
        self.place = place;
        Ok(Some(serde_json::from_slice(&json)?))
    }
}

/// A pipe to look at others with.
#[derive(Debug)]
pub struct Glass {
    read: OwnedFd,
    write: OwnedFd,
}

impl Glass {
    pub fn new() -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::pipe::fcntl_setpipe_size(&write, PEEK)?;
        Ok(Self { read, write })
    }

    /// What lies in a pipe, which stays there.
    pub fn peek(&self, pipe: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
        let count = match tee(pipe, &self.write, PEEK, SpliceFlags::NONBLOCK) {
            Err(rustix::io::Errno::AGAIN) => 0,
            other => other?,
        };
        let mut bytes = vec![0; count];
        let mut seen = 0;
        while seen < count {
            seen += rustix::io::read(&self.read, &mut bytes[seen..])?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_was_taken_is_there_for_the_next_one_and_little_of_it_is_kept() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut write = File::from(write);
        let mut spool = Spool::new().unwrap();
        let messages = || [Messages::new(1), Messages::new(2)];
        let mut state = State { messages: messages(), tails: Default::default(), answer: None };
        let lines: Vec<String> = (0..200_000).map(|i| format!("{i:015}\n")).collect();
        for piece in lines.concat().as_bytes().chunks(CHUNK) {
            write.write_all(piece).unwrap();
            let bytes = spool.take(1, read.as_fd()).unwrap();
            assert_eq!(bytes, piece);
            let State { messages, tails, .. } = &mut state;
            messages[1].feed(&bytes, &mut |message| tails[1].put(message.text));
            if spool.is_long() {
                spool.fold(&state).unwrap();
            }
        }
        let blocks = |file: &File| std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
        let kept = 512 * (blocks(&spool.bytes[1]) + blocks(&spool.states));
        assert!(kept < FOLD + 256 * 1024, "{kept} bytes are kept");
        let descriptors = spool.descriptors().unwrap().try_into().unwrap();
        drop(spool);
        let (mut spool, next, rests) = Spool::open(descriptors).unwrap();
        let State { mut messages, mut tails, .. } = next.unwrap();
        messages[1].feed(&rests[1], &mut |message| tails[1].put(message.text));
        assert_eq!((tails[1].text(), messages[1].fed()), (state.tails[1].text(), 16 * 200_000));
        assert_eq!((rests[0].len(), messages[0].fed()), (0, 0));
        write.write_all(b"more\n").unwrap();
        assert_eq!(spool.take(1, read.as_fd()).unwrap(), b"more\n");
    }

    #[test]
    fn what_is_looked_at_stays_in_the_pipe() {
        let glass = Glass::new().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        for _ in 0..2 {
            assert_eq!(glass.peek(read.as_fd()).unwrap(), b"");
        }
        // As much as it holds.
        let all = vec![b'x'; 65_536];
        File::from(write).write_all(&all).unwrap();
        for _ in 0..2 {
            assert_eq!(glass.peek(read.as_fd()).unwrap(), all);
        }
    }
}
