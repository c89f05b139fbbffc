//! Commands coming in: one task for each user's queue, with a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use redis::{RedisResult, Script};

use super::{BATCH, Ticket, batch_key, inflight_key};
use crate::context::Node;
use crate::job::{AtOnce, Jobs, Sender};
use crate::redis::{Link, one};
use crate::wire::{Keys, RESULT_LIFE, queue_key};

/// How long one wait for a command takes, in seconds; it ends sooner when one comes.
const WAIT: &str = "5";
/// Pauses after a failure.
const PAUSE: [u64; 5] = [20, 50, 100, 200, 500];

/// Bytes after which a batch takes no more commands: a reply must fit into what redis keeps for one connection.
const BATCH_BYTES: usize = 8 << 20;

/// Takes what BLMOVE moved and as many more as it is told, numbers them, and puts them into the hash. It runs when memory is full
/// too: taking commands is what frees it.
///
/// The key of the batch says which numbers the last one had. Until they are acknowledged by the next call (`seen`), no other batch
/// is taken: a reply that got lost is given again. A call that redis runs late, after the one that replaced it, only reads.
///
/// What BLMOVE moved may be answered here and now, when the answer is known: it is not accepted then, and answered once as it is
/// taken away with that.
///
/// A redis that knows nothing begins to number at the time of its clock in us, which it notes as `core:floor`: no number is ever
/// given twice, also when the data of the redis before it is lost.
const ACCEPT: &str = r"#!lua flags=allow-oom
local given = 0
local function give(key, value)
  local reply = redis.pcall('RPUSH', key, value)
  if type(reply) == 'table' and reply.err then
    redis.call('DEL', key)
    redis.call('RPUSH', key, value)
  end
  redis.call('EXPIRE', key, ARGV[6])
end
if ARGV[5] ~= '' and redis.call('LINDEX', KEYS[2], 0) == ARGV[4] then
  redis.call('LPOP', KEYS[2])
  give(KEYS[6], ARGV[5])
  give(KEYS[7], '')
  given = 1
end
local count, limit, seen = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local batch, accepted = redis.pcall('GET', KEYS[5]), {}
local first, last = string.match(type(batch) == 'string' and batch or '', '^(%d+) (%d+)$')
if last and tonumber(last) > seen then
  for seq = math.max(tonumber(first), seen + 1), tonumber(last) do
    local raw = redis.call('HGET', KEYS[3], seq)
    if raw then accepted[#accepted + 1] = { seq, raw } end
  end
  if #accepted > 0 then return { given, accepted } end
end
if redis.call('EXISTS', 'core:floor') == 0 then
  local now = redis.call('TIME')
  local floor = string.format('%.0f', now[1] * 1000000 + now[2])
  redis.call('MSET', KEYS[4], floor, 'core:floor', floor)
end
local raws, bytes = redis.call('LRANGE', KEYS[2], 0, -1), 0
for _, raw in ipairs(raws) do bytes = bytes + #raw end
while #raws < count and bytes < limit do
  local raw = redis.pcall('LPOP', KEYS[1])
  if type(raw) ~= 'string' then break end
  raws[#raws + 1], bytes = raw, bytes + #raw
end
redis.call('DEL', KEYS[2])
if #raws == 0 then return { given, {} } end
last = redis.call('INCRBY', KEYS[4], #raws)
local fields = {}
for i, raw in ipairs(raws) do
  local seq = last - #raws + i
  fields[2 * i - 1], fields[2 * i] = seq, raw
  accepted[i] = { seq, raw }
end
redis.call('HSET', KEYS[3], unpack(fields))
redis.call('SET', KEYS[5], string.format('%.0f %.0f', last - #raws + 1, last))
return { given, accepted }";

/// One user's queue.
pub struct Intake {
    sender: Sender,
    user: Arc<str>,
    keys: [String; 5],
    /// The number of the last command that was handed on.
    seen: u64,
    /// The answer to what was moved last.
    answer: Option<AtOnce>,
    script: Script,
    link: Link,
}

impl Intake {
    /// The queue of a user, of which [`recover`](super::recover::recover) has dealt with all up to `seen`.
    pub fn new(sender: Sender, link: Link, seen: u64) -> Self {
        let user: Arc<str> = sender.caller.user.as_str().into();
        let queue = queue_key(sender.caller.name());
        let intake = format!("core:intake:{user}");
        let keys = [queue, intake, inflight_key(&user), "core:seq".into(), batch_key(&user)];
        Self { sender, user, keys, seen, answer: None, script: Script::new(ACCEPT), link }
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
        let (moved,) = self.link.query::<(Option<Vec<u8>>,)>(&wait).await?;
        self.answer = moved.and_then(|raw| Jobs::at_once(node, &self.sender, &raw));
        Ok(())
    }

    async fn accept(&mut self, node: &Arc<Node>) -> RedisResult<usize> {
        let mut call = self.script.prepare_invoke();
        for key in &self.keys {
            call.key(key);
        }
        // Taken: when it is not known whether it was given, it is made again.
        let answer = self.answer.take();
        let keys = answer.as_ref().map(|answer| &answer.keys);
        call.key(keys.map(Keys::result).unwrap_or_default()).key(keys.map(Keys::flag).unwrap_or_default());
        call.arg(BATCH).arg(BATCH_BYTES).arg(self.seen);
        call.arg(answer.as_ref().map_or(&[][..], |answer| &answer.raw));
        call.arg(answer.as_ref().map_or("", |answer| &answer.json)).arg(RESULT_LIFE.as_secs());
        let (given, accepted): (u8, Vec<(u64, Vec<u8>)>) = self.link.invoke(&call).await?;
        if let Some(answer) = answer.filter(|_| given == 1) {
            node.jobs.remember(answer.keys.name());
        }
        for (seq, raw) in &accepted {
            let ticket = Ticket { user: self.user.clone(), seq: *seq, resumed: false };
            Jobs::accept(node, &self.sender, ticket, raw).await;
            self.seen = *seq;
        }
        Ok(accepted.len())
    }
}
