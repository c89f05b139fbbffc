//! Which server has the bootstrap file: the kernel was told `bootstrap=`, or else `bootstrap.yaml` (or `bootstrap_0.yaml`) names it,
//! in the configuration of the image or else on a medium: a USB stick, the ESP of a disk, a CD.
//!
//! A medium only says whom to ask. What the server answers is believed if the key in the image has signed it, so whoever plugs
//! in a stick can have nothing done that the operator has not signed.

mod disks;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use serde::Deserialize;
use tokio::sync::watch;
use url::Url;

use super::document::{Arch, DocumentError};
use crate::boot::network::plan::Endpoint;

/// What it may be called; the first one that is there counts.
const NAMES: [&str; 2] = ["bootstrap.yaml", "bootstrap_0.yaml"];
/// Longest file.
const FILE_MAX: usize = 4096;

/// Whom to ask, as far as anybody knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The server; none is asked when nobody names one.
    pub server: Option<Endpoint>,
    /// Why one that should name it does not.
    pub trouble: Option<String>,
}

/// The file on the medium.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Medium {
    /// Where the files of all architectures are.
    url: Endpoint,
}

/// Why nobody knows where the file is.
#[derive(Debug, thiserror::Error)]
pub enum MediumError {
    /// A device is broken, or what is on it. Whether it has such a file nobody knows.
    #[error("cannot look for a bootstrap file on {}: {}", .0.display(), .1)]
    Device(PathBuf, #[source] io::Error),
    /// It cannot be read.
    #[error("cannot read {}: {}", .0.display(), .1)]
    Read(PathBuf, #[source] io::Error),
    /// It is no file of this kind.
    #[error("{} has more than {FILE_MAX} bytes", .0.display())]
    Long(PathBuf),
    /// It makes no sense.
    #[error("{}, {}", .0.display(), .1)]
    Parse(PathBuf, #[source] DocumentError),
}

/// Whom to ask. Media are looked at in the background, and only when nobody else says it; what one says is kept in `kept`, for
/// the next manager: the stick may be gone by then.
pub fn named(told: Option<Endpoint>, image: &Path, kept: &Path) -> watch::Receiver<Named> {
    let kept = kept.join("medium");
    let known = match told {
        Some(server) => Ok(Some(server)),
        None => find(image).and_then(|found| found.map_or_else(|| find(&kept), |server| Ok(Some(server)))),
    };
    match known {
        Ok(None) => disks::search(kept),
        Ok(server) => watch::channel(Named { server, trouble: None }).1,
        Err(e) => watch::channel(Named { server: None, trouble: Some(e.to_string()) }).1,
    }
}

/// The server that a folder names; none when it has no such file.
pub fn find(folder: &Path) -> Result<Option<Endpoint>, MediumError> {
    match File::open(folder) {
        Ok(opened) => Ok(find_in(&opened, folder)?.map(|(server, _)| server)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(MediumError::Read(folder.into(), e)),
    }
}

/// The same in an open folder, with the text that says it. `shown` is for people.
fn find_in(folder: impl AsFd, shown: &Path) -> Result<Option<(Endpoint, String)>, MediumError> {
    for name in NAMES {
        let path = shown.join(name);
        match text(&folder, name) {
            Ok(text) if text.len() > FILE_MAX => return Err(MediumError::Long(path)),
            Ok(text) => {
                let medium: Result<Medium, _> = super::document::yaml(&text);
                let medium = medium.map_err(|e| MediumError::Parse(path, e))?;
                return Ok(Some((medium.url, text)));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(MediumError::Read(path, e)),
        }
    }
    Ok(None)
}

/// A file, up to a byte more than it may have. A link could lead out of the folder, and a pipe keep us waiting.
fn text(folder: impl AsFd, name: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file =
        openat2(folder, name, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH)?;
    let file = File::from(file);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    let mut text = String::new();
    file.take(FILE_MAX as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// Keeps what a medium said.
fn keep(folder: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let new = folder.join("new");
    fs::write(&new, text)?;
    fs::rename(new, folder.join(NAMES[0]))
}

/// The file for this machine on a server.
pub fn file_at(server: &Endpoint) -> Url {
    let arch = Arch::own().map_or_else(|| std::env::consts::ARCH.into(), |arch| arch.to_string());
    let mut url = server.url().clone();
    let folder = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{folder}/bootstrap_{arch}.yaml"));
    url
}
