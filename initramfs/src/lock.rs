//! Which version of which package an image is made of: `packages.lock`, made by `initramfs lock`, verified by a build.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What stands at the head of the file.
const HEAD: &str =
    "# The Debian packages of the images. Made by `make image-lock`; a build refuses all others.\n\n";
/// Most bytes of a package: the largest kernel has a tenth.
const PACKAGE_MAX: u64 = 1 << 30;
/// How far a lock may be ahead of the clock of who builds with it, in seconds: clocks differ a bit.
const AHEAD_MAX: u64 = 24 * 60 * 60;

/// The locked packages, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Release of Debian, as `bookworm`.
    pub release: String,
    /// When it was made, in seconds since 1970: no clock of a machine that runs the image is earlier.
    pub made: u64,
    /// All of them.
    #[serde(rename = "package")]
    pub packages: Vec<Package>,
}

/// One locked package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The name of its file, as apt gives it.
    pub file: String,
    /// How long the file is.
    pub size_bytes: u64,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
}

/// A lock file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be read or written.
    #[error("cannot read or write the lock {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{path} is no lock of packages: {fault}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        fault: String,
    },
}

impl Lock {
    /// Reads a lock file.
    pub fn load(path: &Path) -> Result<Self, LockError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| LockError::Io { path: path.into(), source })?;
        let fault = |fault: String| LockError::Parse { path: path.into(), fault };
        let lock: Self = toml::from_str(&text).map_err(|e| fault(e.to_string().trim().into()))?;
        match lock.packages.iter().find(|package| !package.is_sound()) {
            Some(package) => Err(fault(format!("its entry of {:?} is damaged", package.name))),
            None => Ok(lock),
        }
    }

    /// Writes it, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), LockError> {
        let failed = |source| LockError::Io { path: path.into(), source };
        let text = toml::to_string(self)
            .map_err(|e| LockError::Parse { path: path.into(), fault: e.to_string() })?;
        let new = path.with_extension("new");
        std::fs::write(&new, format!("{HEAD}{text}")).map_err(failed)?;
        std::fs::rename(&new, path).map_err(failed)
    }

    /// It is as old as another one when it has the same packages, unless that is of a time that has not come: whoever made it had
    /// a clock that was ahead.
    pub fn dated_as(&mut self, old: &Self) {
        if self.packages == old.packages && old.made <= self.made {
            self.made = old.made;
        }
    }

    /// Whether its time has not come by far: it would set the clocks of all machines ahead.
    pub fn is_ahead(&self, now: u64) -> bool {
        self.made > now.saturating_add(AHEAD_MAX)
    }

    /// The package of the kernel.
    pub fn kernel(&self) -> Option<&Package> {
        self.packages.iter().find(|package| is_kernel(&package.name))
    }
}

/// What the clock of this machine says, in seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `linux-image-6.12.95+deb12-amd64`, and not `linux-image-amd64`, which only depends on it.
pub fn is_kernel(name: &str) -> bool {
    name.strip_prefix("linux-image-").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

impl Package {
    /// Names become parts of paths and arguments of apt, so they are judged before.
    pub fn is_sound(&self) -> bool {
        let plain = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.:~_%".contains(&b))
        };
        let hash = self.sha256.len() == 64 && self.sha256.bytes().all(|b| b.is_ascii_hexdigit());
        hash && self.size_bytes <= PACKAGE_MAX
            && [&self.name, &self.version, &self.file].map(|t| plain(t)) == [true; 3]
    }

    /// Whether these bytes are the package.
    pub fn is_in(&self, path: &Path) -> io::Result<bool> {
        let mut file = std::fs::File::open(path)?;
        if file.metadata()?.len() != self.size_bytes {
            return Ok(false);
        }
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => hash.update(&buffer[..n]),
            }
        }
        Ok(hex(&hash.finalize()) == self.sha256.to_ascii_lowercase())
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package() -> Package {
        Package {
            name: "libc6".into(),
            version: "2.36-9+deb12u14".into(),
            file: "libc6_2.36-9+deb12u14_amd64.deb".into(),
            size_bytes: 3,
            sha256: hex(&Sha256::digest(b"abc")),
        }
    }

    #[test]
    fn a_lock_is_read_as_it_was_written() {
        let path = tempfile::tempdir().unwrap().keep().join("packages.lock");
        let lock = Lock { release: "bookworm".into(), made: 1_700_000_000, packages: vec![package()] };
        lock.save(&path).unwrap();
        assert_eq!(Lock::load(&path).unwrap(), lock);
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_lock_of_the_same_packages_keeps_its_date_unless_that_has_not_come() {
        for (old, now, packages, made) in [
            (100, 200, vec![package()], 100),
            (200, 200, vec![package()], 200),
            (300, 200, vec![package()], 200),
            (100, 200, Vec::new(), 200),
        ] {
            let old = Lock { release: "bookworm".into(), made: old, packages };
            let mut new = Lock { made: now, packages: vec![package()], ..old.clone() };
            new.dated_as(&old);
            assert_eq!(new.made, made, "{old:?}");
        }
    }

    #[test]
    fn a_package_that_leads_elsewhere_or_has_no_hash_is_refused() {
        assert!(package().is_sound());
        for (field, value) in [("file", "../x.deb"), ("name", "-o=x"), ("version", "1 2"), ("sha256", "abc")]
        {
            let mut bad = package();
            let target = match field {
                "file" => &mut bad.file,
                "name" => &mut bad.name,
                "version" => &mut bad.version,
                _ => &mut bad.sha256,
            };
            *target = value.into();
            assert!(!bad.is_sound(), "{field} {value}");
        }
    }

    #[test]
    fn bytes_that_are_not_the_package_are_told_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deb");
        for (bytes, right) in [("abc", true), ("abd", false), ("abcd", false), ("", false)] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(package().is_in(&path).unwrap(), right, "{bytes}");
        }
    }

    #[test]
    fn the_kernel_is_told_from_the_package_that_depends_on_it() {
        assert!(is_kernel("linux-image-6.12.95+deb12-amd64"));
        assert!(!is_kernel("linux-image-amd64") && !is_kernel("linux-base"));
    }
}
