//! The tool `lsblk`: what the kernel and udev know of block devices, as JSON.

use serde_json::{Map, Value};

use super::tool::{Tool, ToolError};

/// One device and the devices made of it, with the names that lsblk gives.
pub type Record = Map<String, Value>;

/// All devices, or one. RAM disks and empty drives are left out of all.
pub async fn list(device: Option<&std::path::Path>) -> Result<Vec<Record>, ToolError> {
    let mut tool = Tool::new("lsblk").args(["--json", "--bytes", "--output-all"]);
    if let Some(device) = device {
        tool = tool.arg("--").arg(device);
    }
    let text = tool.run().await?;
    let unreadable = |why: String| {
        ToolError::Io("lsblk".to_owned(), std::io::Error::new(std::io::ErrorKind::InvalidData, why))
    };
    let mut document: Value = serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
    let Value::Array(devices) = document["blockdevices"].take() else {
        return Err(unreadable("no list of block devices".to_owned()));
    };
    Ok(devices
        .into_iter()
        .filter_map(|device| if let Value::Object(fields) = device { Some(fields) } else { None })
        .collect())
}
