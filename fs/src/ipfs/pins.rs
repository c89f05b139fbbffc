//! Pins, with names where nodes have names for them. Not by the library: it knows no names, and reads lists of any length.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use g8_cache::BlockId;
use serde::Deserialize;
use tokio::time::{Instant, timeout, timeout_at};

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
    progress: Option<u64>,
    #[serde(default)]
    message: Option<String>,
}

/// The answer to `pin/ls`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    /// Go writes an empty one as null.
    #[serde(default)]
    keys: Option<HashMap<String, Pin>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pin {
    r#type: String,
    #[serde(default)]
    name: String,
}

impl Node {
    /// Has it keep `id` and all below it, `most` objects, under `name` where pins have names. Kubo says meanwhile how far it is and
    /// js-ipfs does not; between two steps, or without any, it may take as long as after an import.
    pub async fn pin(
        &self,
        id: &BlockId,
        name: Option<&str>,
        most: u64,
        silence: Duration,
    ) -> Result<(), RpcError> {
        const CALL: &str = "pin/add";
        let limit = silence * AFTERTHOUGHT;
        let silent = |_| RpcError::Silent { call: CALL, waited: limit };
        let arg = id.to_string();
        let mut query = vec![("arg", arg.as_str()), ("recursive", "true"), ("progress", "true")];
        query.extend(name.map(|name| ("name", name)));
        let sent = timeout(limit, self.post(CALL, &query).send()).await.map_err(silent)?;
        let response = judge(CALL, sent.map_err(|error| RpcError::gone(CALL, error.without_url()))?).await?;
        let mut lines = lines(CALL, response.bytes_stream().boxed());
        let (mut pinned, mut reached, mut until) = (false, 0, Instant::now() + limit);
        while let Some(line) = timeout_at(until, lines.next()).await.map_err(silent)? {
            let line: Line =
                serde_json::from_slice(&line?).map_err(|error| RpcError::strange(CALL, error))?;
            if let Some(message) = line.message {
                return Err(RpcError::Refused { call: CALL, message: shown(&message) });
            }
            // Who says the same again and again has not moved, nor has who counts beyond the end.
            if let Some(now) = line.progress.map(|now| now.min(most)).filter(|now| *now > reached) {
                (reached, until) = (now, Instant::now() + limit);
            }
            pinned |= line.pins.unwrap_or_default().iter().any(|pin| block_id(pin).as_ref() == Some(id));
        }
        if pinned { Ok(()) } else { Err(RpcError::CutShort { call: CALL }) }
    }

    /// Whether it keeps `id` and all below it.
    pub async fn has_pinned(&self, id: &BlockId, limit: Duration) -> Result<bool, RpcError> {
        match self.listed(id, &[], limit).await {
            Ok(pin) => Ok(pin.is_some_and(|pin| pin.r#type == "recursive")),
            Err(RpcError::Refused { message, .. }) if message.contains("not pinned") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The name of the pin that keeps `id` and all below it, if there is such a pin and it has one.
    pub async fn pin_name(&self, id: &BlockId) -> Result<Option<String>, RpcError> {
        let pin = self.listed(id, &[("names", "true")], SOON).await?;
        Ok(pin.map(|pin| shown(&pin.name)).filter(|name| !name.is_empty()))
    }

    async fn listed(
        &self,
        id: &BlockId,
        more: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Option<Pin>, RpcError> {
        let arg = id.to_string();
        let query = [&[("arg", arg.as_str()), ("type", "recursive")], more].concat();
        let listed: Listed = self.ask("pin/ls", &query, limit).await?;
        let mut keys = listed.keys.unwrap_or_default().into_iter();
        Ok(keys.find(|(key, _)| block_id(key).as_ref() == Some(id)).map(|(_, pin)| pin))
    }
}
