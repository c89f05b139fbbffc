//! Looks for `bootstrap.yaml` on the disks, sticks and CDs that are there when a machine boots: on each FAT and ISO 9660 file
//! system, in the order of the devices' names.
//!
//! A stick is somebody else's. Its file system is mounted read-only, without device files, programs and links, and nowhere:
//! no path leads to the mount, and it is gone with its descriptor. Each device is looked at once, for a bounded time, on a
//! thread of its own, as nothing ends a read of a broken one. What is plugged in after the boot is not looked at.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use tokio::sync::{oneshot, watch};

use super::{MediumError, Named, find_in, keep};
use crate::boot::network::plan::Endpoint;

/// How long devices may take to appear: disks start slowly, and sticks after their driver.
const WINDOW: Duration = Duration::from_secs(60);
/// How often new ones are looked for.
const AGAIN: Duration = Duration::from_secs(1);
/// How long one may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most devices that are looked at.
const DEVICES: usize = 64;
/// What tells of a file system: ISO 9660 begins at 32 KiB.
const HEAD: usize = 34 << 10;
/// What a stranger's file system may do here: nothing.
const NOTHING: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY
    .union(MountAttrFlags::MOUNT_ATTR_NOSUID)
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC)
    .union(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW);

/// Begins to look, and goes on in the background until a medium names a server, time is over, or nobody waits for it.
pub fn search(kept: PathBuf) -> watch::Receiver<Named> {
    let (named, seen) = watch::channel(Named::default());
    tokio::spawn(async move {
        tokio::select! {
            () = named.closed() => {}
            () = look(&named, &kept) => {}
        }
    });
    seen
}

async fn look(named: &watch::Sender<Named>, kept: &Path) {
    let began = Instant::now();
    let mut known = BTreeSet::new();
    while began.elapsed() < WINDOW {
        for device in devices(Path::new("/sys/class/block"), Path::new("/dev")) {
            if known.len() >= DEVICES || known.contains(&device) {
                continue;
            }
            let found = look_at(device.clone()).await;
            // The kernel shows a device before there is a file for it.
            if matches!(&found, Err(MediumError::Device(_, e)) if e.kind() == io::ErrorKind::NotFound) {
                continue;
            }
            if let Some(told) = told(&device, found, kept) {
                let is_named = told.server.is_some();
                named.send_replace(told);
                if is_named {
                    return;
                }
            }
            known.insert(device);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What there is to tell of a device. A broken one is none of the bootstrap file's trouble: most nodes have disks and no medium.
fn told(device: &Path, found: Result<Option<(Endpoint, String)>, MediumError>, kept: &Path) -> Option<Named> {
    match found {
        Ok(None) => None,
        Ok(Some((server, text))) => {
            tracing::info!("{} names the server of the bootstrap file: {server}", device.display());
            if let Err(e) = keep(kept, &text) {
                tracing::warn!("what {} says is not kept: {e}", device.display());
            }
            Some(Named { server: Some(server), trouble: None })
        }
        Err(e @ MediumError::Device(..)) => {
            tracing::warn!("{e}");
            None
        }
        Err(e @ (MediumError::Read(..) | MediumError::Long(_) | MediumError::Parse(..))) => {
            Some(Named { server: None, trouble: Some(e.to_string()) })
        }
    }
}

/// The files of the devices below a folder of sysfs that stand for hardware, in order; they lie in `dev`.
fn devices(sysfs: &Path, dev: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(sysfs).into_iter().flatten().flatten();
    let is_hardware = |link: &Path| {
        let to = fs::read_link(link).unwrap_or_default();
        !to.to_string_lossy().contains("/virtual/block/")
    };
    let has_room =
        |link: &Path| fs::read_to_string(link.join("size")).is_ok_and(|sectors| sectors.trim() != "0");
    let hardware = entries.filter(|entry| is_hardware(&entry.path()) && has_room(&entry.path()));
    hardware.map(|entry| dev.join(entry.file_name())).collect()
}

async fn look_at(device: PathBuf) -> Result<Option<(Endpoint, String)>, MediumError> {
    let (done, answer) = oneshot::channel();
    let slow = |kind, why| Err(MediumError::Device(device.clone(), io::Error::new(kind, why)));
    let looked = device.clone();
    // Not one of the runtime's own, which would wait for it at its end.
    let thread = std::thread::Builder::new().name("medium".into());
    if let Err(e) = thread.spawn(move || done.send(find_on(&looked))) {
        return Err(MediumError::Device(device, e));
    }
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(found)) => found,
        Ok(Err(_)) => slow(io::ErrorKind::Other, "it was not finished: its thread panicked"),
        Err(_) => slow(io::ErrorKind::TimedOut, "it does not answer"),
    }
}

/// The server that a device names; none when it has another file system, or no such file.
fn find_on(device: &Path) -> Result<Option<(Endpoint, String)>, MediumError> {
    let mut head = Vec::new();
    let read = File::open(device).and_then(|file| file.take(HEAD as u64).read_to_end(&mut head));
    match read {
        Ok(_) => {}
        Err(e) if e.raw_os_error() == Some(libc::ENOMEDIUM) => return Ok(None),
        Err(e) => return Err(MediumError::Device(device.into(), e)),
    }
    let Some(kind) = kind(&head) else { return Ok(None) };
    // Of a mount, what is missing is no device that comes later.
    let failed = |e: rustix::io::Errno| {
        MediumError::Device(device.into(), io::Error::other(format!("it cannot be mounted as {kind}: {e}")))
    };
    find_in(mounted(kind, device).map_err(failed)?, device)
}

/// The file system that begins like this, if a medium may have it.
fn kind(head: &[u8]) -> Option<&'static str> {
    let at = |place: usize, word: &[u8]| head.get(place..).is_some_and(|rest| rest.starts_with(word));
    if at(32_769, b"CD001") {
        // Also what was written from a CD onto a stick, which has a boot sector, too.
        Some("iso9660")
    } else if at(510, &[0x55, 0xaa]) && (at(54, b"FAT1") || at(82, b"FAT32")) {
        Some("vfat")
    } else {
        None
    }
}

