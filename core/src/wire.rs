//! What goes over redis: the names of keys, a command, its result, the records of a stream.
//!
//! Old clients decide most of it (the Python client `g8core` 1.0.0):
//!
//! - A command is one JSON object, pushed to `core:default` by redis' user `default`, or to `core:user:NAME`.
//! - `result:ID` is a list with one JSON object. It is read as often as one likes and is gone after [`RESULT_LIFE`]. Old
//!   clients wait for it by moving it onto itself, which is a write. A named user may write nothing but its queue: its
//!   `result:NAME:ID` is a redis stream of one entry with the field `json`, to be waited for with XREAD from 0.
//! - `result:ID:flag` (`result:NAME:ID:flag`) is a list that is there from acceptance on; without a time to live the job is running.
//! - `stream:ID` (`stream:NAME:ID`) is a redis stream, so that many read it, each from where it likes. An entry has the
//!   fields `level`, `time` (ms since 1970) and `text`; the last one has the field `end` with the state of the job. When the
//!   manager was killed, the lines of its last moment may be there twice; the result and the log have each once.
//! - `input:ID` is a list: what is pushed to it is typed on the terminal of a job that has one. Named users have `job.input`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::command::CommandError;
use crate::process::level::is_known;

/// Most bytes of a command: old clients send 512 KiB of a file as base64 in one.
pub const COMMAND_MAX: usize = 2 << 20;
/// Most bytes of a result.
pub const RESULT_MAX: usize = 1 << 20;
/// Most bytes of all tags of a command: they come back in the result, beside the answer.
const TAGS_MAX: usize = 64 << 10;
/// How long a result can be read.
pub const RESULT_LIFE: Duration = Duration::from_secs(300);
/// How long the stream of a job that ended can be read.
pub const STREAM_LIFE: Duration = Duration::from_secs(60);
/// Most entries of a stream, about.
pub const STREAM_LENGTH: usize = 1000;
/// Longest id of a command.
const ID_MAX: usize = 128;
/// Shortest pause between two looks at what a job uses: what is less is this.
const STATS_MIN: Duration = Duration::from_secs(1);
/// Shortest pause between two runs of a recurring job: what is less is this.
const PERIOD_MIN: Duration = Duration::from_millis(10);
/// Longest value of a time, in seconds: ten years.
const SECONDS_MAX: u64 = 10 * 365 * 24 * 3600;

/// The list that a user's commands come from.
pub fn queue_key(user: Option<&str>) -> String {
    user.map_or_else(|| "core:default".to_string(), |name| format!("core:user:{name}"))
}

/// The keys of one command, which say whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Keys {
    name: String,
}

impl Keys {
    /// Those of command `id` of a user.
    pub fn new(user: Option<&str>, id: &str) -> Self {
        Self { name: user.map_or_else(|| id.to_string(), |user| format!("{user}:{id}")) }
    }

    /// `ID` or `USER:ID`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The list with the result.
    pub fn result(&self) -> String {
        format!("result:{}", self.name)
    }

    /// The list that says that the command was accepted.
    pub fn flag(&self) -> String {
        format!("result:{}:flag", self.name)
    }

    /// The list of what is typed on its terminal.
    pub fn input(&self) -> String {
        format!("input:{}", self.name)
    }

    /// The stream of the output.
    pub fn stream(&self) -> String {
        format!("stream:{}", self.name)
    }
}

/// The stream of a log's listener.
pub fn logger_key(user: Option<&str>, name: &str) -> String {
    user.map_or_else(|| format!("logger:{name}"), |user| format!("logger:{user}:{name}"))
}

/// The stream of what statistics came to in spans of so many seconds.
pub fn statistics_key(span: u64) -> String {
    format!("statistics:{span}")
}

/// Whether a string can be an id or a user: it becomes part of keys, so nothing in it may look like one of ours.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= ID_MAX && name != "flag" && name.chars().all(plain)
}

