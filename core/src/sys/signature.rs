//! What a device carries, by looking at its bytes with `wipefs` and `blkid` (util-linux): no database is asked, which a node
//! without udev does not have.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::tool::{Tool, ToolError};

#[derive(Deserialize)]
struct Listing {
    signatures: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    #[serde(rename = "type")]
    kind: String,
}

/// Types of the file systems, partition tables and the like that a device carries.
pub async fn signatures(device: &Path) -> Result<Vec<String>, ToolError> {
    let text = Tool::new("wipefs").args(["--no-act", "--json", "--"]).arg(device).run().await?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let listing: Listing = serde_json::from_str(&text).map_err(|e| unreadable("wipefs", e.to_string()))?;
    let mut kinds: Vec<String> = listing.signatures.into_iter().map(|found| found.kind).collect();
    kinds.dedup();
    Ok(kinds)
}

/// What blkid(8) knows of a device, by its names, as `TYPE` and `PTTYPE`. Nothing when it knows nothing.
pub async fn properties(device: &Path) -> Result<BTreeMap<String, String>, ToolError> {
    let said = Tool::new("blkid").args(["--probe", "--output", "export", "--"]).arg(device).run().await;
    match said {
        Ok(text) => {
            Ok(text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.into(), unescape(v))).collect())
        }
        // It found nothing, or it found two things that contradict each other.
        Err(ToolError::Failed { status, .. }) if matches!(status.code(), Some(2 | 8)) => Ok(BTreeMap::new()),
        Err(e) => Err(e),
    }
}

/// A value is made safe for a shell by backslashes.
fn unescape(value: &str) -> String {
    let mut text = String::new();
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => text.extend(letters.next()),
            other => text.push(other),
        }
    }
    text
}

fn unreadable(tool: &str, why: String) -> ToolError {
    ToolError::Io(tool.to_owned(), std::io::Error::new(std::io::ErrorKind::InvalidData, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::loop_device::LoopDevice;

    #[tokio::test]
    async fn an_empty_disk_carries_nothing_and_a_formatted_one_what_it_was_given() {
        let disk = LoopDevice::new(32);
        let path = Path::new(disk.path());
        assert_eq!(signatures(path).await.unwrap(), Vec::<String>::new());
        assert_eq!(properties(path).await.unwrap(), BTreeMap::new());
        Tool::new("mkfs.ext4").args(["-q", "-L", "a b"]).arg(path).run().await.unwrap();
        assert_eq!(signatures(path).await.unwrap(), ["ext4"]);
        let found = properties(path).await.unwrap();
        assert_eq!((found["TYPE"].as_str(), found["LABEL"].as_str()), ("ext4", "a b"));
    }

    #[tokio::test]
    async fn a_device_that_is_missing_is_an_error() {
        assert!(signatures(Path::new("/dev/no-such-disk")).await.is_err());
    }
}
