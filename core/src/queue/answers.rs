//! Results going out, many to a round trip, each exactly once.

use std::sync::Arc;
use std::time::Duration;

use redis::{RedisResult, Script};
use tokio::sync::mpsc;

use super::{BATCH, Note};
use crate::log::Logs;
use crate::redis::Link;
use crate::wire::RESULT_LIFE;

/// Notes that wait for redis; jobs that would add more wait.
const WAITING: usize = 4096;
/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(50);

/// A key that somebody made something else of is ours again: one such would hold back all results.
///
/// The result of a named user is a stream of one entry: it can be waited for and read again with XREAD, by who may write
/// nothing. What a redis accepted whose data is lost is not in the hash of the one that was begun after it: its number is not
/// above `core:floor`, and it is answered if there is no result yet.
///
/// For each note: four keys (hash, set, result, flag) and three arguments (what, field, result). What began has its flag;
/// another `answer` brings it along, unless an earlier manager had told. `restarts` has in place of
/// the set, and `forget` in place of the hash, the hash of how often processes were started again.
const ANSWER: &str = r"#!lua flags=allow-oom
local life = ARGV[1]
local function again_ours(key, ...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    redis.call('DEL', key)
    redis.call(...)
  end
end
local function push(key, value) again_ours(key, 'RPUSH', key, value) end
local function taken(hash, seq, result)
  if redis.call('HDEL', hash, seq) == 1 then return true end
  local floor = tonumber(redis.call('GET', 'core:floor') or '') or math.huge
  return tonumber(seq) <= floor and redis.call('EXISTS', result) == 0
end
for i = 0, #KEYS / 4 - 1 do
  local hash, again, result, flag = KEYS[4 * i + 1], KEYS[4 * i + 2], KEYS[4 * i + 3], KEYS[4 * i + 4]
  local what, seq, json = ARGV[3 * i + 2], ARGV[3 * i + 3], ARGV[3 * i + 4]
  if what == 'push' then
    push(hash, json)
  elseif what == 'begin' then
    if redis.call('HEXISTS', hash, seq) == 1 and redis.call('EXISTS', flag) == 0 then push(flag, '') end
  elseif what == 'restarts' then
    if redis.call('HEXISTS', hash, seq) == 1 then again_ours(again, 'HSET', again, seq, json) end
  elseif what == 'forget' then
    again_ours(hash, 'HDEL', hash, seq)
  elseif taken(hash, seq, result) then
    if again ~= '' then redis.call('SREM', again, seq) end
    if what ~= 'drop' then
      if hash == 'core:inflight:default' then
        push(result, json)
      else
        again_ours(result, 'XADD', result, '1-0', 'json', json)
      end
      redis.call('EXPIRE', result, life)
      if (what == 'answer' and again == '') or redis.call('EXISTS', flag) == 0 then push(flag, '') end
      redis.call('EXPIRE', flag, life)
    end
  end
end";

/// Both ends of the way out.
pub fn channel() -> (mpsc::Sender<Note>, Answers) {
    let (sender, notes) = mpsc::channel(WAITING);
    (sender, Answers { notes })
}

/// The end that writes to redis.
#[derive(Debug)]
pub struct Answers {
    notes: mpsc::Receiver<Note>,
}

impl Answers {
    /// Writes until the senders are gone. What redis does not take is offered again until it does.
    pub async fn run(mut self, mut link: Link, logs: Arc<Logs>) {
        let script = Script::new(ANSWER);
        let mut batch = Vec::with_capacity(BATCH);
        while self.notes.recv_many(&mut batch, BATCH).await > 0 {
            // Whose job is answered is not asked again for what it printed.
            if batch.iter().any(|note| matches!(note, Note::Answer { child: Some(_), .. })) {
                logs.flush().await;
            }
            let mut failures = 0;
            while let Err(e) = write(&script, &mut link, &batch).await {
                if failures == 0 {
                    tracing::warn!("{} results wait for redis: {e}", batch.len());
                }
                failures += 1;
                tokio::time::sleep(PAUSE).await;
            }
            batch.clear();
        }
    }
}

async fn write(script: &Script, link: &mut Link, batch: &[Note]) -> RedisResult<()> {
    let mut call = script.prepare_invoke();
    call.arg(RESULT_LIFE.as_secs());
    for note in batch {
        let (what, ticket, keys, json) = match note {
            Note::Begin { ticket, keys } => ("begin", ticket, Some(keys), ""),
            Note::Answer { ticket, keys, json, begun: false, .. } => {
                ("answer", ticket, Some(keys), json.as_str())
            }
            Note::Answer { ticket, keys, json, begun: true, .. } => {
                ("end", ticket, Some(keys), json.as_str())
            }
            Note::Drop { ticket } => ("drop", ticket, None, ""),
            Note::Restarts { ticket, count } => {
                call.key(ticket.inflight()).key(ticket.restarts()).key("").key("");
                call.arg("restarts").arg(ticket.seq).arg(count);
                continue;
            }
            Note::Push { queue, json } => {
                call.key(queue).key("").key("").key("").arg("push").arg("").arg(json);
                continue;
            }
        };
        call.key(ticket.inflight()).key(if ticket.resumed { ticket.again() } else { String::new() });
        call.key(keys.map(|keys| keys.result()).unwrap_or_default());
        call.key(keys.map(|keys| keys.flag()).unwrap_or_default());
        call.arg(what).arg(ticket.seq).arg(json);
        if let Note::Answer { restarted: true, .. } = note {
            call.key(ticket.restarts()).key("").key("").key("").arg("forget").arg(ticket.seq).arg("");
        }
    }
    link.invoke(&call).await
}
