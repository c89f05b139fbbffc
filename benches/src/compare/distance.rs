//! How far away an image is: what the way to it is like, and the parts that are measured over it.

use std::time::Duration;

use harness::origin::Link;

/// A distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distance {
    /// In the same rack.
    Lan,
    /// In the same region: 1 Gbit/s.
    Region,
    /// On another continent: 200 Mbit/s.
    Wan,
}

impl Distance {
    /// The way to the image.
    pub(super) fn link(self) -> Link {
        let (microseconds, megabits) = match self {
            Distance::Lan => (500, None),
            Distance::Region => (5_000, Some(1000)),
            Distance::Wan => (50_000, Some(200)),
        };
        Link {
            round_trip: Duration::from_micros(microseconds),
            bytes_per_second: megabits.map(|megabits| megabits * 1_000_000 / 8),
        }
    }

    /// The parts that are called mount, start and tar.
    pub(super) fn parts(self) -> [&'static str; 3] {
        match self {
            Distance::Lan => ["lan/mount", "lan/start", "lan/tar"],
            Distance::Region => ["region/mount", "region/start", "region/tar"],
            Distance::Wan => ["wan/mount", "wan/start", "wan/tar"],
        }
    }
}
