//! An ISO for both worlds: isolinux loads kernel and initramfs for a BIOS, and UEFI finds the UKI in a FAT file system. It
//! boots from a CD, and from a USB stick that it is written to as it is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::fat::{Fat, SECTOR};
use super::{BOOT_PROGRAM, EPOCH, MediaError, at};
use crate::tool;

/// What FAT takes for itself, and a bit.
const FAT_ROOM: u64 = 4 << 20;
/// Smallest file system: below, FAT32 has too few clusters.
const FAT_SMALLEST: u64 = 36 << 20;

/// What an ISO is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// The UKI.
    pub uki: PathBuf,
    /// isolinux' loader.
    pub isolinux: PathBuf,
    /// What it loads first.
    pub ldlinux: PathBuf,
    /// Its boot sector for disks.
    pub boot_sector: PathBuf,
    /// The kernel's arguments.
    pub arguments: String,
}

/// Makes the ISO in a folder for its work.
pub fn iso(parts: &Parts, work: &Path, to: &Path) -> Result<(), MediaError> {
    let root = work.join("iso");
    let boot = root.join("isolinux");
    fs::create_dir_all(&boot).map_err(at(&boot))?;
    let menu = format!(
        "SERIAL 0 115200\nDEFAULT g8os\nPROMPT 0\nLABEL g8os\n KERNEL /vmlinuz\n INITRD /initramfs\n APPEND {}\n",
        parts.arguments
    );
    let config = boot.join("isolinux.cfg");
    fs::write(&config, menu).map_err(at(&config))?;
    for (from, name) in [(&parts.kernel, "vmlinuz"), (&parts.initramfs, "initramfs")] {
        fs::hard_link(from, root.join(name))
            .or_else(|_| fs::copy(from, root.join(name)).map(drop))
            .map_err(at(from))?;
    }
    // isolinux' loader is changed by xorriso, so it is a copy.
    for (from, name) in [(&parts.isolinux, "isolinux.bin"), (&parts.ldlinux, "ldlinux.c32")] {
        fs::copy(from, boot.join(name)).map_err(at(from))?;
    }
    let efi = root.join("efi.img");
    let length = fs::metadata(&parts.uki).map_err(at(&parts.uki))?.len() + FAT_ROOM;
    let length = length.max(FAT_SMALLEST).next_multiple_of(1 << 20);
    File::create(&efi).and_then(|file| file.set_len(length)).map_err(at(&efi))?;
    Fat::format(&efi, 0, length / SECTOR)?.copy(&parts.uki, BOOT_PROGRAM)?;

    hybrid(&root, &parts.boot_sector, to)
}

/// Writes a folder as an ISO that has `isolinux/isolinux.bin` and `efi.img` in it.
pub fn hybrid(root: &Path, boot_sector: &Path, to: &Path) -> Result<(), MediaError> {
    let mut command = Command::new("xorriso");
    command.env("SOURCE_DATE_EPOCH", EPOCH).env("TZ", "UTC");
    command.args(["-as", "mkisofs", "-quiet", "-R", "-J", "-V", "G8OS", "-o"]).arg(to);
    command.args(["--set_all_file_dates", &format!("={EPOCH}")]);
    // For a BIOS, from a CD and from a disk.
    command.args(["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat"]);
    command.args(["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "-isohybrid-mbr"]);
    command.arg(boot_sector);
    // For UEFI, likewise.
    command.args(["-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot", "-isohybrid-gpt-basdat"]);
    tool::run(command.arg(root))?;
    Ok(())
}