/// The root of a device's file system.
fn mounted(kind: &str, device: &Path) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_flag(&context, "ro")?;
    fsconfig_set_string(&context, "source", device)?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, NOTHING)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    fn run(program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).output();
        let output = output.unwrap_or_else(|e| panic!("{program} (packages mtools, xorriso): {e}"));
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn file_systems_of_media_are_known_by_their_first_bytes_and_nothing_else_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("image");
        let name = file.to_str().unwrap();
        let is = || {
            let mut head = Vec::new();
            File::open(&file).unwrap().take(HEAD as u64).read_to_end(&mut head).unwrap();
            for cut in (0..head.len()).step_by(97) {
                kind(&head[..cut]);
            }
            kind(&head)
        };
        for (sectors, more) in [("2880", "-a"), ("32768", "-a"), ("131072", "-F")] {
            File::create(&file).unwrap().set_len(sectors.parse::<u64>().unwrap() * 512).unwrap();
            run("mformat", &["-i", name, "-T", sectors, "-h", "255", "-s", "63", more, "::"]);
            assert_eq!(is(), Some("vfat"), "{sectors} sectors");
        }
        let files = folder.path().join("files");
        fs::create_dir(&files).unwrap();
        fs::write(files.join("file"), "text").unwrap();
        fs::remove_file(&file).unwrap();
        run("xorriso", &["-as", "mkisofs", "-quiet", "-R", "-J", "-o", name, files.to_str().unwrap()]);
        assert_eq!(is(), Some("iso9660"));
        for other in [vec![], vec![0; HEAD], vec![0x55; HEAD], b"FAT32".to_vec()] {
            assert_eq!(kind(&other), None);
        }
    }

    #[test]
    fn hardware_is_looked_at_and_not_what_the_kernel_made_up_or_what_has_no_medium() {
        let sysfs = tempfile::tempdir().unwrap();
        for (name, place, sectors) in [
            ("sda", "pci0/ata1/block/sda", "2048"),
            ("sda1", "pci0/ata1/block/sda/sda1", "1024"),
            ("sdb", "pci0/usb1/block/sdb", "0"),
            ("loop0", "virtual/block/loop0", "2048"),
            ("nvme0n1", "virtual/nvme-subsystem/nvme-subsys0/nvme0n1", "2048"),
        ] {
            let device = sysfs.path().join("devices").join(place);
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("size"), format!("{sectors}\n")).unwrap();
            symlink(format!("devices/{place}"), sysfs.path().join(name)).unwrap();
        }
        let found = devices(sysfs.path(), Path::new("/dev"));
        assert_eq!(found, ["/dev/nvme0n1", "/dev/sda", "/dev/sda1"].map(PathBuf::from).into());
    }

    #[tokio::test]
    async fn what_is_no_medium_and_what_is_broken_names_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("device");
        fs::write(&file, vec![0; 4096]).unwrap();
        assert!(look_at(file.clone()).await.unwrap().is_none());
        // It begins like one, and that is all.
        let mut head = vec![0; 1024];
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        head[82..87].copy_from_slice(b"FAT32");
        fs::write(&file, head).unwrap();
        let error = look_at(file).await.unwrap_err().to_string();
        assert!(error.contains("it cannot be mounted as vfat"), "{error}");
        let missing = look_at(folder.path().join("missing")).await.unwrap_err();
        assert!(matches!(missing, MediumError::Device(_, e) if e.kind() == io::ErrorKind::NotFound));
    }
    #[test]
    fn a_broken_disk_is_no_trouble_of_the_bootstrap_file_and_a_broken_file_is() {
        let kept = tempfile::tempdir().unwrap();
        let device = Path::new("/dev/sda");
        let broken = || io::Error::from_raw_os_error(libc::EIO);
        assert_eq!(told(device, Err(MediumError::Device(device.into(), broken())), kept.path()), None);
        assert_eq!(told(device, Ok(None), kept.path()), None);
        let file = device.join("bootstrap.yaml");
        for error in [MediumError::Read(file.clone(), broken()), MediumError::Long(file)] {
            let told = told(device, Err(error), kept.path()).unwrap();
            assert!(told.server.is_none() && told.trouble.unwrap().contains("/dev/sda/bootstrap.yaml"));
        }
        let server: Endpoint = "https://boot.example.org/g8os".parse().unwrap();
        let found = Ok(Some((server.clone(), "url: https://boot.example.org/g8os".into())));
        let named = told(device, found, kept.path()).unwrap();
        assert_eq!((named.server.as_ref(), named.trouble), (Some(&server), None));
        assert_eq!(super::super::find(kept.path()).unwrap(), Some(server));
    }
}
