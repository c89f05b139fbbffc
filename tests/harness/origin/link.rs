//! The way to an [`super::Origin`]: how long it is and how much goes through it at a time.
//!
//! Every request takes a round trip, a new connection one more, and all connections share the bandwidth in the order in which
//! they have something to send. There is no loss and no slow start: what a transport makes of a link is not modelled.

use std::fs::File;
use std::io::{self, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::lock;

/// What is sent at a time on a link with a bound: a millisecond's worth within these.
const STEP: std::ops::RangeInclusive<u64> = 4 << 10..=256 << 10;
/// How late a sender may be woken and still fill the gap: it had its bytes ready.
const LATE: Duration = Duration::from_millis(20);

/// What the way to the server is like.
#[derive(Debug, Clone, Copy, Default)]
pub struct Link {
    /// From a request to the first byte of its answer, and once more for a new connection.
    pub round_trip: Duration,
    /// What all connections share; none is no bound.
    pub bytes_per_second: Option<u64>,
}

/// A link in use.
pub(super) struct Pace {
    link: Mutex<Link>,
    /// When what was sent so far is through.
    busy_until: Mutex<Instant>,
    bytes: AtomicU64,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { link: Mutex::default(), busy_until: Mutex::new(Instant::now()), bytes: AtomicU64::new(0) }
    }

    pub(super) fn set(&self, link: Link) {
        *lock(&self.link) = link;
    }

    /// Bytes sent so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Waits a round trip.
    pub(super) fn travel(&self) {
        let round_trip = lock(&self.link).round_trip;
        if !round_trip.is_zero() {
            std::thread::sleep(round_trip);
        }
    }

    /// The sending of one answer, which begins now.
    pub(super) fn sending<'a>(&'a self, stream: &'a TcpStream) -> Sending<'a> {
        Sending { pace: self, stream, through_at: Instant::now() }
    }
}

/// An answer on its way.
pub(super) struct Sending<'a> {
    pace: &'a Pace,
    stream: &'a TcpStream,
    /// When what it has sent so far is through.
    through_at: Instant,
}

impl Sending<'_> {
    /// Writes as fast as the link is.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(speed) = lock(&self.pace.link).bytes_per_second else { return self.write(bytes) };
        let step = (speed / 1000).clamp(*STEP.start(), *STEP.end());
        for step in bytes.chunks(step as usize) {
            let takes = Duration::from_secs_f64(step.len() as f64 / speed as f64);
            self.through_at = {
                let mut busy_until = lock(&self.pace.busy_until);
                let ready = self.through_at.max(Instant::now() - LATE);
                *busy_until = (*busy_until).max(ready) + takes;
                *busy_until
            };
            std::thread::sleep(self.through_at.saturating_duration_since(Instant::now()));
            self.write(step)?;
        }
        Ok(())
    }

    /// Whether bytes go as fast as they come.
    pub(super) fn has_no_bound(&self) -> bool {
        lock(&self.pace.link).bytes_per_second.is_none()
    }

    /// Part of a file at once. The kernel copies it, so that the server takes little of the processors on which its clients run.
    pub(super) fn send_file(&mut self, file: &File, range: Range<u64>) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let left = (range.end - at) as usize;
            let sent = rustix::fs::sendfile(self.stream, file, Some(&mut at), left)? as u64;
            if sent == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.pace.bytes.fetch_add(sent, Relaxed);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.pace.bytes.fetch_add(bytes.len() as u64, Relaxed);
        Ok(())
    }
}
