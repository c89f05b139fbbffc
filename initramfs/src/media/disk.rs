//! A disk image for UEFI: GPT, and one EFI system partition with the UKI.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use super::fat::{Fat, SECTOR};
use super::{BOOT_PROGRAM, MediaError, at};
use crate::tool;

/// Where the partition begins, in sectors.
const START: u64 = 2048;
/// What GPT takes at the end, in sectors.
const TAIL: u64 = 33;
/// Room for a second UKI, and what FAT takes for itself.
const ROOM: u64 = 2;
/// Smallest image: below, FAT32 has too few clusters.
const SMALLEST: u64 = 64 << 20;
/// Sizes are multiples of this.
const STEP: u64 = 16 << 20;
/// The disk and its partition are known by numbers that are the same for each image.
const DISK: &str = "11111111-2222-3333-4444-555555555555";
const PARTITION: &str = "11111111-2222-3333-4444-555555555556";

/// Makes the image from a UKI.
pub fn disk(uki: &Path, to: &Path) -> Result<(), MediaError> {
    let content = std::fs::metadata(uki).map_err(at(uki))?.len();
    let size = (content * ROOM).max(SMALLEST).next_multiple_of(STEP);
    let file = File::create(to).map_err(at(to))?;
    file.set_len(size).map_err(at(to))?;
    drop(file);
    let partition = format!("1:{START}:0");
    let name = format!("1:{PARTITION}");
    // `-o` makes the table anew; with `-q` no partition comes.
    let arguments = ["-o", "-n", &partition, "-t", "1:EF00", "-c", "1:ESP", "-U", DISK, "-u", &name];
    let sgdisk = Path::new("/usr/sbin/sgdisk");
    let program = if sgdisk.exists() { sgdisk } else { Path::new("sgdisk") };
    tool::run(Command::new(program).args(arguments).arg(to))?;
    Fat::format(to, START * SECTOR, size / SECTOR - START - TAIL)?.copy(uki, BOOT_PROGRAM)
}
