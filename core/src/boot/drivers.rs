//! Drivers: every device that the kernel has found says by its `modalias` which modules fit, and modprobe loads them. Drivers
//! find more devices, so that is repeated until there is nothing new. Those of NICs come first.

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
        // The network is searched meanwhile, and all else has what that leaves of the processor.
        let (nics, others): (Vec<_>, Vec<_>) = new.iter().partition(|alias| is_nic(alias));
        modprobe(Tool::new("modprobe"), &nics).await?;
        modprobe(Tool::new("modprobe").background(), &others).await?;
        known.extend(new);
    }
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default().lines().count();
    Ok(format!("{modules} modules for {} kinds of devices", known.len()))
}

async fn modprobe(modprobe: Tool, aliases: &[&String]) -> Result<(), ToolError> {
    for some in aliases.chunks(AT_ONCE) {
        let modprobe = modprobe.clone().args(["-a", "-b", "-q", "--"]).args(some);
        match modprobe.deadline(DEADLINE).run().await {
            Ok(_) => {}
            // Devices without a driver are common, and modprobe calls them a failure.
            Err(ToolError::Failed { status, stderr, .. }) if status.code() == Some(1) => {
                tracing::debug!("modprobe: {stderr}");
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Whether it is that of a NIC, as far as buses tell: the class of PCI devices, the kind of virtio devices.
fn is_nic(alias: &str) -> bool {
    alias.starts_with("pci:") && alias.contains("bc02") || alias.starts_with("virtio:d00000001v")
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
    fn nics_are_told_by_their_bus() {
        for (alias, is) in [
            ("pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00", true),
            ("virtio:d00000001v00001AF4", true),
            ("virtio:d00000002v00001AF4", false),
            ("pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", false),
            ("acpi:PNP0501:", false),
        ] {
            assert_eq!(is_nic(alias), is, "{alias}");
        }
    }

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
