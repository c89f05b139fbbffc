//! Files that stay open from one command to the next.

use std::io::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::Mode;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::argument::AbsolutePath;
use crate::command::errand::{Hand, Inside};
use crate::command::{Command, CommandError, Role, blocking};
use crate::context::Context;
use crate::domain::filesystem::{FilesystemError, OpenMode, open_file, read_block};

/// `filesystem.open`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Open {
    /// Path of the file.
    file: AbsolutePath,
    /// One of `r`, `w` and `a`; `+` to read and write; `x` to make a file that is missing, and alone to make a new one.
    #[serde(default = "default_mode")]
    mode: String,
    /// Permissions of a file that is made.
    #[serde(default = "default_permissions")]
    perm: u32,
}

fn default_mode() -> String {
    "r".to_owned()
}

fn default_permissions() -> u32 {
    0o644
}

impl Command for Open {
    const NAME: &'static str = "filesystem.open";
    const SUMMARY: &'static str =
        "Opens a file and returns its name; after 5 minutes without use it is closed.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = String;

    async fn run(self, context: &Context) -> Result<String, CommandError> {
        let (mode, permissions) = self.how()?;
        let files = context.files().clone();
        blocking(move || files.open(&self.file, mode, permissions)).await
    }
}

impl Open {
    fn how(&self) -> Result<(OpenMode, Mode), CommandError> {
        let mode = self.mode.parse().map_err(CommandError::bad_request)?;
        Ok((mode, Mode::from_raw_mode(self.perm & 0o777)))
    }
}

impl Inside for Open {
    /// The file gets its name where it is kept.
    fn inside(self, hand: &mut Hand) -> Result<String, CommandError> {
        let (mode, permissions) = self.how()?;
        hand.opened = Some(open_file(&self.file, mode, permissions)?.into());
        Ok(String::new())
    }
}

/// `filesystem.read`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Read {
    /// Name of the open file.
    fd: String,
}

impl Command for Read {
    const NAME: &'static str = "filesystem.read";
    const SUMMARY: &'static str =
        "Returns the next 512 KiB of an open file as base64; at its end, an empty string.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = String;

    async fn run(self, context: &Context) -> Result<String, CommandError> {
        let files = context.files().clone();
        blocking(move || files.read(&self.fd).map(|bytes| STANDARD.encode(bytes))).await
    }
}

impl Inside for Read {
    const ON_FILE: bool = true;

    fn inside(self, hand: &mut Hand) -> Result<String, CommandError> {
        let read = read_block(hand.file()?).map_err(FilesystemError::io("read", self.fd.as_ref()))?;
        Ok(STANDARD.encode(read))
    }
}

/// `filesystem.write`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Write {
    /// Name of the open file.
    fd: String,
    /// The bytes as base64; line ends in it mean nothing.
    block: String,
}

impl Command for Write {
    const NAME: &'static str = "filesystem.write";
    const SUMMARY: &'static str = "Writes bytes to an open file.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, context: &Context) -> Result<(), CommandError> {
        let files = context.files().clone();
        let bytes = decode(self.block)?;
        blocking(move || files.write(&self.fd, &bytes)).await
    }
}

impl Inside for Write {
    const ON_FILE: bool = true;

    fn inside(self, hand: &mut Hand) -> Result<(), CommandError> {
        let bytes = decode(self.block)?;
        let written = hand.file()?.write_all(&bytes);
        Ok(written.map_err(FilesystemError::io("write", self.fd.as_ref()))?)
    }
}

fn decode(mut block: String) -> Result<Vec<u8>, CommandError> {
    block.retain(|c| !c.is_ascii_whitespace());
    STANDARD
        .decode(block)
        .map_err(|e| CommandError::bad_request("filesystem.write: the block is no base64").because(e))
}

/// `filesystem.close`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Close {
    /// Name of the open file.
    fd: String,
}

impl Command for Close {
    const NAME: &'static str = "filesystem.close";
    const SUMMARY: &'static str = "Closes an open file.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, context: &Context) -> Result<(), CommandError> {
        let files = context.files().clone();
        blocking(move || files.close(&self.fd)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_in_base64_mean_nothing() {
        // What Python's base64.encodebytes makes: a line end after every 76 letters and at the end.
        assert_eq!(decode("aGVs\nbG8=\n".to_owned()).unwrap(), b"hello");
        assert_eq!(decode("\n".to_owned()).unwrap(), b"");
        for block in ["a", "aGVsbG8", "aGVs*G8=", "é"] {
            assert!(decode(block.to_owned()).is_err(), "{block}");
        }
    }
}
