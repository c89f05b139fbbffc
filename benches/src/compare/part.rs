//! What is measured: a table of parts, each a line per contender in the printed tables.

/// One thing that rows measure.
pub(super) struct Part {
    /// `row/part`, as in the raw runs.
    pub(super) name: &'static str,
    /// Parts with the same heading stand in one table.
    pub(super) heading: &'static str,
    pub(super) what: &'static str,
    pub(super) unit: Unit,
}

/// What a value counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
    MicrosecondsAFile,
    MicrosecondsARead,
    MebibytesASecond,
    Bytes,
}

impl Unit {
    pub(super) fn label(self) -> &'static str {
        match self {
            Unit::Seconds => "s",
            Unit::Milliseconds => "ms",
            Unit::MicrosecondsAFile => "us/file",
            Unit::MicrosecondsARead => "us/read",
            Unit::MebibytesASecond => "MiB/s",
            Unit::Bytes => "MiB",
        }
    }

    /// How many times as slow, or as large, as a reference.
    pub(super) fn cost(self, value: f64, reference: f64) -> f64 {
        if self == Unit::MebibytesASecond { reference / value } else { value / reference }
    }

    /// A number of this unit with three digits that matter.
    pub(super) fn show(self, value: f64) -> String {
        let value = if self == Unit::Bytes { value / f64::from(1 << 20) } else { value };
        digits(value)
    }
}

/// Three digits that matter.
pub(super) fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        0.0..1.0 => format!("{value:.3}"),
        1.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

const PACK: &str = "Pack, made durable (source in the page cache)";
const SIZE: &str = "Bytes stored";
const PUBLISH: &str = "Publish the packed tree `usr` to a node of js-ipfs 0.66 that has nothing, until it is pinned (image in the page cache; more is better)";
const MOUNT: &str = "Mount of the tree `tiny`, from the start of the command to the first stat (programs and image in the \
                     page cache; the kernel's own is one system call, no process)";
const FIND: &str = "find -ls of the tree `usr`";
const SMALL: &str = "open, read, close of the files of 10 KB, in tree order";
const TAR: &str = "tar of the tree `usr` (image on the disk; flist keeps a local store's blocks only if told to, nydus keeps all)";
const SEQ: &str = "Reading a large file from end to end (more is better)";
const RANDOM: &str = "4 KiB reads at 2,000 random offsets of one file (flist with --cache-local)";
const FLIGHT: &str = "64 readers at once, nothing cached";
const START: &str = "python3 -c 'print(1)' in a Debian tree, to its output";
const LAN: &str = "The Debian tree from a server 0.5 ms away, empty cache, from the start of the command (without http: on this machine)";
const REGION: &str =
    "The Debian tree from a server 5 ms away, 1 Gbit/s, empty cache, from the start of the command";
const WAN: &str =
    "The Debian tree from a server 50 ms away, 200 Mbit/s, empty cache, from the start of the command";
const STALL: &str = "4 KiB cold reads of a large file from three servers 5 ms away, 1 Gbit/s each";
const RSS: &str = "Resident memory of the daemon after tar";

/// All parts, in the order of the tables.
pub(super) const PARTS: &[Part] = &[
    part("pack/usr", PACK, "usr", Unit::Seconds),
    part("pack/tiny", PACK, "tiny", Unit::Seconds),
    part("size/usr", SIZE, "usr", Unit::Bytes),
    part("size/tiny", SIZE, "tiny", Unit::Bytes),
    part("publish/usr", PUBLISH, "usr", Unit::MebibytesASecond),
    part("mount/first", MOUNT, "no daemon, empty cache", Unit::Milliseconds),
    part("mount/again", MOUNT, "cache kept, and ours with its daemon running", Unit::Milliseconds),
    part("mount/inside", MOUNT, "the same, inside the daemon", Unit::Milliseconds),
    part("find/fresh", FIND, "new mount, image on the disk", Unit::Milliseconds),
    part("find/cold", FIND, "inodes dropped", Unit::Milliseconds),
    part("find/warm", FIND, "again", Unit::Milliseconds),
    part("small/disk", SMALL, "empty cache, image on the disk", Unit::MicrosecondsAFile),
    part("small/fresh", SMALL, "empty cache, image in the page cache", Unit::MicrosecondsAFile),
    part("small/warm", SMALL, "again", Unit::MicrosecondsAFile),
    part("tar/empty", TAR, "empty cache", Unit::Seconds),
    part("tar/fill", TAR, "empty cache, filling the disk cache", Unit::Seconds),
    part("tar/disk", TAR, "from the disk cache, page cache dropped", Unit::Seconds),
    part("tar/again", TAR, "again, from the page cache", Unit::Seconds),
    part("seq/cold", SEQ, "empty cache, image on the disk", Unit::MebibytesASecond),
    part("seq/hot", SEQ, "again", Unit::MebibytesASecond),
    part("random/empty", RANDOM, "empty cache, image on the disk", Unit::MicrosecondsARead),
    part("random/disk", RANDOM, "from the disk cache, page cache dropped", Unit::MicrosecondsARead),
    part(
        "random/memory",
        RANDOM,
        "from the disk cache, its files in the page cache",
        Unit::MicrosecondsARead,
    ),
    part("random/hot", RANDOM, "again, from the page cache", Unit::MicrosecondsARead),
    part("flight/page", FLIGHT, "the same 4 KiB", Unit::Milliseconds),
    part("flight/direct", FLIGHT, "the same, with O_DIRECT where it is allowed", Unit::Milliseconds),
    part("start/cold", START, "empty cache, image on the disk", Unit::Milliseconds),
    part("start/warm", START, "again", Unit::Milliseconds),
    part("lan/mount", LAN, "until it is mounted", Unit::Milliseconds),
    part("lan/start", LAN, "until python3 -c 'print(1)' has said 1", Unit::Milliseconds),
    part("lan/tar", LAN, "until tar has read all of it", Unit::Seconds),
    part("region/mount", REGION, "until it is mounted", Unit::Milliseconds),
    part("region/start", REGION, "until python3 -c 'print(1)' has said 1", Unit::Milliseconds),
    part("region/tar", REGION, "until tar has read all of it", Unit::Seconds),
    part("wan/mount", WAN, "until it is mounted", Unit::Milliseconds),
    part("wan/start", WAN, "until python3 -c 'print(1)' has said 1", Unit::Milliseconds),
    part("wan/tar", WAN, "until tar has read all of it", Unit::Seconds),
    part("stall/median", STALL, "the median", Unit::Milliseconds),
    part("stall/p99", STALL, "one in a hundred takes longer", Unit::Milliseconds),
    part("rss/empty", RSS, "with an empty cache", Unit::Bytes),
    part("rss/disk", RSS, "from the disk cache", Unit::Bytes),
];

const fn part(name: &'static str, heading: &'static str, what: &'static str, unit: Unit) -> Part {
    Part { name, heading, what, unit }
}

/// The part of this name.
pub(super) fn named(name: &str) -> Option<&'static Part> {
    PARTS.iter().find(|part| part.name == name)
}
