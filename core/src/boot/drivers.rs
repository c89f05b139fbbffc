//! Drivers: every device that the kernel has found says by its `modalias` which modules fit, and modprobe loads them. Drivers
//! find more devices, so that is repeated until there is nothing new.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::StageError;
use crate::sys::tool::{Tool, ToolError};

/// A bus behind a bus behind a bus: no machine is deeper.
const ROUNDS: usize = 8;
/// Most devices that are looked at.
const DEVICES: usize = 65_536;
/// Names for one modprobe.
const AT_ONCE: usize = 256;
/// How long it may take: some devices are slow to answer.
const DEADLINE: Duration = Duration::from_secs(60);

/// Loads what fits.
pub async fn load() -> Result<String, StageError> {
    let mut known = BTreeSet::new();
    for _ in 0..ROUNDS {
        let found = tokio::task::spawn_blocking(|| aliases(Path::new("/sys/devices"))).await;
        let found = found.map_err(|_| StageError::Stopped)?;
        let new: Vec<String> = found.difference(&known).cloned().collect();
        if new.is_empty() {
            break;
        }
        for some in new.chunks(AT_ONCE) {
            // Devices without a driver are common, and modprobe calls them a failure.
            match Tool::new("modprobe")
                .args(["-a", "-b", "-q", "--"])
                .args(some)
                .deadline(DEADLINE)
                .run()
                .await
            {
                Ok(_) => {}
                Err(ToolError::Failed { stderr, .. }) => tracing::debug!("modprobe: {stderr}"),
                Err(e) => return Err(e.into()),
            }
        }
        known.extend(new);
    }
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default().lines().count();
    Ok(format!("{modules} modules for {} kinds of devices", known.len()))
}

/// The aliases of all devices below a folder of sysfs.
fn aliases(folder: &Path) -> BTreeSet<String> {
    let mut aliases = BTreeSet::new();
    let mut folders = vec![folder.to_path_buf()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        // A device that went away meanwhile has nothing to say.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && seen < DEVICES => {
                    seen += 1;
                    folders.push(entry.path());
                }
                Ok(kind) if kind.is_file() && entry.file_name() == "modalias" => {
                    let alias = fs::read_to_string(entry.path()).unwrap_or_default();
                    aliases.extend(Some(alias.trim().to_owned()).filter(|alias| !alias.is_empty()));
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    aliases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_device_is_named_once_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        for device in ["pci0/00:01", "pci0/00:02", "pci0/00:02/virtio0"] {
            fs::create_dir_all(folder.path().join(device)).unwrap();
        }
        let alias =
            |device: &str, text: &str| fs::write(folder.path().join(device).join("modalias"), text).unwrap();
        alias("pci0/00:01", "pci:v1\n");
        alias("pci0/00:02", "pci:v1\n");
        alias("pci0/00:02/virtio0", "virtio:d1\n");
        alias("pci0", "\n");
        std::os::unix::fs::symlink(folder.path(), folder.path().join("pci0/loop")).unwrap();
        assert_eq!(aliases(folder.path()).into_iter().collect::<Vec<_>>(), ["pci:v1", "virtio:d1"]);
        assert!(aliases(&folder.path().join("absent")).is_empty());
    }
}
