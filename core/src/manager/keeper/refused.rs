//! Logins that redis refused, and does not say itself: one line in the log for all since the last one.
//!
//! They are read out of redis' `ACL LOG`, which is emptied by that: nobody but core0 may read it. What others were refused
//! when they were in, which is there too, they were told.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use redis::{FromRedisValue, RedisResult, Value, from_redis_value};

use crate::redis::Link;

/// Shortest time between two lines: who tries passwords for ever does not fill the log.
const PAUSE: Duration = Duration::from_secs(60);
/// Most entries that redis keeps, `acllog-max-len`. Those of one name within a minute are one.
const ENTRIES: usize = 128;
/// Most names in a line, and most characters of one.
const NAMES: usize = 5;
const NAME_MAX: usize = 64;

/// What was not told yet.
#[derive(Debug, Default)]
pub struct Refused {
    count: u64,
    /// There were more than redis keeps.
    more: bool,
    who: BTreeSet<String>,
    told: Option<Instant>,
}

impl Refused {
    /// Looks for new ones, and tells them when it is time.
    pub async fn look(&mut self, link: &mut Link) {
        match read(link).await {
            Ok(entries) => self.add(&entries),
            Err(e) => tracing::debug!("redis does not say whom it refused: {e}"),
        }
        if self.count == 0 || self.told.is_some_and(|told| told.elapsed() < PAUSE) {
            return;
        }
        tracing::warn!("{}", self.line());
        *self = Self { told: Some(Instant::now()), ..Self::default() };
    }

    fn add(&mut self, entries: &[Entry]) {
        self.more |= entries.len() >= ENTRIES;
        for entry in entries.iter().filter(|entry| entry.of_login) {
            self.count = self.count.saturating_add(entry.count);
            if self.who.len() <= NAMES {
                self.who.insert(format!("{:?} from {}", entry.user, entry.address));
            }
        }
    }

    fn line(&self) -> String {
        let least = if self.more { "at least " } else { "" };
        let mut who: Vec<&str> = self.who.iter().map(String::as_str).take(NAMES).collect();
        if self.who.len() > NAMES {
            who.push("others");
        }
        format!(
            "redis refused {least}{} logins, the name or the password is wrong: {}",
            self.count,
            who.join(", ")
        )
    }
}

/// An entry of the `ACL LOG`.
#[derive(Debug)]
struct Entry {
    of_login: bool,
    count: u64,
    /// Whatever somebody said.
    user: String,
    address: String,
}

async fn read(link: &mut Link) -> RedisResult<Vec<Entry>> {
    let mut pipeline = redis::pipe();
    pipeline.atomic().cmd("ACL").arg("LOG").arg(ENTRIES).cmd("ACL").arg("LOG").arg("RESET").ignore();
    let (entries,): (Vec<HashMap<String, Value>>,) = link.query(&pipeline).await?;
    entries.into_iter().map(entry).collect()
}

fn entry(mut fields: HashMap<String, Value>) -> RedisResult<Entry> {
    let mut text = |name: &str| -> RedisResult<String> {
        let bytes: Vec<u8> = field(&mut fields, name)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (reason, user, client) = (text("reason")?, text("username")?, text("client-info")?);
    let address = client.split(' ').find_map(|part| part.strip_prefix("addr=")).unwrap_or_default();
    Ok(Entry {
        of_login: reason == "auth",
        count: field(&mut fields, "count")?,
        user: user.chars().take(NAME_MAX).collect(),
        // Each connection has another port.
        address: address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned(),
    })
}

fn field<T: FromRedisValue>(fields: &mut HashMap<String, Value>, name: &str) -> RedisResult<T> {
    Ok(from_redis_value(fields.remove(name).unwrap_or(Value::Nil))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(of_login: bool, count: u64, user: &str) -> Entry {
        Entry { of_login, count, user: user.into(), address: "10.0.0.1".into() }
    }

    #[test]
    fn a_line_has_all_of_them_and_names_some() {
        let mut refused = Refused::default();
        refused.add(&[entry(true, 2, "eve\nx"), entry(false, 7, "bob"), entry(true, 1, "default")]);
        let begin = "redis refused 3 logins, the name or the password is wrong: ";
        assert_eq!(refused.line(), format!("{begin}\"default\" from 10.0.0.1, \"eve\\nx\" from 10.0.0.1"));
        let many: Vec<Entry> = (0..ENTRIES).map(|i| entry(true, 1, &format!("u{i}"))).collect();
        refused.add(&many);
        assert!(refused.line().starts_with("redis refused at least 131 logins"), "{}", refused.line());
        assert!(refused.line().ends_with(", others") && refused.line().len() < 400, "{}", refused.line());
    }
}
