//! Errands: commands that are carried out inside of a container, by a child of its first process.
//!
//! The child is a copy of container-init, made without exec. It has the container's namespaces, its root filesystem, its
//! ids, its rights and its limits, and nothing of the node's: what it sees is what the container has, and no path, link or
//! file in there leads it anywhere else. The manager opens nothing of a container and reads nothing there; a file that a
//! caller holds open it keeps, and lends it to each errand that reads or writes it.
//!
//! What comes back may come from anybody in there: it is an answer of at most [`RESULT_MAX`] bytes, or an error.

use std::fs::File;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Code, Command, CommandError, Role, decode, find};
use crate::wire::RESULT_MAX;

/// First byte of what comes back.
const ANSWER: u8 = b'A';
const ERROR: u8 = b'E';
/// Most bytes of what comes back.
pub const REPLY_MAX: usize = 1 + RESULT_MAX;

/// A command that a container carries out as well.
pub trait Inside: Command {
    /// Whether it works on the open file that its argument `fd` names.
    const ON_FILE: bool = false;

    /// Whether the container has to be asked. What is not about the container itself, the node answers for it.
    fn is_errand(_arguments: &Value) -> bool {
        true
    }

    /// Does it, in a process that has nothing else to do.
    fn inside(self, hand: &mut Hand) -> Result<Self::Output, CommandError>;
}

/// What becomes of a command that is for a container.
#[derive(Clone, Copy, Debug)]
pub enum ForContainer {
    /// It is refused: it is about the node.
    Refused,
    /// The node answers for the container.
    Node,
    /// The container is asked.
    Errand {
        /// Whether it has to be, with these arguments.
        is_errand: fn(&Value) -> bool,
        /// Whether it works on an open file.
        on_file: bool,
        /// Does it in there.
        run: fn(Value, &mut Hand) -> Result<String, CommandError>,
    },
}

/// What a command has in its hand inside.
#[derive(Debug)]
pub struct Hand {
    /// What its caller may.
    pub role: Role,
    /// The file that it works on.
    pub file: Option<File>,
    /// A file that the caller holds open from now on.
    pub opened: Option<OwnedFd>,
}

impl Hand {
    /// The file that it works on.
    pub fn file(&self) -> Result<&File, CommandError> {
        self.file.as_ref().ok_or_else(|| CommandError::internal("the errand came without its file"))
    }
}

/// A command on its way into a container.
#[derive(Debug, Serialize, Deserialize)]
pub struct Errand {
    /// Its name.
    pub command: String,
    /// Its arguments.
    pub arguments: Value,
    /// What its caller may.
    pub role: Role,
}

/// An error on its way out.
#[derive(Serialize, Deserialize)]
struct Told {
    code: u32,
    message: String,
    stderr: String,
}

/// Carries out an errand, given in JSON: what comes back, and a file that was opened. Runs inside.
pub fn carry_out(json: &[u8], file: Option<OwnedFd>) -> (Vec<u8>, Option<OwnedFd>) {
    let mut opened = None;
    let done = serde_json::from_slice(json)
        .map_err(|e| CommandError::bad_request("the errand cannot be read").because(e))
        .and_then(|errand: Errand| {
            let mut hand = Hand { role: errand.role, file: file.map(File::from), opened: None };
            let answer = match find(&errand.command).map(|entry| entry.for_container) {
                Some(ForContainer::Errand { run, .. }) => run(errand.arguments, &mut hand),
                Some(_) | None => Err(CommandError::not_found("there is no such errand")),
            };
            opened = hand.opened;
            answer
        });
    let done = done.and_then(|answer| match answer.len() {
        0..=RESULT_MAX => Ok(answer),
        bytes => Err(CommandError::internal(format!(
            "the answer is too large: {bytes} bytes, a result has at most {RESULT_MAX}; ask for less at a time"
        ))),
    });
    let reply = match done {
        Ok(answer) => [&[ANSWER], answer.as_bytes()].concat(),
        Err(error) => {
            let told = Told {
                code: error.code().number(),
                message: error.report(),
                stderr: error.stderr().to_owned(),
            };
            [&[ERROR], serde_json::to_vec(&told).unwrap_or_default().as_slice()].concat()
        }
    };
    (reply, opened)
}

/// Reads what came back.
pub fn read_reply(reply: Vec<u8>) -> Result<String, CommandError> {
    let broken =
        || CommandError::internal("the container gave no answer: what carried the command out has died");
    let (kind, rest) = reply.split_first().ok_or_else(broken)?;
    match *kind {
        ANSWER => String::from_utf8(rest.to_vec()).map_err(|e| broken().because(e)),
        ERROR => {
            let told: Told = serde_json::from_slice(rest).map_err(|e| broken().because(e))?;
            let code = Code::ALL.into_iter().find(|code| code.number() == told.code);
            Err(CommandError::new(code.unwrap_or(Code::Internal), told.message).with_stderr(told.stderr))
        }
        _ => Err(broken()),
    }
}

/// The row of a command that a container carries out.
pub(super) const fn for_container<C: Inside>() -> ForContainer {
    ForContainer::Errand { is_errand: C::is_errand, on_file: C::ON_FILE, run: run::<C> }
}

fn run<C: Inside>(arguments: Value, hand: &mut Hand) -> Result<String, CommandError> {
    let output = decode::<C>(C::NAME, arguments)?.inside(hand)?;
    serde_json::to_string(&output)
        .map_err(|e| CommandError::internal(format!("the answer of {} is not JSON", C::NAME)).because(e))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn carried(command: &str, arguments: Value, role: Role) -> Result<String, CommandError> {
        let errand = Errand { command: command.into(), arguments, role };
        let (reply, opened) = carry_out(&serde_json::to_vec(&errand).unwrap(), None);
        assert!(opened.is_none() && reply.len() <= REPLY_MAX);
        read_reply(reply)
    }

    #[test]
    fn answers_and_errors_come_back_as_they_are() {
        let os: Value = serde_json::from_str(&carried("info.os", json!({}), Role::Read).unwrap()).unwrap();
        assert_eq!(os["os"], "linux");
        let error = carried("process.list", json!({"pid": i64::MAX}), Role::Read).unwrap_err();
        assert_eq!((error.code(), error.report()), (Code::NotFound, format!("no process {}", i64::MAX)));
        let error = carried("process.kill", json!({"pid": 2}), Role::Operate).unwrap_err();
        assert_eq!(error.code(), Code::Forbidden);
        let error = carried("info.os", json!([]), Role::Read).unwrap_err();
        assert_eq!(error.code(), Code::BadRequest);
    }

    #[test]
    fn what_is_the_nodes_is_no_errand() {
        for command in ["core.ping", "disk.list", "filesystem.close", "no.such"] {
            assert_eq!(carried(command, json!({}), Role::Admin).unwrap_err().code(), Code::NotFound);
        }
    }

    #[test]
    fn what_comes_back_is_an_answer_or_an_error_whoever_sent_it() {
        for reply in ["", "x", "A\u{fffd}", "E", "E{}", "E{\"code\":1}", "{\"code\":400}"] {
            let mut bytes = reply.as_bytes().to_vec();
            bytes.truncate(reply.len().min(3));
            let error = read_reply(if reply.starts_with("A") { bytes } else { reply.into() }).unwrap_err();
            assert_eq!(error.code(), Code::Internal, "{reply:?}");
        }
        let told = r#"E{"code":99999,"message":"m","stderr":"s"}"#;
        let error = read_reply(told.into()).unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str(), error.stderr()), (Code::Internal, "m", "s"));
    }
}