/// A command as it was sent. `null` is absent, unknown fields are ignored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Envelope {
    /// Names the job, the result and the stream.
    pub id: String,
    /// What to do, like `core.ping`.
    pub command: String,
    /// With what.
    pub arguments: Value,
    /// Commands with the same queue run one after the other.
    pub queue: Option<String>,
    /// After this long the job is killed.
    pub max_time: Option<Duration>,
    /// How often a process is started again when it failed.
    pub max_restart: u32,
    /// A job is run again this long after it ended, until it is unscheduled.
    pub recurring_period: Option<Duration>,
    /// How often it is said what the processes of the job use, as messages of level 10.
    pub stats_interval: Option<Duration>,
    /// Whether the output goes to `stream:ID` too.
    pub stream: bool,
    /// Levels that are logged; all when empty.
    pub log_levels: Vec<u16>,
    /// Given back in the result.
    pub tags: Vec<String>,
    /// The container that carries it out; otherwise the node does.
    pub container: Option<u32>,
}

/// Why something that was pushed is no command.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Nobody can be answered: it is only logged.
    #[error("{0}")]
    NoId(String),
    /// The sender of `id` can be told.
    #[error("command {id}: {error}")]
    Refused {
        /// The id to answer.
        id: String,
        /// The name of the command, as far as it was understood.
        command: String,
        /// What is wrong.
        error: CommandError,
    },
}

impl Envelope {
    /// Reads what was pushed.
    pub fn parse(raw: &[u8]) -> Result<Self, EnvelopeError> {
        if raw.len() > COMMAND_MAX {
            return Err(unread(raw, format!("{} bytes, a command has at most {COMMAND_MAX}", raw.len())));
        }
        // serde_json gives up below 128 levels of nesting.
        let mut fields: BTreeMap<String, Value> =
            serde_json::from_slice(raw).map_err(|e| unread(raw, format!("no command in JSON: {e}")))?;
        fields.retain(|_, value| !value.is_null());
        let id = match fields.remove("id") {
            Some(Value::String(id)) if is_name(&id) => id,
            Some(other) => {
                let shown: String = other.to_string().chars().take(ID_MAX).collect();
                return Err(EnvelopeError::NoId(format!(
                    "id {shown} is not made of 1 to {ID_MAX} letters, digits, '-', '_' and '.'"
                )));
            }
            None => return Err(EnvelopeError::NoId("a command without id".into())),
        };
        let fields = Fields(fields);
        fields.read(&id).map_err(|fault| EnvelopeError::Refused {
            command: fields.0.get("command").and_then(Value::as_str).unwrap_or_default().to_string(),
            error: CommandError::bad_request(fault),
            id,
        })
    }
}

/// Of a command that is too long, too deep or not UTF-8 only the id is read, and all else passed over, however deep it is.
/// redis takes no more than twice the bytes of a command, so that is bounded too.
fn unread(raw: &[u8], fault: String) -> EnvelopeError {
    #[derive(Deserialize)]
    struct OnlyId {
        id: String,
    }
    match serde_json::from_slice(raw) {
        Ok(OnlyId { id }) if is_name(&id) => {
            EnvelopeError::Refused { id, command: String::new(), error: CommandError::bad_request(fault) }
        }
        Ok(_) | Err(_) => EnvelopeError::NoId(fault),
    }
}

struct Fields(BTreeMap<String, Value>);

impl Fields {
    fn read(&self, id: &str) -> Result<Envelope, String> {
        let command = self.get::<String>("command")?.ok_or("the command is missing")?;
        Ok(Envelope {
            id: id.to_string(),
            command,
            arguments: self.0.get("arguments").cloned().unwrap_or(Value::Null),
            queue: self.get::<String>("queue")?.filter(|queue| !queue.is_empty()),
            max_time: self.seconds("max_time")?,
            max_restart: self.get("max_restart")?.unwrap_or(0),
            recurring_period: self.seconds("recurring_period")?.map(|period| period.max(PERIOD_MIN)),
            stats_interval: self.seconds("stats_interval")?.map(|pause| pause.max(STATS_MIN)),
            stream: self.get("stream")?.unwrap_or(false),
            log_levels: self.levels()?,
            tags: self.tags()?,
            container: self.get("container")?.filter(|container| *container != 0),
        })
    }

