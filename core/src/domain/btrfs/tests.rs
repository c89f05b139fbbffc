use std::fs;
use std::path::PathBuf;

use super::*;
use crate::sys::loop_device::LoopDevice;
use crate::sys::tool::Tool;

fn plan(label: &str, devices: &[&LoopDevice]) -> Plan {
    let devices = devices.iter().map(|d| d.path().to_owned()).collect();
    Plan {
        label: label.to_owned(),
        metadata: Profile::Unset,
        data: Profile::Unset,
        devices,
        force: Force::No,
    }
}

/// A mounted file system; unmounted before its disks are given back.
struct Mounted {
    folder: tempfile::TempDir,
}

impl Mounted {
    async fn new(disk: &LoopDevice) -> Self {
        let folder = tempfile::tempdir().unwrap();
        disk::mount(disk.path().as_ref(), folder.path(), "auto").await.unwrap();
        Mounted { folder }
    }

    fn join(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let ended = std::process::Command::new("umount").arg(self.folder.path()).status().unwrap();
        if !std::thread::panicking() {
            assert!(ended.success());
        }
    }
}

#[tokio::test]
async fn a_file_system_is_made_listed_and_described() {
    let (a, b) = (LoopDevice::new(128), LoopDevice::new(128));
    let name = format!("g8 test {}", std::process::id());
    create(&Plan { metadata: Profile::Raid1, data: Profile::Single, ..plan(&name, &[&a, &b]) })
        .await
        .unwrap();
    let found = list().await.unwrap().into_iter().find(|f| f.label == name).unwrap();
    assert_eq!((found.total_devices, found.devices.len()), (2, 2));
    assert_eq!(found.devices[0].size, 128 << 20);
    let mounted = Mounted::new(&a).await;
    let info = info(mounted.folder.path()).await.unwrap();
    assert_eq!(info.filesystem.uuid, found.uuid);
    assert_eq!((info.metadata.profile.as_str(), info.data.profile.as_str()), ("RAID1", "single"));
    assert!(info.metadata.used > 0 && info.metadata.used <= info.metadata.total, "{info:?}");
    let json = serde_json::to_value(&info).unwrap();
    for field in
        ["label", "uuid", "total_devices", "used", "devices", "data", "system", "metadata", "globalreserve"]
    {
        assert!(json.get(field).is_some(), "{field} is missing: {json}");
    }
    // Its second device is mounted nowhere, and in use all the same.
    let taken = create(&Plan { force: Force::Yes, ..plan("", &[&b]) }).await;
    assert!(matches!(taken, Err(BtrfsError::Disk(DiskError::InUse(..)))), "{taken:?}");
}

#[tokio::test]
async fn what_is_on_a_disk_is_not_lost_without_force() {
    let disk = LoopDevice::new(128);
    Tool::new("mkfs.ext4").args(["-q", disk.path()]).run().await.unwrap();
    let refused = create(&plan("x", &[&disk])).await;
    assert!(matches!(refused, Err(BtrfsError::Disk(DiskError::Signed { .. }))), "{refused:?}");
    create(&Plan { force: Force::Yes, ..plan("x", &[&disk]) }).await.unwrap();
}

#[tokio::test]
async fn devices_come_and_go_while_it_is_mounted() {
    let (a, b) = (LoopDevice::new(128), LoopDevice::new(128));
    create(&plan("", &[&a])).await.unwrap();
    let mounted = Mounted::new(&a).await;
    let names = [b.name()];
    add_devices(mounted.folder.path(), &names, Force::No).await.unwrap();
    assert_eq!(info(mounted.folder.path()).await.unwrap().filesystem.devices.len(), 2);
    let twice = add_devices(mounted.folder.path(), &names, Force::Yes).await;
    assert!(matches!(twice, Err(BtrfsError::Disk(DiskError::InUse(..)))), "{twice:?}");
    remove_devices(mounted.folder.path(), &names).await.unwrap();
    assert_eq!(info(mounted.folder.path()).await.unwrap().filesystem.devices.len(), 1);
    let last = remove_devices(mounted.folder.path(), &[a.name()]).await;
    assert!(matches!(last, Err(BtrfsError::Tool(..))), "{last:?}");
}

