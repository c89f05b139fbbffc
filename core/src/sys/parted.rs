//! The tool `parted`, which never asks back here.

use std::path::Path;
use std::time::Duration;

use super::tool::{Tool, ToolError};

/// It waits for the kernel to read partitions again.
const DEADLINE: Duration = Duration::from_secs(60);

/// A stretch of a disk that no partition has, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Its first byte.
    pub start: u64,
    /// Its last byte.
    pub end: u64,
    /// How long it is.
    pub size: u64,
}

fn parted(device: &Path) -> Tool {
    Tool::new("parted").args(["--script", "--align", "optimal", "--"]).arg(device).deadline(DEADLINE)
}

/// Writes a new partition table.
pub async fn make_table(device: &Path, kind: &str) -> Result<(), ToolError> {
    parted(device).args(["mklabel", kind]).run().await.map(drop)
}

/// Adds a partition.
pub async fn make_partition(device: &Path, kind: &str, start: &str, end: &str) -> Result<(), ToolError> {
    parted(device).args(["mkpart", kind, start, end]).run().await.map(drop)
}

/// Removes a partition.
pub async fn remove_partition(device: &Path, number: u32) -> Result<(), ToolError> {
    parted(device).arg("rm").arg(number.to_string()).run().await.map(drop)
}

/// The kind of the partition table; `None` when there is none.
pub async fn table(device: &Path) -> Result<Option<String>, ToolError> {
    let tool = Tool::new("parted").args(["--script", "--machine", "--"]).arg(device).deadline(DEADLINE);
    match tool.arg("print").run().await {
        Ok(text) => Ok(kind(&text)),
        Err(ToolError::Failed { stderr, .. }) if stderr.contains("unrecognised disk label") => Ok(None),
        Err(e) => Err(e),
    }
}

/// In the second line, as `/dev/sda:67.1MB:scsi:512:512:gpt:Model:;`. A file system on a whole disk is a `loop` to parted, and has
/// no place for partitions.
fn kind(text: &str) -> Option<String> {
    let kind = text.lines().nth(1)?.split(':').nth(5)?;
    Some(kind.to_owned()).filter(|kind| kind != "loop" && kind != "unknown")
}

/// The stretches that no partition has.
pub async fn gaps(device: &Path) -> Result<Vec<Gap>, ToolError> {
    let tool = Tool::new("parted").args(["--script", "--machine", "--"]).arg(device).deadline(DEADLINE);
    let text = tool.args(["unit", "B", "print", "free"]).run().await?;
    Ok(text.lines().filter_map(gap).collect())
}

/// `1:17408B:1048575B:1031168B:free;`
fn gap(line: &str) -> Option<Gap> {
    let fields: Vec<&str> = line.strip_suffix(";")?.split(':').collect();
    let bytes = |field: &str| field.strip_suffix('B')?.parse().ok();
    match fields.as_slice() {
        [_, start, end, size, "free"] => {
            Some(Gap { start: bytes(start)?, end: bytes(end)?, size: bytes(size)? })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_what_has_partitions() {
        let print = |kind| format!("BYT;\n/dev/loop0:67.1MB:loopback:512:512:{kind}:Loopback device:;\n");
        assert_eq!(kind(&print("gpt")).as_deref(), Some("gpt"));
        for none in ["loop", "unknown"] {
            assert_eq!(kind(&print(none)), None);
        }
        assert_eq!(kind("BYT;"), None);
    }

    #[test]
    fn only_free_stretches_are_gaps() {
        assert_eq!(
            gap("1:17408B:1048575B:1031168B:free;"),
            Some(Gap { start: 17_408, end: 1_048_575, size: 1_031_168 })
        );
        for line in [
            "BYT;",
            "1:1048576B:157286399B:156237824B::free:;",
            "1:1:2:3:free;",
            "1:17408B:1048575B:1031168B:free",
        ] {
            assert_eq!(gap(line), None, "{line}");
        }
    }
}
