//! How a job ended, and the result that says so within its bounds.

use crate::command::CommandError;
use crate::log::now_ms;
use crate::wire::{JobResult, LEVEL_JSON, RESULT_MAX, State};

/// Longest name of a command that is shown: all that there are.
const SHOWN: usize = 64;

/// The name of a command that somebody may have made up, in a result or a line of the log.
pub fn shown(command: &str) -> &str {
    &command[..command.floor_char_boundary(SHOWN)]
}

/// How a job, or one run of it, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// In one word.
    pub state: State,
    /// 0; an HTTP number; 1000 and an exit code.
    pub code: u32,
    /// The format of `data`.
    pub level: u16,
    /// The answer.
    pub data: String,
    /// The last lines of standard output and standard error.
    pub streams: [String; 2],
    /// Why it could not even be run.
    pub critical: String,
}

impl Outcome {
    /// A command's answer in JSON.
    pub fn answer(data: String) -> Self {
        Self { data, level: LEVEL_JSON, ..Self::bare(State::Success, 0) }
    }

    /// A command's error: a JSON string, as old clients decode `data` whatever the state.
    pub fn error(error: &CommandError) -> Self {
        let data = serde_json::Value::String(error.report()).to_string();
        let streams = [String::new(), error.stderr().to_string()];
        Self { data, streams, level: LEVEL_JSON, ..Self::bare(State::Error, error.code().number()) }
    }

    /// Nothing but a state.
    pub fn bare(state: State, code: u32) -> Self {
        Self {
            state,
            code,
            level: 0,
            data: String::new(),
            streams: Default::default(),
            critical: String::new(),
        }
    }

    /// The result that says it.
    pub fn result(self, id: &str, command: &str) -> JobResult {
        JobResult {
            id: id.into(),
            command: shown(command).into(),
            data: self.data,
            streams: self.streams,
            critical: self.critical,
            level: self.level,
            state: self.state,
            code: self.code,
            starttime: now_ms(),
            time: 0,
            tags: Vec::new(),
            container: 0,
        }
    }

    /// A state with a message, for what ended without an answer of its own.
    pub fn told(state: State, error: &CommandError) -> Self {
        Self { state, critical: error.report(), ..Self::error(error) }
    }
}

/// A result as JSON of at most [`RESULT_MAX`] bytes. Output gives way first, from its beginning; an answer that is too
/// large in itself becomes an error. All else has bounds of its own, that together are far below.
pub fn encode(mut result: JobResult) -> String {
    loop {
        let json = serde_json::to_string(&result).unwrap_or_default();
        if !json.is_empty() && json.len() <= RESULT_MAX {
            return json;
        }
        let longer = usize::from(result.streams[1].len() > result.streams[0].len());
        let stream = &mut result.streams[longer];
        if !stream.is_empty() {
            let half = stream.ceil_char_boundary(stream.len() / 2 + 1);
            stream.drain(..half);
            continue;
        }
        let bytes = result.data.len();
        let error = CommandError::internal(format!(
            "the answer is too large: {bytes} bytes, a result has at most {RESULT_MAX}; ask for less at a time"
        ));
        let outcome = Outcome::error(&error);
        (result.state, result.code, result.level, result.data) =
            (outcome.state, outcome.code, outcome.level, outcome.data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(data: String, streams: [String; 2]) -> JobResult {
        JobResult {
            id: "a".into(),
            command: "x".into(),
            data,
            streams,
            critical: String::new(),
            level: LEVEL_JSON,
            state: State::Success,
            code: 0,
            starttime: 1,
            time: 2,
            tags: vec!["t".into()],
            container: 0,
        }
    }

    #[test]
    fn output_that_grows_in_json_is_cut_from_its_beginning() {
        let noise = "\u{1}".repeat(256 << 10) + "end";
        let json = encode(result("1".into(), [noise.clone(), noise]));
        let back: JobResult = serde_json::from_str(&json).unwrap();
        assert!(json.len() <= RESULT_MAX && json.len() > RESULT_MAX / 4, "{}", json.len());
        assert!(back.streams.iter().all(|stream| stream.ends_with("end")));
        assert_eq!((back.state, back.data.as_str()), (State::Success, "1"));
    }

    #[test]
    fn an_answer_that_is_too_large_is_an_error() {
        let json = encode(result("x".repeat(RESULT_MAX), Default::default()));
        let back: JobResult = serde_json::from_str(&json).unwrap();
        assert_eq!((back.state, back.code), (State::Error, 500));
        assert!(back.data.contains("too large"), "{}", back.data);
    }
}
