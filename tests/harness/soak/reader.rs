//! A reader that believes nothing: every byte is compared with the source.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};

use super::machine::Spot;
use super::report::Report;
use super::world::{Image, World};
use super::{DEADLINE, SplitMix64};

/// Most bytes of one read: few enough to lie in two of EROFS' requests at most, each of which has a deadline of its own.
const MOST: u64 = 60 << 10;
/// What a read may take: two deadlines, and what a crowded machine adds.
const LIMIT: Duration = Duration::from_secs(2 * DEADLINE + 15);

/// One thread's worth of reading at one place.
pub(super) struct Reader<'a> {
    spot: &'a Spot,
    image: &'a Image,
    seed: u64,
    /// Since when it waits, and for what.
    waits: Mutex<Option<(Instant, String)>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(world: &'a World, spot: &'a Spot, seed: u64) -> Reader<'a> {
        Reader { spot, image: &world.images[spot.image], seed, waits: Mutex::new(None) }
    }

    /// What it has been waiting for all this time.
    pub(super) fn hangs_for(&self, limit: Duration) -> Option<String> {
        let waits = self.waits.lock().expect("nothing in here panics");
        let (since, what) = waits.as_ref()?;
        (since.elapsed() > limit).then(|| format!("{what} for {:?}", since.elapsed()))
    }

    pub(super) fn read_until(&self, over: &AtomicBool, report: &Report) {
        let mut rng = SplitMix64::new(self.seed);
        while !over.load(SeqCst) && !report.has_violations() {
            match self.spot.mounted() {
                Some(time) => self.one(time, &mut rng, report),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
            std::thread::sleep(Duration::from_micros(rng.below(3000)));
        }
    }

    /// One read or listing of what is mounted since `time`.
    fn one(&self, time: u64, rng: &mut SplitMix64, report: &Report) {
        let (rel, expected) = &self.image.files[rng.below(self.image.files.len() as u64) as usize];
        let path = self.spot.dir.join(rel);
        let lists = rng.below(30) == 0;
        let from = rng.below(expected.len() as u64) as usize;
        let len = (expected.len() - from).min(1 + rng.below(MOST) as usize);
        let is_fresh = rng.below(2) == 0;
        *self.waits.lock().expect("nothing in here panics") =
            Some((Instant::now(), format!("{} bytes at {from} of {}", len, path.display())));
        let began = Instant::now();
        let outcome =
            if lists { list(&path).map(|()| None) } else { read(&path, from, len, is_fresh).map(Some) };
        let took = began.elapsed();
        *self.waits.lock().expect("nothing in here panics") = None;
        report.took(took);
        if took > LIMIT {
            report.violation(format!("{} took {took:?}: {outcome:?}", path.display()));
        }
        match outcome {
            Ok(Some(bytes)) if bytes == expected[from..from + len] => {
                report.counts.reads.add(1);
                report.counts.bytes.add(len as u64);
            }
            Ok(Some(_)) => report.violation(format!("WRONG BYTES: {len} at {from} of {}", path.display())),
            Ok(None) => report.counts.listings.add(1),
            // What was taken away meanwhile can fail in any way.
            Err(_) if self.spot.mounted() != Some(time) => report.counts.interrupted.add(1),
            Err(error) if !lists && is_trouble(&error) => report.failed(&error),
            Err(error) => report.violation(format!("{}: {error}", path.display())),
        }
    }
}

fn read(path: &Path, from: usize, len: usize, is_fresh: bool) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if is_fresh {
        // So that the daemon is asked.
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, from as u64)?;
    Ok(bytes)
}

/// The folder of a file has the file in it. Names are at hand whatever the sources do.
fn list(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    for entry in fs::read_dir(folder)? {
        if Some(&*entry?.file_name()) == path.file_name() {
            return Ok(());
        }
    }
    Err(io::Error::other("it is not in its folder"))
}

pub(super) fn is_trouble(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::ETIMEDOUT))
}
