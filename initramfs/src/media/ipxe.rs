//! A small ISO that fetches all the rest: iPXE with a script. isolinux loads it for a BIOS; UEFI finds it in a FAT file
//! system, where it looks for `autoexec.ipxe`. It boots from a CD and from a USB stick.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::fat::{Fat, SECTOR};
use super::iso::hybrid;
use super::{BOOT_PROGRAM, MediaError, at};

/// Room for iPXE and its script: FAT12.
const FAT: u64 = 3 << 20;
/// isolinux' menu.
const MENU: &str =
    "SERIAL 0 115200\nDEFAULT ipxe\nPROMPT 0\nLABEL ipxe\n KERNEL /ipxe.krn\n INITRD /boot.ipx\n";

/// What the ISO is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// iPXE as a Linux kernel would be loaded, for a BIOS.
    pub bios: PathBuf,
    /// iPXE as an EFI program.
    pub efi: PathBuf,
    /// isolinux' loader.
    pub isolinux: PathBuf,
    /// What it loads first.
    pub ldlinux: PathBuf,
    /// Its boot sector for disks.
    pub boot_sector: PathBuf,
}

impl Parts {
    /// Those that [`copy`](Self::copy) left in a folder.
    pub fn of(folder: &Path) -> Self {
        let at = |name: &str| folder.join(name);
        Self {
            bios: at("ipxe.krn"),
            efi: at("ipxe.efi"),
            isolinux: at("isolinux.bin"),
            ldlinux: at("ldlinux.c32"),
            boot_sector: at("isohdpfx.bin"),
        }
    }

    /// Copies all parts into a folder, under names that do not change.
    pub fn copy(&self, folder: &Path) -> Result<(), MediaError> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        for (from, to) in self.all().into_iter().zip(Self::of(folder).all()) {
            fs::copy(from, to).map_err(at(from))?;
        }
        Ok(())
    }

    fn all(&self) -> [&PathBuf; 5] {
        [&self.bios, &self.efi, &self.isolinux, &self.ldlinux, &self.boot_sector]
    }
}

/// Makes the ISO in a folder for its work.
pub fn iso(parts: &Parts, script: &str, work: &Path, to: &Path) -> Result<(), MediaError> {
    let root = work.join("ipxe-iso");
    let boot = root.join("isolinux");
    fs::create_dir_all(&boot).map_err(at(&boot))?;
    for (path, text) in [(boot.join("isolinux.cfg"), MENU), (root.join("boot.ipx"), script)] {
        fs::write(&path, text).map_err(at(&path))?;
    }
    // isolinux' loader is changed by xorriso, so it is a copy.
    for (from, to) in [
        (&parts.isolinux, boot.join("isolinux.bin")),
        (&parts.ldlinux, boot.join("ldlinux.c32")),
        (&parts.bios, root.join("ipxe.krn")),
    ] {
        fs::copy(from, to).map_err(at(from))?;
    }
    let efi = root.join("efi.img");
    File::create(&efi).and_then(|file| file.set_len(FAT)).map_err(at(&efi))?;
    let fat = Fat::format(&efi, 0, FAT / SECTOR)?;
    fat.copy(&parts.efi, BOOT_PROGRAM)?;
    // UEFI is given it as it is; the name on the ISO is shortened by isolinux.
    fat.copy(&root.join("boot.ipx"), "autoexec.ipxe")?;
    hybrid(&root, &parts.boot_sector, to)
}
