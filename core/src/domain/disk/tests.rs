use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::sys::loop_device::LoopDevice;
use crate::sys::tool::Tool;

async fn partition(disk: &LoopDevice, start: &str, end: &str) -> Result<(), DiskError> {
    let (start, end) = (start.parse().unwrap(), end.parse().unwrap());
    make_partition(&disk.name(), PartitionKind::Primary, &start, &end).await
}

async fn format(path: &Path) {
    Tool::new("mkfs.ext4").arg("-q").arg(path).run().await.unwrap();
}

#[tokio::test]
async fn a_disk_is_partitioned_formatted_mounted_and_taken_apart() {
    let disk = LoopDevice::new(64);
    make_table(&disk.name(), TableKind::Gpt, Force::No).await.unwrap();
    partition(&disk, "1MiB", "50%").await.unwrap();
    let path = disk.partition(1);
    format(&path).await;
    let folder = tempfile::tempdir().unwrap();
    mount(&path, folder.path(), "auto").await.unwrap();
    std::fs::write(folder.path().join("f"), "x").unwrap();

    // Another partition may be made beside it, and it is not taken from below the mount.
    partition(&disk, "50%", "90%").await.unwrap();
    for refused in [
        remove_partition(&disk.name(), 1).await,
        make_table(&disk.name(), TableKind::Gpt, Force::No).await,
        make_table(&disk.name(), TableKind::Gpt, Force::Yes).await,
    ] {
        assert!(matches!(refused, Err(DiskError::InUse(_, Use::Mounted(_)))), "{refused:?}");
    }
    remove_partition(&disk.name(), 2).await.unwrap();

    unmount(&path).await.unwrap();
    let twice = unmount(&path).await;
    assert!(matches!(twice, Err(DiskError::NotMounted(_))), "{twice:?}");
    remove_partition(&disk.name(), 1).await.unwrap();
    let twice = remove_partition(&disk.name(), 1).await;
    assert!(matches!(twice, Err(DiskError::NoPartition(_, 1))), "{twice:?}");
}

