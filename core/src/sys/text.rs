//! Small text files: those of the kernel and of the system are read, never more than a bound; the node's own are written.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Most that is read of one file; the longest ones list all sockets or all mounts.
const MAX: u64 = 16 << 20;

/// The whole file; bytes that are not UTF-8 become U+FFFD.
pub fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {MAX} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The one value of a file such as those of sysfs; `None` when it is not there or not to be had, as the speed of a link
/// that is down.
pub fn value<T: std::str::FromStr>(path: impl AsRef<Path>) -> Option<T> {
    read(path).ok()?.trim().parse().ok()
}

/// A file that only its owner reads, whole or as it was before.
pub fn write_private(path: &Path, content: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::options();
    file.create(true).truncate(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    file.open(&new)?.write_all(content.as_bytes())?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_file_is_refused() {
        assert_eq!(read("/dev/zero").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_value_that_is_not_there_is_none() {
        assert_eq!(value::<u32>("/sys/no/such/file"), None);
        assert_eq!(value::<u32>("/proc/sys/kernel/ostype"), None);
        assert_eq!(value::<String>("/proc/sys/kernel/ostype").as_deref(), Some("Linux"));
    }
}
