//! Drivers: every device that the kernel has found says by its `modalias` which modules fit, and modprobe loads them. Drivers
//! find more devices, so that is repeated until there is nothing new. Those of NICs come first, until there is no further one.
//!
//! A driver that does not answer keeps no other from being loaded: what modprobe does not do at once is asked for one by one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::StageError;
use crate::sys::tool::{Tool, ToolError};

/// A bus behind a bus behind a bus: no machine is deeper. NICs and others take turns in each.
const ROUNDS: usize = 16;
/// Most devices that are looked at.
const DEVICES: usize = 65_536;
/// Names for one modprobe.
const AT_ONCE: usize = 256;
/// How long it may take: some devices are slow to answer.
const DEADLINE: Duration = Duration::from_secs(60);
/// So many drivers that do not answer are waited for, each for all of its time. Then only those of NICs are still asked for
/// one by one.
const FAILURES: usize = 8;

/// Loads what fits.
pub async fn load() -> Result<String, StageError> {
    let modprobe = Tool::new("modprobe").deadline(DEADLINE);
    let mut drivers = Drivers { modprobe, failed: Vec::new() };
    let kinds = drivers.load(Path::new("/sys/devices")).await?;
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default().lines().count();
    let loaded = format!("{modules} modules for {kinds} kinds of devices");
    match drivers.failed.into_iter().next() {
        None => Ok(loaded),
        Some((alias, why)) => Err(StageError::Drivers { loaded, alias, why }),
    }
}

/// Has modules loaded, whatever some of them do.
struct Drivers {
    modprobe: Tool,
    /// The kinds of devices whose modules were not, and why.
    failed: Vec<(String, ToolError)>,
}

impl Drivers {
    /// Loads the modules of all devices in this folder of sysfs, and of those that they find; how many kinds there are.
    async fn load(&mut self, devices: &Path) -> Result<usize, StageError> {
        let mut known = BTreeSet::new();
        for _ in 0..ROUNDS {
            let devices: PathBuf = devices.into();
            let found = tokio::task::spawn_blocking(move || aliases(&devices)).await;
            let found = found.map_err(|_| StageError::Stopped)?;
            let new: Vec<String> = found.difference(&known).cloned().collect();
            let (nics, others): (Vec<_>, Vec<_>) = new.into_iter().partition(|alias| is_nic(alias));
            // The network is searched meanwhile: others wait until there is no further NIC, and have what that leaves of the
            // processor.
            let (modprobe, those) = if nics.is_empty() {
                (self.modprobe.clone().background(), others)
            } else {
                (self.modprobe.clone(), nics)
            };
            if those.is_empty() {
                break;
            }
            self.modprobe(&modprobe, &those).await;
            known.extend(those);
        }
        Ok(known.len())
    }

    async fn modprobe(&mut self, modprobe: &Tool, aliases: &[String]) {
        let mut given_up = 0;
        for some in aliases.chunks(AT_ONCE) {
            if ask(modprobe, some).await.is_ok() {
                continue;
            }
            for alias in some {
                if self.failed.len() >= FAILURES && !is_nic(alias) {
                    given_up += 1;
                    continue;
                }
                if let Err(e) = ask(modprobe, std::slice::from_ref(alias)).await {
                    tracing::warn!("no driver for {alias}: {e}");
                    self.failed.push((alias.clone(), e));
                }
            }
        }
        if given_up > 0 {
            tracing::warn!("{given_up} more kinds of devices may have no driver: too many do not answer");
        }
    }
}

async fn ask(modprobe: &Tool, aliases: &[String]) -> Result<(), ToolError> {
    match modprobe.clone().args(["-a", "-b", "-q", "--"]).args(aliases).run().await {
        Ok(_) => Ok(()),
        // Devices without a driver are common, and modprobe calls them a failure.
        Err(ToolError::Failed { status, stderr, .. }) if status.code() == Some(1) => {
            tracing::debug!("modprobe: {stderr}");
            Ok(())
        }
        Err(e) => Err(e),
    }
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

    /// A modprobe that writes down what it is asked for, and what it finds; that hangs with one kind of device and is killed
    /// with another.
    fn modprobe(folder: &Path) -> Drivers {
        let script = folder.join("modprobe");
        let text = format!(
            "#!/bin/sh\ncd {}\nshift 4\necho \"$@\" >> asked\n\
             case \" $* \" in *' pci:dies '*) kill -9 $$ ;; *' pci:hangs '*) sleep 60 ;; esac\n\
             case \" $* \" in *' pci:bridge '*) mkdir -p devices/nic; echo pci:v1bc02 > devices/nic/modalias ;; esac\n\
             exit 1\n",
            folder.display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let modprobe = Tool::new(script.to_str().unwrap()).deadline(Duration::from_secs(10));
        Drivers { modprobe, failed: Vec::new() }
    }

    #[tokio::test]
    async fn a_driver_that_hangs_or_dies_keeps_no_other_from_being_loaded() {
        let folder = tempfile::tempdir().unwrap();
        for kind in ["bridge", "dies", "hangs", "other"] {
            let device = folder.path().join("devices").join(kind);
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("modalias"), format!("pci:{kind}\n")).unwrap();
        }
        let mut drivers = modprobe(folder.path());
        assert_eq!(drivers.load(&folder.path().join("devices")).await.unwrap(), 5);
        let failed: Vec<_> = drivers.failed.iter().map(|(alias, _)| alias.as_str()).collect();
        assert_eq!(failed, ["pci:dies", "pci:hangs"]);
        assert!(matches!(drivers.failed[1].1, ToolError::TimedOut(..)), "{:?}", drivers.failed);
        let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
        let alone: Vec<_> = asked.lines().skip(1).collect();
        assert_eq!(alone, ["pci:bridge", "pci:dies", "pci:hangs", "pci:other", "pci:v1bc02"], "{asked}");
    }

    #[tokio::test]
    async fn too_many_drivers_that_die_are_given_up_and_those_of_nics_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut drivers = modprobe(folder.path());
        let mut aliases = vec!["pci:dies".to_owned(); 100];
        aliases.push("pci:v1bc02".into());
        let tool = drivers.modprobe.clone();
        drivers.modprobe(&tool, &aliases).await;
        let failed: Vec<_> = drivers.failed.iter().map(|(alias, _)| alias.as_str()).collect();
        assert_eq!(failed, ["pci:dies"; FAILURES]);
        assert!(matches!(drivers.failed[0].1, ToolError::Failed { .. }), "{:?}", drivers.failed);
        let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
        let alone: Vec<_> = asked.lines().skip(1).collect();
        assert_eq!((alone.len(), alone.last()), (FAILURES + 1, Some(&"pci:v1bc02")), "{asked}");
    }
}
