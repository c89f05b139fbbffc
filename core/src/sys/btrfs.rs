//! The tool `btrfs` (btrfs(8)) and its words: file systems, what they are used for, subvolumes and their quotas.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use super::tool::{Tool, ToolError};

/// Moving data from one device to another takes as long as it takes.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// A file system that is there, mounted or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filesystem {
    /// Its name; empty when it has none.
    pub label: String,
    /// Its UUID.
    pub uuid: String,
    /// How many devices it has, those that are missing too.
    pub total_devices: u64,
    /// Bytes in use.
    pub used: u64,
    /// The devices that are there.
    pub devices: Vec<Member>,
    /// What the tool warns of.
    pub warnings: String,
}

/// A device of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number in the file system.
    pub id: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes of it that are given to something.
    pub used: u64,
    /// Its path; empty when it is missing.
    pub path: String,
}

/// What is given to a kind of data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// `Data`, `System`, `Metadata` or `GlobalReserve`.
    pub kind: String,
    /// How it is laid out, as `RAID1`.
    pub profile: String,
    /// Bytes given.
    pub total: u64,
    /// Bytes of them in use.
    pub used: u64,
}

/// A subvolume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subvolume {
    /// Its number.
    pub id: u64,
    /// When it was last changed, counted in transactions.
    pub generation: u64,
    /// The subvolume it lies in.
    pub top_level: u64,
    /// Its path from the top of the file system.
    pub path: String,
}

/// Runs `btrfs` with these words and paths, which are absolute: not all of its words know `--`.
async fn btrfs<S: AsRef<OsStr>>(
    words: &[&str],
    paths: impl IntoIterator<Item = S>,
) -> Result<String, ToolError> {
    Tool::new("btrfs").args(words).args(paths).deadline(LONG).run().await
}

/// Makes a file system. `overwrite` is what to do about what is there; profiles are left to the tool when empty.
pub async fn make(
    label: &str,
    metadata: &str,
    data: &str,
    devices: &[impl AsRef<Path>],
    overwrite: bool,
) -> Result<(), ToolError> {
    let mut tool = Tool::new("mkfs.btrfs").arg("--quiet").deadline(Duration::from_secs(600));
    for (option, value) in [("--label", label), ("--metadata", metadata), ("--data", data)] {
        if !value.is_empty() {
            tool = tool.args([option, value]);
        }
    }
    if overwrite {
        tool = tool.arg("--force");
    }
    tool.arg("--").args(devices.iter().map(AsRef::as_ref)).run().await.map(drop)
}

/// All file systems, or the one that is mounted at a path.
pub async fn show(mountpoint: Option<&Path>) -> Result<Vec<Filesystem>, ToolError> {
    Ok(parse_show(&btrfs(&["filesystem", "show", "--raw"], mountpoint).await?))
}

/// What the file system at a path gives to what.
pub async fn usage(mountpoint: &Path) -> Result<Vec<Usage>, ToolError> {
    let text = btrfs(&["filesystem", "df", "--raw"], [mountpoint]).await?;
    Ok(text.lines().filter_map(parse_usage).collect())
}

/// Adds devices to the file system at a path. `overwrite` is what to do about what they carry.
pub async fn add_devices(
    mountpoint: &Path,
    devices: &[impl AsRef<Path>],
    overwrite: bool,
) -> Result<(), ToolError> {
    let words: &[&str] = if overwrite { &["device", "add", "--force"] } else { &["device", "add"] };
    btrfs(words, devices.iter().map(AsRef::as_ref).chain([mountpoint])).await.map(drop)
}

/// Moves what devices carry to the others and takes them out of the file system.
pub async fn remove_devices(mountpoint: &Path, devices: &[impl AsRef<Path>]) -> Result<(), ToolError> {
    btrfs(&["device", "remove"], devices.iter().map(AsRef::as_ref).chain([mountpoint])).await.map(drop)
}

/// Makes a subvolume.
pub async fn make_subvolume(path: &Path) -> Result<(), ToolError> {
    btrfs(&["subvolume", "create"], [path]).await.map(drop)
}

/// Removes a subvolume with all that is in it.
pub async fn remove_subvolume(path: &Path) -> Result<(), ToolError> {
    btrfs(&["subvolume", "delete"], [path]).await.map(drop)
}

/// Makes a snapshot of a subvolume, one that can be written unless said otherwise.
pub async fn snapshot(source: &Path, destination: &Path, read_only: bool) -> Result<(), ToolError> {
    let words: &[&str] =
        if read_only { &["subvolume", "snapshot", "-r"] } else { &["subvolume", "snapshot"] };
    btrfs(words, [source, destination]).await.map(drop)
}

/// The subvolumes below a path.
pub async fn subvolumes(path: &Path) -> Result<Vec<Subvolume>, ToolError> {
    let text = btrfs(&["subvolume", "list", "-o"], [path]).await?;
    Ok(text.lines().filter_map(parse_subvolume).collect())
}

/// Lets a file system count what its subvolumes use.
pub async fn enable_quotas(path: &Path) -> Result<(), ToolError> {
    btrfs(&["quota", "enable"], [path]).await.map(drop)
}

/// Sets the most that a subvolume may use, in words of the tool.
pub async fn limit(path: &Path, limit: &str) -> Result<(), ToolError> {
    btrfs(&["qgroup", "limit"], [OsStr::new(limit), path.as_os_str()]).await.map(drop)
}

