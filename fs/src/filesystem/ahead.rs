//! Read-ahead of our own: frames that a sequential reader will want are fetched and decoded before it asks.
//!
//! The kernel's read-ahead asks for what it is about to read; it knows neither blocks nor frames, and while it waits
//! for one frame the other processors are idle. Files lie in the data spaces in tree order, so a walk over many small
//! files is one stream, too. A stream is followed from its second request on, and the window grows with it, so that
//! random reads and starting programs fetch nothing extra.

use std::ops::Range;

use parking_lot::Mutex;

use crate::erofs::Device;

/// Streams that are followed at the same time; a new one takes the place of the one that was quiet for longest.
const STREAMS: usize = 16;
/// A request this far from where a stream is still belongs to it: several are under way at once, in any order.
const SLACK: u64 = 1 << 20;
/// A reader that leaves out less than this reads on: a small file that it did not want.
const GAP: u64 = 64 << 10;
/// Requests of one stream that may come before their turn: the threads that take them from the kernel overtake each other.
const EARLY: usize = 2;
/// Bytes ahead of a stream, at most.
const MAX_WINDOW: u64 = 8 << 20;

/// The streams of one mount.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    streams: Vec<Stream>,
    /// Counts requests, to tell which stream was quiet for longest.
    clock: u64,
}

#[derive(Debug)]
struct Stream {
    device: Device,
    /// Where its reader began to read on.
    begin: u64,
    /// Where the reader is.
    at: u64,
    /// What was read further on, while it is not known whether the reader has jumped there.
    early: Vec<Range<u64>>,
    /// Up to where it was fetched.
    ahead: u64,
    used: u64,
}

impl Streams {
    /// `len` bytes at `address` are being read. What is to be fetched now, if it continues a stream: as much as was read
    /// of it so far, so that a stream which ends has fetched twice its bytes at most.
    pub(super) fn follow(&self, device: Device, address: u64, len: u64) -> Option<Range<u64>> {
        let end = address + len;
        let mut table = self.0.lock();
        table.clock += 1;
        let now = table.clock;
        let near = |s: &Stream| s.device == device && address <= s.at + SLACK && end + SLACK >= s.at;
        let Some(stream) = table.streams.iter_mut().find(|s| near(s)) else {
            let early = Vec::new();
            let stream = Stream { device, begin: address, at: end, early, ahead: end, used: now };
            if table.streams.len() < STREAMS {
                table.streams.push(stream);
            } else if let Some(quiet) = table.streams.iter_mut().min_by_key(|s| s.used) {
                *quiet = stream;
            }
            return None;
        };
        stream.used = now;
        if end <= stream.at {
            return None;
        }
        if address > stream.at + GAP {
            stream.early.push(address..end);
            if stream.early.len() > EARLY {
                stream.jumps();
            }
            return None;
        }
        stream.at = end;
        stream.take_up();
        let end = stream.at;
        let window = (end - stream.begin).min(MAX_WINDOW);
        let from = stream.ahead.max(end);
        let to = end + window;
        // In steps, so that not every request starts a little of it.
        if to < from + window / 4 {
            return None;
        }
        stream.ahead = to;
        Some(from..to)
    }
}

impl Stream {
    /// Nobody comes for what lies between: perhaps another stream begins.
    fn jumps(&mut self) {
        self.begin = self.early.iter().map(|early| early.start).min().unwrap_or(self.begin);
        self.at = self.early.iter().map(|early| early.end).max().unwrap_or(self.at);
        self.ahead = self.ahead.max(self.at);
        self.early.clear();
    }

    /// The turn of what came early may be here.
    fn take_up(&mut self) {
        while let Some(next) = self.early.iter().position(|early| early.start <= self.at + GAP) {
            self.at = self.at.max(self.early.swap_remove(next).end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = 128 << 10;

    #[test]
    fn a_stream_is_followed_from_its_second_request_and_nothing_is_fetched_twice() {
        let streams = Streams::default();
        assert_eq!(streams.follow(Device::Big, 0, STEP), None);
        let mut fetched = STEP;
        for n in 1..200 {
            if let Some(range) = streams.follow(Device::Big, n * STEP, STEP) {
                assert!(range.start >= fetched, "{range:?} after {fetched}");
                assert!(range.end <= (n + 1) * STEP + MAX_WINDOW);
                fetched = range.end;
            }
        }
        assert!(fetched > 199 * STEP + MAX_WINDOW / 2, "the window has grown");
    }

    /// One thread takes a request from the kernel, the next one the following, and that is faster.
    #[test]
    fn requests_that_overtake_each_other_do_not_hold_a_stream_back() {
        let fetched = |order: &[u64]| {
            let streams = Streams::default();
            let fetched = order.iter().filter_map(|n| streams.follow(Device::Small, n * STEP, STEP));
            fetched.last().expect("it is followed").end
        };
        let in_order: Vec<u64> = (0..200).collect();
        let in_pairs: Vec<u64> = (0..200).map(|n| n ^ 1).collect();
        let in_threes: Vec<u64> = (0..198).map(|n| n / 3 * 3 + 2 - n % 3).collect();
        let far = fetched(&in_order);
        for order in [in_pairs, in_threes] {
            let reached = fetched(&order);
            assert!(reached + MAX_WINDOW / 2 > far, "{reached} instead of {far}: {:?}", &order[..6]);
        }
        // Who really jumps begins anew.
        let jumping: Vec<u64> = (0..8).map(|n| n * 5).collect();
        let streams = Streams::default();
        assert!(jumping.iter().all(|n| streams.follow(Device::Small, n * STEP, STEP).is_none()));
    }

    #[test]
    fn random_reads_start_nothing() {
        let streams = Streams::default();
        for n in 0..1000_u64 {
            let address = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (1 << 40);
            assert_eq!(streams.follow(Device::Big, address, 4096), None);
        }
    }

    #[test]
    fn requests_in_any_order_are_one_stream_and_devices_are_apart() {
        let streams = Streams::default();
        assert_eq!(streams.follow(Device::Small, STEP, STEP), None);
        assert_eq!(streams.follow(Device::Small, 0, STEP), None, "behind the reader");
        assert_eq!(streams.follow(Device::Big, 2 * STEP, STEP), None);
        assert!(streams.follow(Device::Small, STEP * 2, STEP).is_some());
        assert_eq!(streams.follow(Device::Small, STEP * 5, STEP), None, "a jump");
    }
}
