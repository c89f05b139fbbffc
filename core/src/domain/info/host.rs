//! The system: names, versions, since when it runs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::Serialize;

use super::{InfoError, read};
use crate::sys::text;

/// The system of the node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Host {
    /// Its name.
    pub hostname: String,
    /// Seconds since it was started.
    pub uptime: u64,
    /// When it was started, in seconds since 1970.
    #[serde(rename = "bootTime")]
    pub boot_time: u64,
    /// How many processes there are.
    pub procs: u64,
    /// Always `linux`.
    pub os: String,
    /// The distribution, as `debian`.
    pub platform: String,
    /// What the distribution is like, as `debian` for ubuntu.
    #[serde(rename = "platformFamily")]
    pub platform_family: String,
    /// Version of the distribution.
    #[serde(rename = "platformVersion")]
    pub platform_version: String,
    /// Version of the kernel.
    #[serde(rename = "kernelVersion")]
    pub kernel_version: String,
    /// The hypervisor; empty when none shows.
    #[serde(rename = "virtualizationSystem")]
    pub virtualization_system: String,
    /// `guest` under a hypervisor, else empty.
    #[serde(rename = "virtualizationRole")]
    pub virtualization_role: String,
    /// Identifier of the machine from its firmware; of its installation when the firmware has none.
    pub hostid: String,
}

/// The system now.
pub fn host() -> Result<Host, InfoError> {
    let uname = rustix::system::uname();
    let uptime = uptime(&read("/proc/uptime")?).ok_or(InfoError::Incomplete("/proc/uptime", "number"))?;
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    // Not every node has one: PID 1 may run from an initramfs.
    let release = text::read("/etc/os-release").unwrap_or_default();
    let platform = field(&release, "ID");
    let family = field(&release, "ID_LIKE").split(' ').next().unwrap_or_default().to_owned();
    let virtualization_system = hypervisor();
    Ok(Host {
        hostname: uname.nodename().to_string_lossy().into_owned(),
        uptime,
        boot_time: since_1970.saturating_sub(uptime),
        procs: processes()?,
        os: "linux".to_owned(),
        platform_family: if family.is_empty() { platform.clone() } else { family },
        platform,
        platform_version: field(&release, "VERSION_ID"),
        kernel_version: uname.release().to_string_lossy().into_owned(),
        virtualization_role: if virtualization_system.is_empty() {
            String::new()
        } else {
            "guest".to_owned()
        },
        virtualization_system,
        hostid: machine(),
    })
}

fn uptime(text: &str) -> Option<u64> {
    text.split('.').next()?.trim().parse().ok()
}

fn processes() -> Result<u64, InfoError> {
    let entries = std::fs::read_dir("/proc").map_err(|e| InfoError::Read("/proc".into(), e))?;
    let is_process = |name: &std::ffi::OsStr| name.to_str().is_some_and(|n| n.parse::<u32>().is_ok());
    Ok(entries.flatten().filter(|e| is_process(&e.file_name())).count() as u64)
}

/// A value of os-release(5), without its quotes.
fn field(release: &str, key: &str) -> String {
    let value = release.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
}

/// The hypervisor by what the firmware and the kernel say of the machine.
fn hypervisor() -> String {
    if let Some(kind) = text::value::<String>("/sys/hypervisor/type") {
        return kind;
    }
    let dmi = ["sys_vendor", "product_name"].map(|file| {
        text::value::<String>(format!("/sys/class/dmi/id/{file}")).unwrap_or_default().to_lowercase()
    });
    let known =
        [("kvm", "kvm"), ("qemu", "kvm"), ("vmware", "vmware"), ("virtualbox", "vbox"), ("xen", "xen")];
    let named = known.iter().find(|(mark, _)| dmi.iter().any(|text| text.contains(mark)));
    if let Some((_, system)) = named {
        return (*system).to_owned();
    }
    let cpuinfo = text::read("/proc/cpuinfo").unwrap_or_default();
    let guest = cpuinfo.lines().any(|l| l.starts_with("flags") && l.split(' ').any(|f| f == "hypervisor"));
    if guest { "unknown".to_owned() } else { String::new() }
}

fn machine() -> String {
    let sources = ["/sys/class/dmi/id/product_uuid", "/etc/machine-id", "/proc/sys/kernel/random/boot_id"];
    let ids = sources.iter().filter_map(text::value::<String>);
    ids.map(|id| id.to_lowercase()).find(|id| !id.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_runs_since_a_while() {
        let host = host().unwrap();
        assert_eq!(host.os, "linux");
        assert!(!host.hostname.is_empty() && !host.kernel_version.is_empty() && !host.hostid.is_empty());
        assert!(host.uptime > 0 && host.procs > 1 && host.boot_time > 1_500_000_000, "{host:?}");
    }

    #[test]
    fn fields_of_os_release_lose_their_quotes() {
        let release = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\nVERSION_ID=\"12\"\nID_LIKE='a b'\n";
        assert_eq!(field(release, "ID"), "debian");
        assert_eq!(field(release, "VERSION_ID"), "12");
        assert_eq!(field(release, "ID_LIKE"), "a b");
        assert_eq!(field(release, "VARIANT"), "");
    }

    #[test]
    fn an_uptime_is_cut_to_seconds() {
        assert_eq!(uptime("350735.47 234388.90\n"), Some(350_735));
        assert_eq!(uptime(""), None);
    }
}
