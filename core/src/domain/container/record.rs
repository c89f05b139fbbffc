//! The records of containers: one file each, there from before anything is made until all is gone.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::image::Device;
use super::{ContainerError, Id, Wanted};

/// A container as it lies on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What it is.
    pub wanted: Wanted,
    /// The images that it uses, the first for its root, and their file systems.
    pub images: Vec<(String, Device)>,
    /// When it was made, in ms since 1970.
    pub started_ms: u64,
    /// The cgroup that keeps its limits, if it has any.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// Its layer on disk, if it has one.
    #[serde(default)]
    pub layer: Option<PathBuf>,
    /// Whether all of it is there.
    pub whole: bool,
    /// Whether somebody was told that it ends.
    #[serde(default)]
    pub ending: bool,
}

/// The records of a node.
#[derive(Debug)]
pub struct Records {
    folder: PathBuf,
    /// Held by who changes one: what is gone stays gone.
    turn: Mutex<()>,
}

impl Records {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, turn: Mutex::default() }
    }

    /// Writes one, as a whole or not at all.
    pub fn write(&self, id: Id, record: &Record) -> Result<(), ContainerError> {
        let _turn = self.turn.lock();
        self.write_here(id, record)
    }

    /// Writes down that a container ends, unless it is gone.
    pub fn end(&self, id: Id) -> Result<(), ContainerError> {
        let _turn = self.turn.lock();
        let path = self.path(id);
        let json = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            json => json,
        };
        let record = json.and_then(|json| Ok(serde_json::from_slice::<Record>(&json)?));
        let record = record.map_err(|e| ContainerError::Record(path, e))?;
        self.write_here(id, &Record { ending: true, ..record })
    }

    fn write_here(&self, id: Id, record: &Record) -> Result<(), ContainerError> {
        let path = self.path(id);
        let failed = |e| ContainerError::Record(path.clone(), e);
        let mut folder = DirBuilder::new();
        folder.recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
        let json = serde_json::to_vec(record).map_err(|e| failed(e.into()))?;
        let new = path.with_extension("new");
        let mut file = OpenOptions::new();
        // Variables may be secrets.
        file.create(true).truncate(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let written = file.open(&new).and_then(|mut file| file.write_all(&json));
        written.and_then(|()| fs::rename(&new, &path)).map_err(failed)
    }

    /// Forgets one.
    pub fn remove(&self, id: Id) {
        let _turn = self.turn.lock();
        match fs::remove_file(self.path(id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::error!("the record of container {id} cannot be removed: {e}");
            }
            _ => {}
        }
    }

    /// One that is there and can be read.
    pub fn read(&self, id: Id) -> Option<Record> {
        fs::read(self.path(id)).ok().and_then(|json| serde_json::from_slice(&json).ok())
    }

    /// All of them. What is no record is left alone, and said.
    pub fn all(&self) -> Vec<(Id, Record)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut records: Vec<_> = entries
            .filter_map(|entry| {
                let path = entry.path();
                let id: Id = path.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()?;
                let record = fs::read(&path).and_then(|json| Ok(serde_json::from_slice(&json)?));
                record
                    .inspect_err(|e| tracing::error!("{} is no record of a container: {e}", path.display()))
                    .ok()
                    .map(|record| (id, record))
            })
            .collect();
        records.sort_by_key(|(id, _)| *id);
        records
    }

    fn path(&self, id: Id) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Upper;
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_without_the_contents_of_files() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path().join("containers"));
        let wanted = Wanted { root: "a".into(), upper: Upper::Memory { bytes: 7 }, ..Wanted::default() };
        let images = vec![("a".into(), (0, 7))];
        let record =
            Record { wanted, images, started_ms: 1, cgroup: None, layer: None, whole: false, ending: false };
        let mut secret = record.clone();
        secret.wanted.files = [("/key".into(), "secret".into())].into();
        records.write(3, &secret).unwrap();
        assert!(!fs::read_to_string(records.path(3)).unwrap().contains("secret"));
        assert_eq!(records.all(), [(3, record.clone())]);
        records.end(3).unwrap();
        assert_eq!(records.all(), [(3, Record { ending: true, ..record })]);
        fs::write(folder.path().join("containers/4.json"), "{").unwrap();
        assert_eq!(records.all().len(), 1);
        records.remove(3);
        records.remove(3);
        // One that is gone meanwhile does not come back.
        records.end(3).unwrap();
        assert!(records.all().is_empty());
    }
}
