//! Pins with names, which the library has no call for.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use g8_cache::BlockId;
use serde::Deserialize;

use super::call::judge;
use super::error::{RpcError, shown};
use super::import::{AFTERTHOUGHT, lines};
use super::library::SOON;
use super::{Node, block_id};

/// A line of the answer to `pin/add`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    #[serde(default)]
    pins: Option<Vec<String>>,
    #[serde(default)]
    message: Option<String>,
}

impl Node {
    /// Has it keep `id` and all below it, under `name` where pins have names. Kubo gives signs of life meanwhile and js-ipfs does
    /// not; between two of them, or without any, it may take as long as after an import.
    pub async fn pin(&self, id: &BlockId, name: Option<&str>, silence: Duration) -> Result<(), RpcError> {
        const CALL: &str = "pin/add";
        let limit = silence * AFTERTHOUGHT;
        let silent = |_| RpcError::Silent { call: CALL, waited: limit };
        let arg = id.to_string();
        let mut query = vec![("arg", arg.as_str()), ("recursive", "true"), ("progress", "true")];
        query.extend(name.map(|name| ("name", name)));
        let sent = tokio::time::timeout(limit, self.post(CALL, &query).send()).await.map_err(silent)?;
        let response = judge(CALL, sent.map_err(|error| RpcError::gone(CALL, error.without_url()))?).await?;
        let mut lines = lines(CALL, response.bytes_stream().boxed());
        let mut pinned = false;
        while let Some(line) = tokio::time::timeout(limit, lines.next()).await.map_err(silent)? {
            let line: Line =
                serde_json::from_slice(&line?).map_err(|error| RpcError::strange(CALL, error))?;
            if let Some(message) = line.message {
                return Err(RpcError::Refused { call: CALL, message: shown(&message) });
            }
            pinned |= line.pins.unwrap_or_default().iter().any(|pin| block_id(pin).as_ref() == Some(id));
        }
        if pinned { Ok(()) } else { Err(RpcError::strange(CALL, "it does not say that it pinned")) }
    }
    /// The name of the pin that keeps `id` and all below it, if there is such a pin and it has one.
    pub async fn pin_name(&self, id: &BlockId) -> Result<Option<String>, RpcError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            keys: HashMap<String, Named>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Named {
            #[serde(default)]
            name: String,
        }
        let arg = id.to_string();
        let query = [("arg", arg.as_str()), ("type", "recursive"), ("names", "true")];
        let listed: Listed = self.ask("pin/ls", &query, SOON).await?;
        let ours = listed.keys.into_iter().find(|(key, _)| block_id(key).as_ref() == Some(id));
        Ok(ours.map(|(_, pin)| shown(&pin.name)).filter(|name| !name.is_empty()))
    }
}