    /// One, or a list.
    fn tags(&self) -> Result<Vec<String>, String> {
        let tags: Vec<String> = match self.0.get("tags") {
            Some(Value::String(one)) => vec![one.clone()],
            _ => self.get("tags")?.unwrap_or_default(),
        };
        // An empty one takes room, too.
        match tags.iter().map(|tag| tag.len() + 1).sum() {
            0..=TAGS_MAX => Ok(tags),
            bytes => Err(format!("tags: {bytes} bytes, a command has at most {TAGS_MAX} of them")),
        }
    }

    /// Levels of messages: a typo would log nothing at all.
    fn levels(&self) -> Result<Vec<u16>, String> {
        let levels: Vec<u16> = self.get("log_levels")?.unwrap_or_default();
        match levels.iter().find(|level| !is_known(**level)) {
            Some(level) => Err(format!("log_levels: {level} is no level: they are 1 to 11, 20 to 23 and 30")),
            None => Ok(levels),
        }
    }

    fn get<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, String> {
        self.0.get(name).map(|value| T::deserialize(value).map_err(|e| format!("{name}: {e}"))).transpose()
    }

    /// Seconds, with fractions; 0 is none.
    fn seconds(&self, name: &str) -> Result<Option<Duration>, String> {
        match self.get::<f64>(name)? {
            None | Some(0.0) => Ok(None),
            Some(seconds) if seconds > 0.0 && seconds <= SECONDS_MAX as f64 => {
                Ok(Some(Duration::from_secs_f64(seconds)))
            }
            Some(seconds) => Err(format!("{name}: {seconds} is not between 0 and {SECONDS_MAX} seconds")),
        }
    }
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// As it should.
    Success,
    /// With an error, or with an exit code other than 0.
    Error,
    /// It was killed after `max_time`.
    Timeout,
    /// It was killed by somebody.
    Killed,
    /// There is no such command.
    UnknownCmd,
    /// The id was there already. Only logged: the sender reads the first result.
    DuplicateId,
}

impl State {
    /// As it is in a result.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::Error => "ERROR",
            Self::Timeout => "TIMEOUT",
            Self::Killed => "KILLED",
            Self::UnknownCmd => "UNKNOWN_CMD",
            Self::DuplicateId => "DUPLICATE_ID",
        }
    }
}

/// A result, in the fields that every client knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// Of the command.
    pub id: String,
    /// What was run.
    pub command: String,
    /// The answer, in the format that `level` tells.
    pub data: String,
    /// The last lines of standard output and standard error.
    pub streams: [String; 2],
    /// Why it could not even be run.
    pub critical: String,
    /// 20 when `data` is JSON; 0 when there is none.
    pub level: u16,
    /// How it ended.
    pub state: State,
    /// 0; an HTTP number from a command; 1000 and the exit code from a process.
    pub code: u32,
    /// When it began, in ms since 1970.
    pub starttime: u64,
    /// How long it took, in ms.
    pub time: u64,
    /// Those of the command.
    pub tags: Vec<String>,
    /// The container that ran it; 0 is the node.
    pub container: u64,
}

