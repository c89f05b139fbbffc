//! The files that callers hold open.
//!
//! A file is known by a name that cannot be guessed, for as long as it is used: what nobody touched for [`IDLE`] is closed
//! by a task that lives as long as there are files. Two callers of one file take turns.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use tokio::runtime::Handle;

use super::{FilesystemError, OpenMode};
use crate::sys::text;

/// Most bytes that one read returns.
pub const BLOCK: usize = 512 * 1024;
/// Most files that are open at once.
const MAX_OPEN: usize = 1024;
/// After this long without use a file is closed.
const IDLE: Duration = Duration::from_secs(300);
/// How often the files are looked through; a file lives at most this much longer.
const ROUND: Duration = Duration::from_secs(15);

/// The open files of all callers.
#[derive(Debug)]
pub struct Files {
    table: Mutex<Table>,
    /// Most that are open at once.
    most: usize,
    idle: Duration,
    round: Duration,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<String, Slot>,
    /// A task closes what is idle.
    swept: bool,
}

#[derive(Debug)]
struct Slot {
    file: Arc<Mutex<File>>,
    used: Instant,
}

impl Default for Files {
    fn default() -> Self {
        Files { table: Mutex::default(), most: MAX_OPEN, idle: IDLE, round: ROUND }
    }
}

impl Files {
    /// Those of a container.
    pub fn bounded(most: usize) -> Arc<Self> {
        Arc::new(Files { most, ..Files::default() })
    }

    /// Opens a file and returns its name.
    pub fn open(
        self: &Arc<Self>,
        path: &Path,
        mode: OpenMode,
        permissions: Mode,
    ) -> Result<String, FilesystemError> {
        self.keep(open_file(path, mode, permissions)?)
    }

    /// Keeps an open file and returns its name.
    pub fn keep(self: &Arc<Self>, file: File) -> Result<String, FilesystemError> {
        let path = Path::new("the file");
        let name = text::value::<String>("/proc/sys/kernel/random/uuid")
            .ok_or_else(|| FilesystemError::io("open", path)(io::Error::other("the kernel names no file")))?;
        let slot = Slot { file: Arc::new(Mutex::new(file)), used: Instant::now() };
        let mut table = self.table.lock();
        if table.open.len() >= self.most {
            return Err(FilesystemError::TooManyOpen(self.most));
        }
        table.open.insert(name.clone(), slot);
        if !std::mem::replace(&mut table.swept, true) {
            Handle::current().spawn(sweep(Arc::downgrade(self), self.round));
        }
        Ok(name)
    }

    /// The next bytes, at most [`BLOCK`]; none at the end.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, FilesystemError> {
        let file = self.get(name)?;
        let read = read_block(&file.lock());
        read.map_err(FilesystemError::io("read", Path::new(name)))
    }

    /// The file itself, for somebody else to read and write.
    pub fn lend(&self, name: &str) -> Result<OwnedFd, FilesystemError> {
        let file = self.get(name)?;
        let lent = file.lock().try_clone();
        lent.map(OwnedFd::from).map_err(FilesystemError::io("lend", Path::new(name)))
    }

    /// Writes all of the bytes.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), FilesystemError> {
        let file = self.get(name)?;
        let written = (&*file.lock()).write_all(bytes);
        written.map_err(FilesystemError::io("write", Path::new(name)))
    }

    /// Closes a file. What the disk could not take of it is reported here, if the file system says so at all.
    pub fn close(&self, name: &str) -> Result<(), FilesystemError> {
        let slot = self.table.lock().open.remove(name).ok_or_else(|| self.not_open(name))?;
        // Somebody may still be reading: the file is closed after the last of us.
        let Some(file) = Arc::into_inner(slot.file) else { return Ok(()) };
        let fd: OwnedFd = file.into_inner().into();
        // SAFETY: the descriptor is ours alone, and is not used again.
        let closed = unsafe { libc::close(std::os::fd::IntoRawFd::into_raw_fd(fd)) };
        if closed == 0 {
            return Ok(());
        }
        Err(FilesystemError::io("close", Path::new(name))(io::Error::last_os_error()))
    }

    /// Closes all.
    pub fn close_all(&self) {
        // A close may wait for a disk.
        let open = std::mem::take(&mut self.table.lock().open);
        drop(open);
    }

    fn get(&self, name: &str) -> Result<Arc<Mutex<File>>, FilesystemError> {
        let mut table = self.table.lock();
        let slot = table.open.get_mut(name).ok_or_else(|| self.not_open(name))?;
        slot.used = Instant::now();
        Ok(slot.file.clone())
    }

    fn not_open(&self, name: &str) -> FilesystemError {
        FilesystemError::NotOpen(name.chars().take(64).collect(), self.idle)
    }

    /// Closes what is idle, and says whether anything is left.
    fn close_idle(&self) -> bool {
        let now = Instant::now();
        // A file that is read or written at this moment is in use, however long that takes.
        let in_use = |slot: &Slot| Arc::strong_count(&slot.file) > 1;
        let mut table = self.table.lock();
        let idle: Vec<String> = table
            .open
            .iter()
            .filter(|(_, slot)| now.duration_since(slot.used) >= self.idle && !in_use(slot))
            .map(|(name, _)| name.clone())
            .collect();
        let closed: Vec<Slot> = idle.iter().filter_map(|name| table.open.remove(name)).collect();
        table.swept = !table.open.is_empty();
        let left = table.swept;
        // A close may wait for a disk.
        drop(table);
        drop(closed);
        left
    }
}

/// Opens a file, or a device.
pub fn open_file(path: &Path, mode: OpenMode, permissions: Mode) -> Result<File, FilesystemError> {
    // Neither a FIFO nor a terminal that nobody is at may hold us; on files it changes nothing (open(2)).
    let always = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let failed = FilesystemError::io("open", path);
    let fd = open(path, mode.flags() | always, permissions).map_err(|e| failed(e.into()))?;
    check_kind(path, &fd)?;
    Ok(fd.into())
}

/// The next bytes of a file, at most [`BLOCK`]; none at its end.
pub fn read_block(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match file.take(BLOCK as u64).read_to_end(&mut bytes) {
        // A terminal has no more bytes for now; what came before is an answer.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock && !bytes.is_empty() => Ok(bytes),
        Err(e) => Err(e),
        Ok(_) => Ok(bytes),
    }
}

async fn sweep(files: Weak<Files>, round: Duration) {
    loop {
        tokio::time::sleep(round).await;
        let Some(files) = files.upgrade() else { return };
        match tokio::task::spawn_blocking(move || files.close_idle()).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tracing::error!(%error, "idle files stay open for another round"),
        }
    }
}

fn check_kind(path: &Path, fd: &OwnedFd) -> Result<(), FilesystemError> {
    let stat = fstat(fd).map_err(|e| FilesystemError::io("open", path)(e.into()))?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::BlockDevice | FileType::CharacterDevice => return Ok(()),
        FileType::Directory => "a folder",
        FileType::Fifo => "a FIFO",
        _ => "no file",
    };
    Err(FilesystemError::NoFile(path.to_owned(), kind))
}

#[cfg(test)]
mod tests;
