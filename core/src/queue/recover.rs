//! What an earlier manager had accepted and not answered.

use std::sync::Arc;

use redis::{RedisResult, Value};

use super::{Ticket, again_key, batch_key, inflight_key};
use crate::context::Node;
use crate::job::{Adopted, Again, Jobs, Sender};
use crate::redis::{Link, one};

/// Most names of answered commands that are taken over.
const NAMES: usize = 65_536;

/// Every command in the hash of a user is answered, adopted with its process, or run again. Gives the number up to which
/// that was done: what a script of the earlier manager still accepts afterwards has a higher one.
pub async fn recover(
    node: &Arc<Node>,
    sender: &Sender,
    link: &mut Link,
    adopted: &mut Adopted,
) -> RedisResult<u64> {
    let user: Arc<str> = sender.caller.user.as_str().into();
    let (hash, again) = (inflight_key(&user), again_key(&user));
    let mut read = redis::pipe();
    read.atomic().hkeys(&hash).get(batch_key(&user));
    let (mut seqs, batch): (Vec<u64>, Option<String>) = link.query(&read).await?;
    let seen = batch.and_then(|batch| batch.split_once(' ')?.1.parse().ok()).unwrap_or(0);
    seqs.sort_unstable();
    for seq in seqs {
        let field = seq.to_string();
        let mut read = one("HGET", &[&hash, &field]);
        read.cmd("SADD").arg(&again).arg(&field);
        let (raw, added): (Option<Vec<u8>>, u64) = link.query(&read).await?;
        let Some(raw) = raw else { continue };
        let ticket = Ticket { user: user.clone(), seq, resumed: true };
        let again = Again { adopted, first_time: added == 1 };
        Jobs::resume(node, sender, ticket, &raw, again).await;
    }
    Ok(seen)
}

/// Commands whose results can still be read are remembered: sent again, they are duplicates.
pub async fn remember(node: &Arc<Node>, link: &mut Link) -> RedisResult<()> {
    let mut cursor = "0".to_string();
    let mut names = 0;
    loop {
        let scan = one("SCAN", &[&cursor, "MATCH", "result:*:flag", "COUNT", "1000"]);
        let ((next, keys),): ((String, Vec<String>),) = link.query(&scan).await?;
        for key in &keys {
            if let Some(name) = key.strip_prefix("result:").and_then(|rest| rest.strip_suffix(":flag")) {
                node.jobs.remember(name);
                names += 1;
            }
        }
        if next == "0" || names >= NAMES {
            return Ok(());
        }
        cursor = next;
    }
}

/// Whether redis answers.
pub async fn ping(link: &mut Link) -> bool {
    link.query::<(Value,)>(&one("PING", &[])).await.is_ok()
}