/// The level of JSON in `data`.
pub const LEVEL_JSON: u16 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(raw: &str) -> (String, String) {
        match Envelope::parse(raw.as_bytes()).unwrap_err() {
            EnvelopeError::Refused { id, error, .. } => (id, error.to_string()),
            EnvelopeError::NoId(fault) => panic!("no id: {fault}"),
        }
    }

    #[test]
    fn what_the_old_client_sends_is_read() {
        let raw = br#"{"id": "a-1", "command": "core.ping", "arguments": {}}"#;
        let read = Envelope::parse(raw).unwrap();
        assert_eq!((read.id.as_str(), read.command.as_str(), read.max_time), ("a-1", "core.ping", None));
    }

    #[test]
    fn nulls_are_absent_and_later_fields_are_read() {
        let raw = r#"{"id":"a","command":"x","arguments":null,"queue":null,"max_time":null,"tags":"one",
            "recurring_period":1.5,"stream":true,"log_levels":[1,2],"max_restart":3,"stats_interval":0.5,"newer":{}}"#;
        let read = Envelope::parse(raw.as_bytes()).unwrap();
        assert_eq!(read.recurring_period, Some(Duration::from_millis(1500)));
        assert_eq!(read.stats_interval, Some(Duration::from_secs(1)));
        assert_eq!((read.queue, read.max_time, read.tags), (None, None, vec!["one".to_string()]));
        assert_eq!((read.stream, read.log_levels, read.max_restart), (true, vec![1, 2], 3));
    }

    #[test]
    fn a_wrong_field_is_told_to_the_sender() {
        assert_eq!(refused(r#"{"id":"a"}"#), ("a".into(), "the command is missing".into()));
        let (_, fault) = refused(r#"{"id":"a","command":"x","max_time":-1}"#);
        assert!(fault.starts_with("max_time: -1 is not between"), "{fault}");
        let (_, fault) = refused(r#"{"id":"a","command":"x","log_levels":[1,99]}"#);
        assert!(fault.starts_with("log_levels: 99 is no level"), "{fault}");
        for tags in [serde_json::json!("x".repeat(TAGS_MAX)), serde_json::json!(vec![""; TAGS_MAX + 1])] {
            let (_, fault) = refused(&format!(r#"{{"id":"a","command":"x","tags":{tags}}}"#));
            assert!(fault.starts_with("tags: 65537 bytes, a command has at most 65536"), "{fault}");
        }
        let (_, fault) = refused(r#"{"id":"a","command":["x"]}"#);
        assert!(fault.starts_with("command: invalid type"), "{fault}");
    }

    #[test]
    fn without_a_usable_id_there_is_nobody_to_answer() {
        let deep = format!(r#"{{"id":"a","command":"x","arguments":{}1"#, "[".repeat(5000));
        let raws: [&[u8]; 8] = [
            b"",
            b"\xff\xfe",
            b"[]",
            br#"{"command":"x"}"#,
            br#"{"id":7,"command":"x"}"#,
            br#"{"id":"a:flag","command":"x"}"#,
            br#"{"id":"flag","command":"x"}"#,
            deep.as_bytes(),
        ];
        for raw in raws {
            assert!(matches!(Envelope::parse(raw), Err(EnvelopeError::NoId(_))), "{raw:?}");
        }
    }

    #[test]
    fn an_oversized_command_is_refused_by_its_id() {
        let long = format!(r#"{{"id": "big", "command": "x", "arguments": "{}"}}"#, "x".repeat(COMMAND_MAX));
        let (id, fault) = refused(&long);
        assert_eq!(id, "big");
        assert!(fault.contains("at most"), "{fault}");
        let hidden = long.replace(r#""id": "big", "#, r#""id": 1, "#);
        assert!(matches!(Envelope::parse(hidden.as_bytes()), Err(EnvelopeError::NoId(_))));
    }

    #[test]
    fn what_is_too_deep_or_not_utf_8_is_refused_by_its_id() {
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let (id, fault) =
            refused(&format!(r#"{{"command":"x","arguments":{},"id":"deep"}}"#, nested(500_000)));
        assert!(id == "deep" && fault.contains("recursion limit"), "{id}: {fault}");
        let raw = b"{\"id\":\"odd\",\"command\":\"x\",\"arguments\":{\"name\":\"\xff\"}}";
        match Envelope::parse(raw).unwrap_err() {
            EnvelopeError::Refused { id, error, .. } => {
                assert!(id == "odd" && error.to_string().contains("unicode"), "{id}: {error}");
            }
            EnvelopeError::NoId(fault) => panic!("{fault}"),
        }
        assert!(matches!(Envelope::parse(b"{\"id\":\"\xff\"}"), Err(EnvelopeError::NoId(_))));
    }

    #[test]
    fn keys_of_users_do_not_meet() {
        assert_eq!(Keys::new(None, "a").flag(), "result:a:flag");
        assert_eq!(Keys::new(Some("bob"), "a").result(), "result:bob:a");
        assert_eq!(queue_key(Some("bob")), "core:user:bob");
    }
}
