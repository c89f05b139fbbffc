//! The tool `nft` (nft(8)): scripts that are carried out as a whole or not at all, and tables as JSON.

use serde_json::Value;

use super::tool::{Tool, ToolError};

/// Carries out a script in one transaction.
pub async fn apply(script: String) -> Result<(), ToolError> {
    Tool::new("nft").args(["-f", "-"]).stdin(script).run().await?;
    Ok(())
}

/// The objects of a table; `None` when there is no such table.
pub async fn list_table(family: &str, table: &str) -> Result<Option<Vec<Value>>, ToolError> {
    let listed = Tool::new("nft").args(["-j", "list", "table", family, table]).run().await;
    let text = match listed {
        Ok(text) => text,
        // The tool tells apart by its words only; their language is fixed.
        Err(ToolError::Failed { stderr, .. }) if stderr.contains("No such file or directory") => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let read =
        |e: String| ToolError::Io("nft".to_owned(), std::io::Error::new(std::io::ErrorKind::InvalidData, e));
    let mut document: Value = serde_json::from_str(&text).map_err(|e| read(e.to_string()))?;
    match document["nftables"].take() {
        Value::Array(objects) => Ok(Some(objects)),
        other => Err(read(format!("no list of objects: {other:.100}"))),
    }
}
