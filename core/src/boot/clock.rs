//! The clock of a machine is no earlier than its image: one whose battery is empty begins in 1970 or 2000, and a bootstrap file that
//! expired since would be taken up.
//!
//! The manifest of the image says when its packages were locked. That bounds the clock from below and nothing else: no time is asked
//! of the network, where nobody has to be trusted.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// What its line begins with.
const WORD: &str = "made ";
/// Longest line that is looked at.
const LINE_MAX: u64 = 64;

/// Sets the clock to the time of the image if it is earlier. What somebody should know of it.
pub fn no_earlier_than_the_image(manifest: &Path) -> Option<String> {
    let made = match made(manifest) {
        Ok(made) => made?,
        Err(e) => return Some(format!("how old the image is, is not known: {}: {e}", manifest.display())),
    };
    let now = clock_gettime(ClockId::Realtime).tv_sec;
    let shown =
        |seconds| jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".into(), |t| t.to_string());
    (now < made).then(|| {
        let (was, is) = (shown(now), shown(made));
        match clock_settime(ClockId::Realtime, Timespec { tv_sec: made, tv_nsec: 0 }) {
            Ok(()) => format!(
                "the clock said {was}, before the image was made: it is set to {is}; is its battery empty?"
            ),
            Err(e) => {
                format!("the clock says {was}, before the image was made at {is}, and cannot be set: {e}")
            }
        }
    })
}

/// When the image was made; nothing where no manifest says it.
fn made(manifest: &Path) -> io::Result<Option<i64>> {
    let file = match File::open(manifest) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut line = String::new();
    BufReader::new(file.take(LINE_MAX)).read_line(&mut line)?;
    Ok(line.strip_prefix(WORD).and_then(|seconds| seconds.trim_end().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn the_first_line_of_the_manifest_says_how_old_the_image_is() {
        for (text, expected) in [
            ("made 1700000000\nkernel ab\n", Some(1_700_000_000)),
            ("made soon\n", None),
            ("kernel ab\nmade 1700000000\n", None),
            ("", None),
        ] {
            assert_eq!(made(of(text).path()).unwrap(), expected, "{text:?}");
        }
        assert_eq!(made(Path::new("/nowhere/manifest")).unwrap(), None);
        let folder = tempfile::tempdir().unwrap();
        assert!(no_earlier_than_the_image(folder.path()).unwrap().contains("is not known"));
    }

    #[test]
    fn a_clock_that_is_later_is_left_alone() {
        let before = clock_gettime(ClockId::Realtime).tv_sec;
        assert_eq!(no_earlier_than_the_image(of("made 1700000000\n").path()), None);
        assert!(clock_gettime(ClockId::Realtime).tv_sec >= before);
    }
}
