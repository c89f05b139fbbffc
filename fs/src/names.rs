//! Names of this user for flists: one small file each, below `$XDG_DATA_HOME/g8os/names`.
//!
//! ```text
//! names/tag/debian+12      {"v":1,"kind":"tag","name":"debian/12","ref":"bafyrei...?gw=...","saved":1790000000}
//! names/ipns/example.org   the same for the last good address of a mutable name
//! ```
//!
//! A file is written aside, synced, and renamed over the old one: whoever reads, also after a crash, finds one address or the
//! other. No name is locked, and of two who write at once the later one wins. A file that says something else than its
//! place, or nothing that can be understood, is an error that names it, never an address.

mod tag;

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use g8_cache::BlockId;
use serde::{Deserialize, Serialize};

pub(crate) use tag::is_cid;
pub use tag::{BadTag, MAX_TAG, Tag};

use crate::reference::{Hints, MAX_REFERENCE, Reference, Target};

/// Version of the files.
const VERSION: u32 = 1;
/// Longest file.
const MAX_FILE: u64 = 2 * MAX_REFERENCE as u64;

/// What kind of name it is. Each has a folder of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One that the user gave: `flist tag`.
    Tag,
    /// A mutable name of the network, and where it last led.
    Ipns,
}

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Kind::Tag => "tag",
            Kind::Ipns => "ipns",
        }
    }
}

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The flist.
    pub id: BlockId,
    /// Where its blocks may be.
    pub hints: Hints,
    /// When that was written, in seconds since 1970.
    pub saved: u64,
}

impl Entry {
    /// An address that is known from now on.
    pub fn now(id: BlockId, hints: Hints) -> Entry {
        let saved = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        Entry { id, hints, saved }
    }
}

/// A file.
#[derive(Serialize, Deserialize)]
struct Saved {
    v: u32,
    kind: Kind,
    name: String,
    #[serde(rename = "ref")]
    reference: String,
    saved: u64,
}

/// Why names cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// A file is not what it should be.
    #[error("the name in {path} cannot be used: {what}; give it anew, or remove the file")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// No file can have this name.
    #[error("{0:?} cannot be kept as a name")]
    Unfit(String),
    /// The system refused.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

impl NamesError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NamesError {
        move |source| NamesError::Io { action, path: path.to_owned(), source }
    }
}

/// The names in a folder.
#[derive(Clone, Debug)]
pub struct Names {
    folder: PathBuf,
}

impl Names {
    /// Those in `folder`, which is made by the first one that is set.
    pub fn new(folder: &Path) -> Names {
        Names { folder: folder.to_owned() }
    }

    /// Those of this user: in `$XDG_DATA_HOME/g8os/names`, or below `~/.local/share`.
    pub fn of_user() -> Option<Names> {
        Some(Names { folder: crate::source::data_folder()?.join("names") })
    }

    /// What `name` leads to, if anybody gave it.
    pub fn get(&self, kind: Kind, name: &str) -> Result<Option<Entry>, NamesError> {
        let path = self.path(kind, name)?;
        match read(&path) {
            Ok(text) => {
                decode(kind, name, &text).map(Some).map_err(|what| NamesError::Damaged { path, what })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                Err(NamesError::Damaged { path, what: e.to_string() })
            }
            Err(e) => Err(NamesError::io("reading", &path)(e)),
        }
    }

    /// Has `name` lead there from now on, durably.
    pub fn set(&self, kind: Kind, name: &str, entry: &Entry) -> Result<(), NamesError> {
        let path = self.path(kind, name)?;
        let folder = self.folder.join(kind.folder());
        let reference = Reference { target: Target::Cid(entry.id), hints: entry.hints.clone() }.to_string();
        let saved = Saved { v: VERSION, kind, name: name.to_owned(), reference, saved: entry.saved };
        let write = || -> io::Result<()> {
            fs::create_dir_all(&folder)?;
            let mut file = crate::aside::create(&folder, "", Permissions::from_mode(0o600))?;
            serde_json::to_writer(&mut file, &saved)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|e| e.error)?;
            File::open(&folder)?.sync_all()
        };
        write().map_err(NamesError::io("writing", &path))
    }

    /// Forgets `name`; says whether it was there. It need not be readable.
    pub fn remove(&self, kind: Kind, name: &str) -> Result<bool, NamesError> {
        let path = self.path(kind, name)?;
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(NamesError::io("removing", &path)(e)),
        }
        let folder = self.folder.join(kind.folder());
        let synced = File::open(&folder).and_then(|folder| folder.sync_all());
        synced.map_err(NamesError::io("syncing", &folder))?;
        Ok(true)
    }

    /// All names of a kind, sorted, and what each leads to.
    #[expect(clippy::type_complexity, reason = "a name and what became of reading it")]
    pub fn list(&self, kind: Kind) -> Result<Vec<(String, Result<Entry, NamesError>)>, NamesError> {
        let folder = self.folder.join(kind.folder());
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(NamesError::io("listing", &folder)(e)),
        };
        let mut list = Vec::new();
        for entry in entries {
            let file = entry.map_err(NamesError::io("listing", &folder))?.file_name();
            let name = file.to_string_lossy().replace('+', "/");
            if name.starts_with('.') {
                continue;
            }
            match self.get(kind, &name) {
                // It went meanwhile.
                Ok(None) => {}
                Ok(Some(entry)) => list.push((name, Ok(entry))),
                Err(error) => list.push((name, Err(error))),
            }
        }
        list.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(list)
    }

    /// No name has a `+`, so that every name has a file of its own.
    fn path(&self, kind: Kind, name: &str) -> Result<PathBuf, NamesError> {
        let may = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/');
        let fits = (1..=253).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(may);
        match fits {
            true => Ok(self.folder.join(kind.folder()).join(name.replace('/', "+"))),
            false => Err(NamesError::Unfit(name.chars().filter(|c| !c.is_control()).take(80).collect())),
        }
    }
}

/// Not blocking, so that a pipe in the folder holds nobody up.
fn read(path: &Path) -> io::Result<String> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(invalid("it is not a file"));
    }
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE { Err(invalid("it is too long")) } else { Ok(text) }
}

fn decode(kind: Kind, name: &str, text: &str) -> Result<Entry, String> {
    let saved: Saved = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if saved.v != VERSION {
        return Err(format!("it has version {}, and {VERSION} is known", saved.v));
    }
    if (saved.kind, saved.name.as_str()) != (kind, name) {
        return Err("it is of another name".into());
    }
    match saved.reference.parse::<Reference>() {
        Ok(Reference { target: Target::Cid(id), hints }) => Ok(Entry { id, hints, saved: saved.saved }),
        Ok(_) => Err("it leads to a name".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
