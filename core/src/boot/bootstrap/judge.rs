//! Whether a signed file is to be followed: not when it is for other machines or expired, and not when a newer one was seen.
//!
//! The one that is followed is kept in a folder. There a manager that is started anew finds it. A machine whose folder is in
//! memory forgets it with its end: until the first file of the next boot, it is protected by `expires` alone.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::document::{self, Arch, Document, DocumentError};
use super::signature::{self, Key, SignatureError};

/// A file and its signature, as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its signature.
    pub signature: String,
}

/// Why a file is not followed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Who signed it.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// What it says.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It is for other machines: somebody serves it by a wrong name.
    #[error("it is for {0}, and this machine is none")]
    Architecture(Arch),
    /// It is too old.
    #[error("it has expired at {0}: is the clock right?")]
    Expired(jiff::Timestamp),
    /// A newer one was seen.
    #[error("its sequence is {sequence}, and {seen} was seen before")]
    Replayed {
        /// Its number.
        sequence: u64,
        /// The highest.
        seen: u64,
    },
    /// Two files of one number.
    #[error("its sequence is {0}, and another file with that was seen before")]
    Twice(u64),
    /// It cannot be kept, so that an older one would be followed later.
    #[error("it cannot be kept in {}: {}", .0.display(), .1)]
    Kept(PathBuf, #[source] io::Error),
}

/// See the module's text.
pub struct Judge {
    key: Key,
    file: PathBuf,
    kept: Option<(Signed, Document)>,
}

impl Judge {
    /// With what was kept in `folder`, unless that does not hold any more.
    pub fn open(key: Key, folder: &Path) -> Self {
        let file = folder.join("bootstrap.yaml");
        let kept = read(&file).and_then(|signed| {
            let document = read_with(&key, &signed);
            let document = document.inspect_err(|e| tracing::warn!("the bootstrap file that was kept: {e}"));
            Some((signed, document.ok()?))
        });
        Self { key, file, kept }
    }

    /// The file that is followed. It may have expired since: it is followed until a newer one comes, as a machine without a
    /// server must go on, and who holds the server back could else take away what the operator has signed.
    pub fn kept(&self) -> Option<&Document> {
        self.kept.as_ref().map(|(_, document)| document)
    }

    /// Judges a file, and keeps it when it is to be followed from now on. Says whether it is new.
    pub fn accept(&mut self, signed: Signed, now: jiff::Timestamp) -> Result<bool, Refused> {
        let document = read_with(&self.key, &signed)?;
        if document.expires <= now {
            return Err(Refused::Expired(document.expires));
        }
        if let Some((seen, kept)) = &self.kept {
            let sequence = document.sequence;
            if sequence < kept.sequence {
                return Err(Refused::Replayed { sequence, seen: kept.sequence });
            }
            if sequence == kept.sequence {
                return if signed.bytes == seen.bytes { Ok(false) } else { Err(Refused::Twice(sequence)) };
            }
        }
        write(&self.file, &signed).map_err(|e| Refused::Kept(self.file.clone(), e))?;
        self.kept = Some((signed, document));
        Ok(true)
    }
}

/// What a file says to this machine, if the key has signed it.
fn read_with(key: &Key, signed: &Signed) -> Result<Document, Refused> {
    key.verify(&signed.bytes, &signed.signature)?;
    let document = Document::parse(&signed.bytes)?;
    match Some(document.arch) == Arch::own() {
        true => Ok(document),
        false => Err(Refused::Architecture(document.arch)),
    }
}

/// The length of the signature in digits, the signature, the file: one file, so that both are replaced at once.
fn write(path: &Path, signed: &Signed) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let head = format!("{}\n{}", signed.signature.len(), signed.signature);
    let new = path.with_extension("new");
    fs::write(&new, [head.as_bytes(), &signed.bytes].concat())?;
    fs::rename(new, path)
}

fn read(path: &Path) -> Option<Signed> {
    let most = document::FILE_MAX + signature::FILE_MAX + 16;
    let mut all = Vec::new();
    fs::File::open(path).ok()?.take(most as u64).read_to_end(&mut all).ok()?;
    let end = all.iter().position(|byte| *byte == b'\n')?;
    let length: usize = std::str::from_utf8(&all[..end]).ok()?.parse().ok()?;
    let signature = all.get(end + 1..(end + 1).checked_add(length)?)?;
    let signature = String::from_utf8(signature.to_vec()).ok()?;
    Some(Signed { bytes: all[end + 1 + length..].to_vec(), signature })
}
