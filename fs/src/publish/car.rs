//! Publishing into a `car:` archive: written aside, synced, and renamed over what was there. Depth first, each block once, so
//! the same flist is always the same file.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use futures::stream::StreamExt;
use tempfile::NamedTempFile;

use super::plan::Plan;
use super::{Done, Objects, PublishError};
use crate::car::Writer;

/// Bytes written at once.
const BUFFER: usize = 1 << 20;

pub(super) async fn publish(plan: &Plan, objects: &Objects, path: &Path) -> Result<Done, PublishError> {
    let failed = |error: io::Error| PublishError::Archive(path.to_owned(), error);
    let file = aside(path).map_err(failed)?;
    let mut archive = Writer::new(BufWriter::with_capacity(BUFFER, file), &plan.roots()).map_err(failed)?;
    let mut blocks = objects.stream(plan.root_first());
    let mut done = Done::default();
    while let Some(block) = blocks.next().await {
        let block = block?;
        let bytes = block.bytes().len() as u64;
        let write = move || archive.put(&block).map(|()| archive);
        archive = tokio::task::spawn_blocking(write).await?.map_err(failed)?;
        done.sent += 1;
        done.sent_bytes += bytes;
        objects.progress.arrived(bytes);
    }
    if done.sent != plan.len() as u64 {
        return Err(PublishError::Abandoned(format!("car:{}", path.display())));
    }
    let target = path.to_owned();
    let finish = move || -> io::Result<()> {
        let file = archive.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        file.persist(&target).map_err(|error| error.error)?;
        File::open(folder(&target))?.sync_all()
    };
    tokio::task::spawn_blocking(finish).await?.map_err(failed)?;
    Ok(done)
}

/// A file beside `path`, which goes away unless it is given its name.
fn aside(path: &Path) -> io::Result<NamedTempFile> {
    match fs::symlink_metadata(path) {
        // To rename over a device or a pipe would be no writing to it.
        Ok(there) if !there.is_file() => return Err(io::Error::other("something that is no file is there")),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // As any new file: the umask takes away what it should.
    crate::aside::create(folder(path), ".car", Permissions::from_mode(0o666))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