/// The limits of subvolumes by their numbers; `None` when the file system does not count.
pub async fn limits(path: &Path) -> Result<Option<Vec<(u64, u64)>>, ToolError> {
    match btrfs(&["qgroup", "show", "-re", "--raw"], [path]).await {
        Ok(text) => Ok(Some(text.lines().filter_map(parse_limit).collect())),
        Err(ToolError::Failed { stderr, .. }) if stderr.contains("quotas not enabled") => Ok(None),
        Err(e) => Err(e),
    }
}

fn parse_show(text: &str) -> Vec<Filesystem> {
    let mut all: Vec<Filesystem> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("Label: ") {
            let Some((label, uuid)) = rest.rsplit_once(" uuid: ") else { continue };
            let label = label.trim();
            let quoted = label.strip_prefix('\'').and_then(|l| l.strip_suffix('\''));
            let label = quoted.unwrap_or(if label == "none" { "" } else { label }).to_owned();
            all.push(Filesystem { label, uuid: uuid.trim().to_owned(), ..Filesystem::default() });
            continue;
        }
        let Some(current) = all.last_mut() else { continue };
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["Total", "devices", count, "FS", "bytes", "used", used] => {
                current.total_devices = count.parse().unwrap_or(0);
                current.used = used.parse().unwrap_or(0);
            }
            ["devid", ..] => current.devices.extend(parse_member(line)),
            ["***", ..] => current.warnings.push_str(line),
            _ => {}
        }
    }
    all
}

/// `devid    1 size 314572800 used 50331648 path /dev/loop0`, perhaps with `MISSING` at its end.
fn parse_member(line: &str) -> Option<Member> {
    let mut words = line.split_whitespace();
    let mut number = |name: &str| (words.next()? == name).then(|| words.next()?.parse::<u64>().ok())?;
    let (id, size, used) = (number("devid")?, number("size")?, number("used")?);
    let path = line.split_once(" path ").map_or("", |(_, path)| path.trim());
    let path = if path.ends_with("MISSING") { "" } else { path };
    Some(Member { id, size, used, path: path.to_owned() })
}

/// `Metadata, RAID1: total=33554432, used=131072`
fn parse_usage(line: &str) -> Option<Usage> {
    let (names, numbers) = line.split_once(": ")?;
    let (kind, profile) = names.split_once(", ")?;
    let (total, used) = numbers.split_once(", ")?;
    Some(Usage {
        kind: kind.to_owned(),
        profile: profile.to_owned(),
        total: total.strip_prefix("total=")?.parse().ok()?,
        used: used.strip_prefix("used=")?.trim().parse().ok()?,
    })
}

/// `ID 257 gen 7 top level 5 path s 2`
fn parse_subvolume(line: &str) -> Option<Subvolume> {
    let (numbers, path) = line.split_once(" path ")?;
    let words: Vec<&str> = numbers.split_whitespace().collect();
    match words.as_slice() {
        ["ID", id, "gen", generation, "top", "level", top_level] => Some(Subvolume {
            id: id.parse().ok()?,
            generation: generation.parse().ok()?,
            top_level: top_level.parse().ok()?,
            path: path.to_owned(),
        }),
        _ => None,
    }
}

/// `0/256              16384        16384        10485760           none   s1`
fn parse_limit(line: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let id = words.first()?.strip_prefix("0/")?.parse().ok()?;
    Some((id, words.get(3)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_has_every_file_system_and_device() {
        let all = parse_show(
            "warning, device 2 is missing\nLabel: 'a b uuid: c'  uuid: d601c374\n\tTotal devices 2 FS bytes used 147456\n\
             \tdevid    1 size 314572800 used 50331648 path /dev/loop0\n\t*** Some devices missing\n\nLabel: none  uuid: 77\n\
             \tTotal devices 1 FS bytes used 0\n\tdevid    1 size 1 used 2 path /dev/a b\n\tdevid    2 size 3 used 0 path /dev/x MISSING\n",
        );
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].label.as_str(), all[0].uuid.as_str()), ("a b uuid: c", "d601c374"));
        assert_eq!((all[0].total_devices, all[0].used, all[0].devices.len()), (2, 147_456, 1));
        assert_eq!(all[0].warnings, "*** Some devices missing");
        assert_eq!((all[1].label.as_str(), all[1].devices[0].path.as_str()), ("", "/dev/a b"));
        assert_eq!(all[1].devices[1], Member { id: 2, size: 3, used: 0, path: String::new() });
    }

    #[test]
    fn usage_subvolumes_and_limits_are_read() {
        let usage = parse_usage("Metadata, RAID1: total=33554432, used=131072").unwrap();
        assert_eq!((usage.kind.as_str(), usage.profile.as_str(), usage.used), ("Metadata", "RAID1", 131_072));
        let subvolume = parse_subvolume("ID 257 gen 7 top level 5 path s path 2").unwrap();
        assert_eq!((subvolume.id, subvolume.top_level, subvolume.path.as_str()), (257, 5, "s path 2"));
        assert_eq!(parse_limit("0/256  16384  16384  10485760  none  s1"), Some((256, 10_485_760)));
        assert_eq!(parse_limit("0/257  16384  16384  none  none  s2"), None);
        assert_eq!(parse_limit("Qgroupid    Referenced    Exclusive  Max referenced"), None);
    }
}