#[tokio::test]
async fn subvolumes_are_made_limited_copied_and_removed() {
    let disk = LoopDevice::new(256);
    create(&plan("", &[&disk])).await.unwrap();
    let mounted = Mounted::new(&disk).await;
    let top = mounted.folder.path();
    assert_eq!(subvolumes(top).await.unwrap(), []);
    let volume = mounted.join("a volume");
    make_subvolume(&volume).await.unwrap();
    let twice = make_subvolume(&volume).await;
    assert!(matches!(twice, Err(BtrfsError::Exists(_))), "{twice:?}");
    limit(&volume, "10M").await.unwrap();
    fs::write(volume.join("small"), vec![1; 1 << 20]).unwrap();
    let big = fs::write(volume.join("big"), vec![1; 40 << 20])
        .and_then(|()| fs::File::open(volume.join("big"))?.sync_all());
    assert!(big.is_err(), "more than the limit was written");
    snapshot(&volume, &mounted.join("copy"), true).await.unwrap();
    assert_eq!(fs::metadata(mounted.join("copy/small")).unwrap().len(), 1 << 20);
    assert!(fs::write(mounted.join("copy/x"), "").is_err(), "a read-only snapshot was written");
    snapshot(&volume, &mounted.join("other"), false).await.unwrap();
    let listed = subvolumes(top).await.unwrap();
    let seen: Vec<(&str, u64)> = listed.iter().map(|s| (s.path.as_str(), s.quota)).collect();
    // A snapshot inherits the limit.
    assert_eq!(seen, [("a volume", 10 << 20), ("copy", 10 << 20), ("other", 10 << 20)]);
    let json = serde_json::to_value(&listed[0]).unwrap();
    for field in ["ID", "Gen", "TopLevel", "Path", "Quota"] {
        assert!(json.get(field).is_some(), "{field} is missing: {json}");
    }
    limit(&volume, "none").await.unwrap();
    assert_eq!(subvolumes(top).await.unwrap()[0].quota, 0);
    for name in ["copy", "other", "a volume"] {
        remove_subvolume(&mounted.join(name)).await.unwrap();
    }
    let gone = remove_subvolume(&volume).await;
    assert!(matches!(gone, Err(BtrfsError::Missing(_))), "{gone:?}");
    let folder = mounted.join("folder");
    fs::create_dir(&folder).unwrap();
    let no_subvolume = remove_subvolume(&folder).await;
    assert!(matches!(no_subvolume, Err(BtrfsError::Tool(..))), "{no_subvolume:?}");
}

#[tokio::test]
async fn arguments_that_make_no_sense_are_refused() {
    let disk = LoopDevice::new(128);
    let twice = create(&plan("x", &[&disk, &disk])).await;
    let none = create(&plan("x", &[])).await;
    let label = create(&plan("a\nb", &[&disk])).await;
    let dash = create(&plan("-f", &[&disk])).await;
    let long = create(&plan(&"x".repeat(256), &[&disk])).await;
    for refused in [twice, none, label, dash, long] {
        assert!(matches!(refused, Err(BtrfsError::Arguments(_))), "{refused:?}");
    }
    for bad in ["", "x", "-1", "10GG", "1 2", "10GiB", "1.5G"] {
        let refused = limit(Path::new("/tmp"), bad).await;
        assert!(matches!(refused, Err(BtrfsError::Arguments(_))), "{bad:?}: {refused:?}");
    }
    for missing in
        [info(Path::new("/no/such")).await.unwrap_err(), subvolumes(Path::new("/no/such")).await.unwrap_err()]
    {
        assert!(matches!(missing, BtrfsError::Missing(_)), "{missing:?}");
    }
    let other = info(Path::new("/proc")).await;
    assert!(matches!(other, Err(BtrfsError::Tool(..))), "{other:?}");
    let too_many = remove_devices(Path::new("/tmp"), &vec!["sdzz".to_owned(); 1000]).await;
    assert!(matches!(too_many, Err(BtrfsError::Arguments(_))), "{too_many:?}");
}
