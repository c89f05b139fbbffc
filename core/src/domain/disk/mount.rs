//! Mounting block devices, by mount(8), which finds out what they carry.

use std::path::Path;
use std::time::Duration;

use super::{DiskError, find};
use crate::sys::tool::Tool;

/// A journal may have to be replayed, a cache to be written.
const DEADLINE: Duration = Duration::from_secs(120);
/// Longest options.
const MAX_OPTIONS: usize = 1024;

/// Mounts a device on a folder. `auto` among the options says nothing.
pub async fn mount(source: &Path, target: &Path, options: &str) -> Result<(), DiskError> {
    // Options are one word of mount(8), which no letter of theirs may leave.
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-=:,./+@%".contains(c);
    let unwanted = |option: &str| option.is_empty() || option.starts_with("X-") || option.starts_with("x-");
    let bad = !options.chars().all(plain) || options.len() > MAX_OPTIONS || options.split(',').any(unwanted);
    if bad && !options.is_empty() {
        return Err(DiskError::Options(options.chars().take(64).collect()));
    }
    let device = find(&source.to_string_lossy())?;
    if !tokio::fs::metadata(target).await.is_ok_and(|m| m.is_dir()) {
        return Err(DiskError::NoFolder(target.display().to_string()));
    }
    let options = if options.is_empty() { "auto" } else { options };
    let tool =
        Tool::new("mount").args(["-o", options, "--"]).arg(device.path()).arg(target).deadline(DEADLINE);
    let mounted = tool.run().await;
    mounted
        .map(drop)
        .map_err(|e| DiskError::Tool(format!("mount {} on {}", device.name(), target.display()), e))
}

/// Ends all mounts of a device, the latest first; or the mount at a folder.
pub async fn unmount(source: &Path) -> Result<(), DiskError> {
    let shown = source.display().to_string();
    let targets = match find(&shown) {
        Ok(device) => device.mounts().map_err(|e| DiskError::Io(shown.clone(), e))?,
        Err(_) if tokio::fs::metadata(source).await.is_ok_and(|m| m.is_dir()) => {
            let resolved =
                tokio::fs::canonicalize(source).await.map_err(|e| DiskError::Io(shown.clone(), e))?;
            let mounts = crate::sys::mount_table::mounts().map_err(|e| DiskError::Io(shown.clone(), e))?;
            let of_a_device = mounts
                .into_iter()
                .rev()
                .filter(|m| m.mountpoint == resolved && find(&String::from_utf8_lossy(&m.source)).is_ok());
            of_a_device.map(|m| m.mountpoint).take(1).collect()
        }
        Err(missing) => return Err(missing),
    };
    if targets.is_empty() {
        return Err(DiskError::NotMounted(shown));
    }
    for target in targets {
        let ended = Tool::new("umount").arg("--").arg(&target).deadline(DEADLINE).run().await;
        ended.map_err(|e| DiskError::Tool(format!("unmount {}", target.display()), e))?;
    }
    Ok(())
}
