//! FAT file systems in files, by mtools: nothing is mounted, and the same bytes each time.

use std::path::Path;
use std::process::Command;

use super::{EPOCH, MediaError};
use crate::tool;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// Sectors of the smallest FAT32 by the book; below, it is FAT12 or FAT16, which UEFI reads from removable media.
const FAT32: u64 = 66_600;
/// A number that Windows would take from the clock.
const SERIAL: &str = "11223344";

/// A file system that begins at a byte of a file.
pub struct Fat<'a> {
    file: &'a Path,
    offset_bytes: u64,
}

impl<'a> Fat<'a> {
    /// Makes one of so many sectors in a file that is long enough.
    pub fn format(file: &'a Path, offset_bytes: u64, sectors: u64) -> Result<Self, MediaError> {
        let fat = Self { file, offset_bytes };
        let length = sectors.to_string();
        let mut arguments = vec!["-T", &length, "-h", "255", "-s", "63", "-N", SERIAL, "-v", "ESP", "::"];
        if sectors >= FAT32 {
            arguments.extend(["-F", "-c", "1"]);
            arguments.rotate_right(3);
        }
        fat.run("mformat", &arguments)?;
        Ok(fat)
    }

    /// Copies a file to a path, and makes the folders of it.
    pub fn copy(&self, from: &Path, to: &str) -> Result<(), MediaError> {
        for (end, _) in to.match_indices('/') {
            self.run("mmd", &["-D", "s", &format!("::/{}", &to[..end])])?;
        }
        self.run("mcopy", &["-D", "o", &from.display().to_string(), &format!("::/{to}")])
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), MediaError> {
        let image = format!("{}@@{}", self.file.display(), self.offset_bytes);
        let mut command = Command::new(program);
        // mtools would otherwise judge the geometry of a disk that there is not.
        command.env("MTOOLS_SKIP_CHECK", "1").env("SOURCE_DATE_EPOCH", EPOCH).env("TZ", "UTC");
        tool::run(command.args(["-i", &image]).args(arguments))?;
        Ok(())
    }
}