#[tokio::test]
async fn what_a_disk_carries_is_not_lost_without_force() {
    let disk = LoopDevice::new(32);
    format(Path::new(disk.path())).await;
    let refused = make_table(&disk.name(), TableKind::Msdos, Force::No).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("{} carries ext4: with force, that is lost", disk.name()));
    make_table(&disk.name(), TableKind::Msdos, Force::Yes).await.unwrap();
    assert_eq!(info(&disk.name(), "").await.unwrap()["table"], "msdos");
    let refused = make_table(&disk.name(), TableKind::Gpt, Force::No).await;
    assert!(matches!(refused, Err(DiskError::Signed { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_partition_needs_a_table_and_what_lies_in_its_place_is_named() {
    let disk = LoopDevice::new(32);
    let bare = partition(&disk, "1MiB", "20MiB").await.unwrap_err();
    assert_eq!(
        bare.to_string(),
        format!("{} has no partition table: make one with disk.mktable first", disk.name())
    );
    format(Path::new(disk.path())).await;
    let refused = partition(&disk, "1MiB", "20MiB").await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "{} has no partition table and carries ext4: disk.mktable with force makes one, and that is lost",
            disk.name()
        )
    );
    Tool::new("fsck.ext4").arg("-fn").arg(disk.path()).run().await.unwrap();
    for kind in [TableKind::Gpt, TableKind::Msdos] {
        make_table(&disk.name(), kind, Force::Yes).await.unwrap();
        partition(&disk, "1MiB", "20MiB").await.unwrap();
    }
}

#[tokio::test]
async fn a_partition_that_was_removed_and_is_made_again_has_what_it_had() {
    let disk = LoopDevice::new(64);
    for kind in [TableKind::Gpt, TableKind::Msdos] {
        make_table(&disk.name(), kind, Force::Yes).await.unwrap();
        partition(&disk, "1MiB", "33MiB").await.unwrap();
        format(&disk.partition(1)).await;
        remove_partition(&disk.name(), 1).await.unwrap();
        partition(&disk, "1MiB", "33MiB").await.unwrap();
        Tool::new("fsck.ext4").arg("-fn").arg(disk.partition(1)).run().await.unwrap();
    }
}

#[tokio::test]
async fn a_disk_that_is_swap_or_held_is_refused() {
    let disk = LoopDevice::new(32);
    Tool::new("mkswap").arg(disk.path()).run().await.unwrap();
    Tool::new("swapon").arg(disk.path()).run().await.unwrap();
    let refused = make_table(&disk.name(), TableKind::Gpt, Force::Yes).await;
    Tool::new("swapoff").arg(disk.path()).run().await.unwrap();
    assert!(matches!(refused, Err(DiskError::InUse(_, Use::Busy))), "{refused:?}");
    let held = std::fs::OpenOptions::new();
    let held = std::os::unix::fs::OpenOptionsExt::custom_flags(&mut { held }, libc::O_EXCL)
        .read(true)
        .open(disk.path());
    let refused = make_table(&disk.name(), TableKind::Gpt, Force::Yes).await;
    drop(held.unwrap());
    assert!(matches!(refused, Err(DiskError::InUse(_, Use::Busy))), "{refused:?}");
    // A child that another test forks holds the descriptor too, until it executes its program.
    for _ in 0..500 {
        match make_table(&disk.name(), TableKind::Gpt, Force::Yes).await {
            Err(DiskError::InUse(_, Use::Busy)) => tokio::time::sleep(Duration::from_millis(20)).await,
            made => return made.unwrap(),
        }
    }
    panic!("{} is held for ever", disk.name());
}

#[tokio::test]
async fn a_disk_and_its_partitions_are_described_in_bytes() {
    let disk = LoopDevice::new(64);
    let empty = info(&disk.name(), "").await.unwrap();
    assert_eq!((&empty["table"], &empty["free"]), (&Value::from(""), &Value::Array(Vec::new())));
    make_table(&disk.name(), TableKind::Gpt, Force::No).await.unwrap();
    partition(&disk, "1MiB", "33MiB").await.unwrap();
    format(&disk.partition(1)).await;
    let whole = info(&disk.name(), "").await.unwrap();
    assert_eq!(
        (&whole["table"], &whole["size"], &whole["blocksize"]),
        (&"gpt".into(), &(64 << 20).into(), &512.into())
    );
    assert_eq!((&whole["start"], &whole["end"]), (&0.into(), &((64 << 20) - 1).into()));
    let free: u64 = whole["free"].as_array().unwrap().iter().map(|gap| gap["size"].as_u64().unwrap()).sum();
    assert!((30 << 20..32 << 20).contains(&free), "{free}");
    let name = format!("{}p1", disk.name());
    let part = info(&disk.name(), &name).await.unwrap();
    assert_eq!((&part["start"], &part["size"]), (&(1 << 20).into(), &(32 << 20).into()));
    assert_eq!(
        (&part["fstype"], &part["table"], &part["name"]),
        (&"ext4".into(), &"".into(), &name.as_str().into())
    );
    let listed = list().await.unwrap();
    let listed = listed.iter().find(|record| record["name"] == disk.name().as_str()).unwrap();
    assert_eq!(listed["free"], whole["free"]);
    assert_eq!(listed["children"][0]["fstype"], "ext4");
}

#[tokio::test]
async fn what_is_not_there_or_something_else_is_named() {
    let disk = LoopDevice::new(64);
    make_table(&disk.name(), TableKind::Gpt, Force::No).await.unwrap();
    partition(&disk, "1MiB", "20MiB").await.unwrap();
    let part = format!("{}p1", disk.name());
    for missing in [
        make_table("sdzz", TableKind::Gpt, Force::Yes).await.unwrap_err(),
        info("sdzz", "").await.unwrap_err(),
        info(&disk.name(), "sdzz").await.unwrap_err(),
        mount(Path::new("/dev/sdzz"), Path::new("/tmp"), "").await.unwrap_err(),
        unmount(Path::new("/dev/sdzz")).await.unwrap_err(),
    ] {
        assert!(missing.to_string().starts_with("no block device"), "{missing}");
    }
    let part_as_disk = make_table(&part, TableKind::Gpt, Force::Yes).await;
    assert!(matches!(part_as_disk, Err(DiskError::Kind(..))), "{part_as_disk:?}");
    let folder = tempfile::tempdir().unwrap();
    for options in ["rw;id", "ro\nrw", "ro -t ext4", ",", "X-mount.mkdir", &"a".repeat(2000)] {
        let refused = mount(&disk.partition(1), folder.path(), options).await;
        assert!(matches!(refused, Err(DiskError::Options(_))), "{options:?}: {refused:?}");
    }
    let no_folder = mount(&disk.partition(1), &folder.path().join("x"), "auto").await;
    assert!(matches!(no_folder, Err(DiskError::NoFolder(_))), "{no_folder:?}");
    let unformatted = mount(&disk.partition(1), folder.path(), "auto").await.unwrap_err();
    let DiskError::Tool(_, crate::sys::tool::ToolError::Failed { stderr, .. }) = &unformatted else {
        panic!("{unformatted:?}")
    };
    assert!(stderr.contains("wrong fs type"), "{stderr}");
    let beyond = partition(&disk, "50MiB", "500MiB").await.unwrap_err();
    assert!(matches!(beyond, DiskError::Tool(..)), "{beyond:?}");
    remove_partition(&disk.name(), 1).await.unwrap();
}

#[tokio::test]
async fn every_mount_of_a_device_ends() {
    let disk = LoopDevice::new(32);
    format(Path::new(disk.path())).await;
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    mount(Path::new(disk.path()), a.path(), "ro,noatime").await.unwrap();
    mount(Path::new(disk.path()), b.path(), "ro").await.unwrap();
    assert_eq!(disk.device().mounts().unwrap(), [b.path(), a.path()]);
    unmount(Path::new(disk.path())).await.unwrap();
    assert_eq!(disk.device().mounts().unwrap(), Vec::<std::path::PathBuf>::new());
    mount(Path::new(disk.path()), a.path(), "ro").await.unwrap();
    unmount(a.path()).await.unwrap();
    let other = unmount(Path::new("/proc")).await;
    assert!(matches!(other, Err(DiskError::NotMounted(_))), "{other:?}");
}
