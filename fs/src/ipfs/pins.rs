//! Pins, with names where nodes have names for them, which the library does not know.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use g8_cache::BlockId;
use ipfs_api_backend_hyper::request::{PinAdd, PinLs};
use ipfs_api_prelude::Backend;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::bounded::{SOON, With};
use super::error::{RpcError, shown};
use super::import::AFTERTHOUGHT;
use super::{Node, block_id};

/// Gives a pin a name.
#[derive(Serialize)]
struct Name<'a> {
    name: Option<&'a str>,
}

/// Asks for the names of pins.
#[derive(Serialize)]
struct Names {
    names: bool,
}

/// A line of the answer to `pin/add`: progress, and the pins at the end, which the library's type has in every line.
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

/// The answer to `pin/ls`. Go leaves an empty list out or writes it as null, and the library's type has no names.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
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
        let request = PinAdd { key: &arg, recursive: Some(true), progress: true };
        let mut lines = self.listening().lines::<Line>(With { request, more: Name { name } })?;
        let (mut pinned, mut reached, mut until) = (false, 0, Instant::now() + limit);
        while let Some(line) = timeout_at(until, lines.next()).await.map_err(silent)? {
            let line = line?;
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
        match self.listed(id, Names { names: false }, limit).await {
            Ok(pin) => Ok(pin.is_some_and(|pin| pin.r#type == "recursive")),
            Err(RpcError::Refused { message, .. }) if message.contains("not pinned") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The name of the pin that keeps `id` and all below it, if there is such a pin and it has one.
    pub async fn pin_name(&self, id: &BlockId) -> Result<Option<String>, RpcError> {
        let pin = self.listed(id, Names { names: true }, SOON).await?;
        Ok(pin.map(|pin| shown(&pin.name)).filter(|name| !name.is_empty()))
    }

    async fn listed(&self, id: &BlockId, names: Names, limit: Duration) -> Result<Option<Pin>, RpcError> {
        let arg = id.to_string();
        let request = PinLs { key: Some(&arg), typ: Some("recursive") };
        let listed: Listed = self.within(limit).request(With { request, more: names }, None).await?;
        let mut keys = listed.keys.unwrap_or_default().into_iter();
        Ok(keys.find(|(key, _)| block_id(key).as_ref() == Some(id)).map(|(_, pin)| pin))
    }
}
