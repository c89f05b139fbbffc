//! Commands coming in: one task for each user's queue, with a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use redis::{RedisResult, Script};

use super::{BATCH, Ticket, inflight_key};
use crate::context::Node;
use crate::job::{Jobs, Sender};
use crate::redis::{Link, one};
use crate::wire::queue_key;

/// How long one wait for a command takes, in seconds; it ends sooner when one comes.
const WAIT: &str = "5";
/// Pauses after a failure.
const PAUSE: [u64; 5] = [20, 50, 100, 200, 500];

/// Takes what BLMOVE moved and up to as many more as it is told, numbers them, and puts them into the hash. It runs when memory is full
/// too: taking commands is what frees it.
const ACCEPT: &str = r"#!lua flags=allow-oom
local raws = redis.call('LRANGE', KEYS[2], 0, -1)
redis.call('DEL', KEYS[2])
local more = redis.pcall('LPOP', KEYS[1], ARGV[1])
if more and not more.err then for _, raw in ipairs(more) do raws[#raws + 1] = raw end end
if #raws == 0 then return {} end
local last = redis.call('INCRBY', KEYS[4], #raws)
local accepted, fields = {}, {}
for i, raw in ipairs(raws) do
  local seq = last - #raws + i
  fields[2 * i - 1], fields[2 * i] = seq, raw
  accepted[i] = { seq, raw }
end
redis.call('HSET', KEYS[3], unpack(fields))
return accepted";

/// One user's queue.
pub struct Intake {
    sender: Sender,
    user: Arc<str>,
    keys: [String; 4],
    script: Script,
    link: Link,
}

impl Intake {
    /// The queue of a user.
    pub fn new(sender: Sender, link: Link) -> Self {
        let user: Arc<str> = sender.caller.user.as_str().into();
        let queue = queue_key(sender.caller.name());
        let keys = [queue, format!("core:intake:{user}"), inflight_key(&user), "core:seq".into()];
        Self { sender, user, keys, script: Script::new(ACCEPT), link }
    }

    /// Accepts commands for ever.
    pub async fn run(mut self, node: Arc<Node>) {
        let mut failures = 0;
        loop {
            match self.turn(&node).await {
                Ok(()) => failures = 0,
                Err(e) => {
                    if failures == 0 {
                        tracing::warn!("no commands from {}: {e}", self.keys[0]);
                    }
                    let pause = PAUSE[failures.min(PAUSE.len() - 1)];
                    failures += 1;
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
            }
        }
    }

    /// Takes all there is, then waits for one.
    async fn turn(&mut self, node: &Arc<Node>) -> RedisResult<()> {
        while self.accept(node).await? >= BATCH {}
        let wait = one("BLMOVE", &[&self.keys[0], &self.keys[1], "LEFT", "RIGHT", WAIT]);
        self.link.query::<(Option<Vec<u8>>,)>(&wait).await.map(drop)
    }

    async fn accept(&mut self, node: &Arc<Node>) -> RedisResult<usize> {
        let mut call = self.script.prepare_invoke();
        for key in &self.keys {
            call.key(key);
        }
        call.arg(BATCH);
        let accepted: Vec<(u64, Vec<u8>)> = self.link.invoke(&call).await?;
        for (seq, raw) in &accepted {
            let ticket = Ticket { user: self.user.clone(), seq: *seq, resumed: false };
            Jobs::accept(node, &self.sender, ticket, raw).await;
        }
        Ok(accepted.len())
    }
}
