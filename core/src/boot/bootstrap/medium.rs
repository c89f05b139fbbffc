//! Where the bootstrap file is: `bootstrap.yaml`, or `bootstrap_0.yaml`, in the configuration of the image names the server,
//! unless the kernel was told `bootstrap=`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use url::Url;

use super::document::DocumentError;
use crate::boot::network::plan::Endpoint;

/// What it may be called; the first one that is there counts.
const NAMES: [&str; 2] = ["bootstrap.yaml", "bootstrap_0.yaml"];
/// Longest file.
const FILE_MAX: u64 = 4096;

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
    /// It cannot be read.
    #[error("cannot read {}: {}", .0.display(), .1)]
    Read(PathBuf, #[source] io::Error),
    /// It makes no sense.
    #[error("{}, {}", .0.display(), .1)]
    Parse(PathBuf, #[source] DocumentError),
}

/// The server that a folder names; none when it has no such file.
pub fn find(folder: &Path) -> Result<Option<Endpoint>, MediumError> {
    for path in NAMES.map(|name| folder.join(name)) {
        let mut text = String::new();
        match File::open(&path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text)) {
            Ok(_) => {
                let medium: Result<Medium, _> = super::document::yaml(&text);
                return medium.map(|medium| Some(medium.url)).map_err(|e| MediumError::Parse(path, e));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(MediumError::Read(path, e)),
        }
    }
    Ok(None)
}

/// The file for this machine on a server.
pub fn file_at(server: &Endpoint) -> Url {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "i64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut url = server.url().clone();
    let folder = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{folder}/bootstrap_{arch}.yaml"));
    url
}
