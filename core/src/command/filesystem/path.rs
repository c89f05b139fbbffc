//! What is done to a path at once.

use rustix::fs::Mode;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::argument::AbsolutePath;
use crate::command::errand::{Hand, Inside};
use crate::command::{Command, CommandError, Role, blocking};
use crate::context::Context;
use crate::domain::filesystem::{self, Depth, Entry, FilesystemError};

/// `filesystem.exists`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Exists {
    /// The path.
    path: AbsolutePath,
}

impl Command for Exists {
    const NAME: &'static str = "filesystem.exists";
    const SUMMARY: &'static str = "Says whether something is at a path.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = true;
    type Output = bool;

    async fn run(self, _context: &Context) -> Result<bool, CommandError> {
        blocking(move || self.work()).await
    }
}

impl Exists {
    fn work(self) -> Result<bool, FilesystemError> {
        filesystem::exists(&self.path)
    }
}

impl Inside for Exists {
    fn inside(self, _hand: &mut Hand) -> Result<bool, CommandError> {
        Ok(self.work()?)
    }
}

/// `filesystem.list`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {
    /// Path of the folder.
    path: AbsolutePath,
}

impl Command for List {
    const NAME: &'static str = "filesystem.list";
    const SUMMARY: &'static str = "Lists a folder.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = true;
    type Output = Vec<Entry>;

    async fn run(self, _context: &Context) -> Result<Vec<Entry>, CommandError> {
        blocking(move || self.work()).await
    }
}

impl List {
    fn work(self) -> Result<Vec<Entry>, FilesystemError> {
        filesystem::list(&self.path)
    }
}

impl Inside for List {
    fn inside(self, _hand: &mut Hand) -> Result<Vec<Entry>, CommandError> {
        Ok(self.work()?)
    }
}

/// `filesystem.mkdir`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Mkdir {
    /// Path of the folder.
    path: AbsolutePath,
}

impl Command for Mkdir {
    const NAME: &'static str = "filesystem.mkdir";
    const SUMMARY: &'static str = "Makes a folder and those above it that are missing.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = true;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        blocking(move || self.work()).await
    }
}

impl Mkdir {
    fn work(self) -> Result<(), FilesystemError> {
        filesystem::make_dir(&self.path)
    }
}

impl Inside for Mkdir {
    fn inside(self, _hand: &mut Hand) -> Result<(), CommandError> {
        Ok(self.work()?)
    }
}

/// `filesystem.remove`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Remove {
    /// The path.
    path: AbsolutePath,
}

impl Command for Remove {
    const NAME: &'static str = "filesystem.remove";
    const SUMMARY: &'static str = "Removes what is at a path, with all below it; not what holds a mount.";
    const ROLE: Role = Role::Admin;
    // Who made something there meanwhile does not want it removed.
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        blocking(move || self.work()).await
    }
}

impl Remove {
    fn work(self) -> Result<(), FilesystemError> {
        filesystem::remove(&self.path)
    }
}

impl Inside for Remove {
    fn inside(self, _hand: &mut Hand) -> Result<(), CommandError> {
        Ok(self.work()?)
    }
}

/// `filesystem.move`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Move {
    /// What is moved.
    path: AbsolutePath,
    /// Its new path, in the same file system.
    destination: AbsolutePath,
}

impl Command for Move {
    const NAME: &'static str = "filesystem.move";
    const SUMMARY: &'static str = "Gives what is at a path another path.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        blocking(move || self.work()).await
    }
}

impl Move {
    fn work(self) -> Result<(), FilesystemError> {
        filesystem::move_to(&self.path, &self.destination)
    }
}

impl Inside for Move {
    fn inside(self, _hand: &mut Hand) -> Result<(), CommandError> {
        Ok(self.work()?)
    }
}

/// `filesystem.chmod`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Chmod {
    /// The path.
    path: AbsolutePath,
    /// The permissions, as a number.
    mode: u32,
    /// Everything below it too, but no symlinks.
    #[serde(default)]
    recursive: bool,
}

impl Command for Chmod {
    const NAME: &'static str = "filesystem.chmod";
    const SUMMARY: &'static str = "Sets permissions.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = true;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        blocking(move || self.work()).await
    }
}

impl Chmod {
    fn work(self) -> Result<(), CommandError> {
        if self.mode > 0o7777 {
            return Err(CommandError::bad_request(format!(
                "mode {:#o} is none: at most 0o7777 is",
                self.mode
            )));
        }
        let mode = Mode::from_raw_mode(self.mode);
        Ok(filesystem::change_mode(&self.path, mode, Depth::from(self.recursive))?)
    }
}

impl Inside for Chmod {
    fn inside(self, _hand: &mut Hand) -> Result<(), CommandError> {
        self.work()
    }
}

/// `filesystem.chown`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Chown {
    /// The path.
    path: AbsolutePath,
    /// Name or number of the user.
    user: String,
    /// Name or number of the group.
    group: String,
    /// Everything below it too.
    #[serde(default)]
    recursive: bool,
}

impl Command for Chown {
    const NAME: &'static str = "filesystem.chown";
    const SUMMARY: &'static str = "Sets the owner.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = true;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        blocking(move || self.work()).await
    }
}

impl Chown {
    fn work(self) -> Result<(), FilesystemError> {
        let (user, group) = (filesystem::user(&self.user)?, filesystem::group(&self.group)?);
        filesystem::change_owner(&self.path, user, group, Depth::from(self.recursive))
    }
}

impl Inside for Chown {
    fn inside(self, _hand: &mut Hand) -> Result<(), CommandError> {
        Ok(self.work()?)
    }
}
