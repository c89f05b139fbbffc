//! What an earlier manager had accepted and not answered.

use std::sync::Arc;

use redis::{RedisResult, Script, Value};

use super::{Ticket, again_key, batch_key, inflight_key, restarts_key};
use crate::context::{ADMIN, Node};
use crate::job::{Adopted, Again, Jobs, Sender};
use crate::redis::{Link, one};

/// Most names of answered commands that are taken over.
const NAMES: usize = 65_536;

/// Reads a command and how often its process was started again, and notes that it begins again. Also in a redis that is full: what was accepted is not held up by that.
const BEGIN_AGAIN: &str = r"#!lua flags=allow-oom
local restarts = redis.pcall('HGET', KEYS[3], ARGV[1])
return { redis.call('HGET', KEYS[1], ARGV[1]), redis.call('SADD', KEYS[2], ARGV[1]),
  type(restarts) == 'string' and tonumber(restarts) or 0 }";

/// Every command in the hash of a user is answered, adopted with its process, or run again. Gives the number up to which
/// that was done: what a script of the earlier manager still accepts afterwards has a higher one.
pub async fn recover(
    node: &Arc<Node>,
    sender: &Sender,
    link: &mut Link,
    adopted: &mut Adopted,
) -> RedisResult<u64> {
    let user: Arc<str> = sender.caller.user.as_str().into();
    let (hash, again, restarts) = (inflight_key(&user), again_key(&user), restarts_key(&user));
    let mut read = redis::pipe();
    read.atomic().hkeys(&hash).get(batch_key(&user));
    let (mut seqs, batch): (Vec<u64>, Option<String>) = link.query(&read).await?;
    let seen = batch.and_then(|batch| batch.split_once(' ')?.1.parse().ok()).unwrap_or(0);
    seqs.sort_unstable();
    let script = Script::new(BEGIN_AGAIN);
    for seq in seqs {
        let field = seq.to_string();
        let mut begin = script.key(&hash);
        let begin = begin.key(&again).key(&restarts).arg(&field);
        let (raw, added, restarts): (Option<Vec<u8>>, u64, u32) = link.invoke(begin).await?;
        let Some(raw) = raw else { continue };
        let ticket = Ticket { user: user.clone(), seq, resumed: true };
        let again = Again { adopted, first_time: added == 1, restarts };
        Jobs::resume(node, sender, ticket, &raw, again).await;
    }
    Ok(seen)
}

/// What else an earlier manager left: commands whose results can still be read are remembered, as the same ones sent again are
/// duplicates; and what belongs to users that are in no configuration any more goes, so that whoever has such a name next
/// neither reads nor runs it.
pub async fn take_stock(node: &Arc<Node>, link: &mut Link) -> RedisResult<()> {
    let mut cursor = "0".to_string();
    let mut names = 0;
    loop {
        let scan = one("SCAN", &[&cursor, "COUNT", "1000"]);
        // A key may be any bytes; ours are text.
        let ((next, keys),): ((String, Vec<Vec<u8>>),) = link.query(&scan).await?;
        let mut unlink = redis::cmd("UNLINK");
        let mut strangers = 0;
        for key in keys.iter().filter_map(|key| std::str::from_utf8(key).ok()) {
            if owner(key).is_some_and(|user| user != ADMIN && !node.config.users.contains_key(user)) {
                unlink.arg(key);
                strangers += 1;
            } else if let Some(name) = key.strip_prefix("result:").and_then(|rest| rest.strip_suffix(":flag"))
                && names < NAMES
            {
                node.jobs.remember(name);
                names += 1;
            }
        }
        if strangers > 0 {
            tracing::info!("{strangers} keys of users that are no more are removed");
            link.query::<()>(redis::pipe().add_command(unlink).ignore()).await?;
        }
        if next == "0" {
            return Ok(());
        }
        cursor = next;
    }
}

/// The user in the name of a key.
fn owner(key: &str) -> Option<&str> {
    let mut parts = key.split(':');
    match (parts.next()?, parts.next()?, parts.next()?) {
        ("core", "user" | "inflight" | "again" | "restarts" | "batch" | "intake", user) => Some(user),
        // `result:ID:flag` is the administrator's.
        ("result" | "stream" | "logger" | "input", user, id) if id != "flag" => Some(user),
        _ => None,
    }
}

/// Whether redis answers.
pub async fn ping(link: &mut Link) -> bool {
    link.query::<(Value,)>(&one("PING", &[])).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Keys, logger_key, queue_key};

    #[test]
    fn keys_tell_whose_they_are() {
        for user in [None, Some("eve")] {
            let keys = Keys::new(user, "a");
            let own = [keys.result(), keys.flag(), keys.stream(), queue_key(user), logger_key(user, "q")];
            assert_eq!(own.each_ref().map(|key| owner(key)), [user; 5]);
            let user = user.unwrap_or(ADMIN);
            for key in [inflight_key(user), again_key(user), restarts_key(user), batch_key(user)] {
                assert_eq!(owner(&key), Some(user));
            }
        }
        for key in ["core:seq", "core:floor", "mine", "", "x:y:z"] {
            assert_eq!(owner(key), None, "{key}");
        }
    }
}
