//! `filesystem.*`: files and folders of the node.

mod open;
mod path;

use std::io;

pub use open::{Close, Open, Read, Write};
pub use path::{Chmod, Chown, Exists, List, Mkdir, Move, Remove};

use super::CommandError;
use crate::domain::filesystem::FilesystemError;

impl From<FilesystemError> for CommandError {
    fn from(error: FilesystemError) -> Self {
        let message = error.to_string();
        match error {
            FilesystemError::Io(_, _, source) => by_kind(message, source),
            FilesystemError::Partly { source, .. } => CommandError::internal(message).because(source),
            FilesystemError::NotOpen(..) => CommandError::not_found(message),
            FilesystemError::TooManyOpen(_) => CommandError::unavailable(message),
            FilesystemError::NoFile(..)
            | FilesystemError::TooManyEntries(..)
            | FilesystemError::Root(_)
            | FilesystemError::NoName(..) => CommandError::bad_request(message),
            FilesystemError::Mounted { .. } => CommandError::precondition(message),
        }
    }
}

fn by_kind(message: String, source: io::Error) -> CommandError {
    use io::ErrorKind as Kind;
    let error = match source.kind() {
        Kind::NotFound => CommandError::not_found(message),
        Kind::AlreadyExists | Kind::DirectoryNotEmpty => CommandError::conflict(message),
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem | Kind::ResourceBusy | Kind::CrossesDevices => {
            CommandError::precondition(message)
        }
        Kind::NotADirectory | Kind::IsADirectory | Kind::InvalidInput | Kind::InvalidFilename => {
            CommandError::bad_request(message)
        }
        _ => CommandError::internal(message),
    };
    error.because(source)
}
