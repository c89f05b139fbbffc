//! Runs the binary as a user does, with a store, a cache and a home of its own.
//!
//! The binary is `$FLIST_BIN`, else the one beside the test executable in the target directory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::mounted::Mounted;
use crate::process::{self, Outcome, PATIENCE};
use crate::status::MountStatus;
use crate::{Place, args, synthetic};

/// A user of the binary. Dropping it ends its daemons and detaches its mounts.
pub struct Flist {
    home: Place,
    bin: PathBuf,
    store: PathBuf,
    cache: PathBuf,
    mounts_made: std::sync::atomic::AtomicUsize,
}

impl Flist {
    /// With an empty store and an empty cache in a directory of its own.
    pub fn new() -> Self {
        let home = Place::new();
        let (store, cache) = (home.join("store"), home.join("cache"));
        Self { bin: binary(), store, cache, home, mounts_made: 0.into() }
    }

    /// One that has packed a few small files, `source` in its home, and their CID.
    pub fn with_image() -> (Self, String) {
        let flist = Self::new();
        let source = flist.home().join("source");
        synthetic::tiny(&source);
        let cid = flist.pack(&source);
        (flist, cid)
    }

    /// The same store, another cache: a second machine, so to say.
    pub fn beside(other: &Self) -> Self {
        let mut user = Self::new();
        user.store.clone_from(&other.store);
        user
    }

    /// Where this user's files lie, and whatever the test puts there.
    pub fn home(&self) -> &Place {
        &self.home
    }

    /// Directory of the store.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Directory of the cache.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The store as `--from` and `--to` name it.
    pub fn spec(&self) -> String {
        format!("dir:{}", self.store.display())
    }

    /// The binary.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// A command line with this user's environment.
    pub fn command(&self, args: impl IntoIterator<Item = OsString>) -> Command {
        let mut command = Command::new(&self.bin);
        command.args(args);
        self.environment(&mut command);
        command
    }

    /// Gives `command` this user's environment.
    pub fn environment(&self, command: &mut Command) {
        command
            .env("G8_FROM", self.spec())
            .env("G8_TO", self.spec())
            .env("G8_CACHE", &self.cache)
            .env("HOME", self.home.path())
            .env("XDG_DATA_HOME", self.home.join("data"))
            .env("XDG_CACHE_HOME", self.home.join("xdg-cache"))
            .env("NO_COLOR", "1");
    }

    /// Runs `flist ARGS` and returns what it did, whatever that was.
    #[track_caller]
    pub fn run(&self, args: impl IntoIterator<Item = OsString>) -> Outcome {
        self.run_within(PATIENCE, args)
    }

    /// Runs `flist ARGS`, which must end within `limit`.
    #[track_caller]
    pub fn run_within(&self, limit: Duration, args: impl IntoIterator<Item = OsString>) -> Outcome {
        process::run(&mut self.command(args), limit)
    }

    /// Runs `flist ARGS`, which must succeed.
    #[track_caller]
    pub fn ok(&self, args: impl IntoIterator<Item = OsString>) -> Outcome {
        self.run(args).ok()
    }

    /// Packs `dir` and returns the CID.
    #[track_caller]
    pub fn pack(&self, dir: &Path) -> String {
        self.pack_with(dir, &[])
    }

    /// Packs `dir` with `options`; stdout must be exactly the CID.
    #[track_caller]
    pub fn pack_with(&self, dir: &Path, options: &[&str]) -> String {
        let mut args = args!["pack", dir];
        args.extend(options.iter().map(Into::into));
        let outcome = self.ok(args);
        let cid = outcome.text();
        assert_eq!(outcome.stdout, format!("{cid}\n").as_bytes(), "pack prints one line");
        assert!(
            cid.starts_with("bafyrei") && cid.len() == 59,
            "pack prints a CID of dag-cbor and SHA-256: {cid}"
        );
        cid
    }

    /// Mounts `reference` on a fresh directory.
    #[track_caller]
    pub fn mount(&self, reference: &str) -> Mounted<'_> {
        self.mount_with(reference, &[])
    }

    /// Mounts `reference` with `options` on a fresh directory.
    #[track_caller]
    pub fn mount_with(&self, reference: &str, options: &[&str]) -> Mounted<'_> {
        self.mount_at(reference, &self.mountpoint(), options)
    }

    /// Mounts `reference` with `options` on `dir`.
    #[track_caller]
    pub fn mount_at(&self, reference: &str, dir: &Path, options: &[&str]) -> Mounted<'_> {
        let mut args = args!["mount", reference, dir];
        args.extend(options.iter().map(Into::into));
        self.ok(args);
        self.adopt(dir)
    }

    /// Takes over what a successful `flist mount` left on `dir`.
    #[track_caller]
    pub fn adopt(&self, dir: &Path) -> Mounted<'_> {
        Mounted::new(self, dir.to_owned())
    }

    /// A fresh empty directory to mount on.
    pub fn mountpoint(&self) -> PathBuf {
        let n = self.mounts_made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.home.dir(&format!("mnt-{n}"))
    }

    /// What `flist mounts --json` says about the mounts below this user's home.
    #[track_caller]
    pub fn mounts(&self) -> Vec<MountStatus> {
        let outcome = self.run(args!["mounts", "--json"]);
        let home = self.home.path().to_string_lossy();
        // The machine may have mounts of others, whose daemons speak another version: it lists the rest and exits with 1.
        let is_others_trouble = outcome.code == 1 && !outcome.stderr.contains(&*home);
        let list = if is_others_trouble { outcome } else { outcome.ok() }.json();
        let list = list.as_array().unwrap_or_else(|| panic!("`flist mounts --json` is no array: {list:#}"));
        let ours = |v: &&serde_json::Value| v["mountpoint"].as_str().is_some_and(|m| m.starts_with(&*home));
        list.iter().filter(ours).map(MountStatus::from_json).collect()
    }

    /// The daemons among its processes: one, or while it hands over two, or none.
    pub fn daemons(&self) -> Vec<i32> {
        let is_daemon = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|b| *b == 0).nth(1) == Some(b"daemon")
        };
        self.processes().into_iter().filter(is_daemon).collect()
    }

    /// Every process with this user's environment: its commands and daemons, also those that no mount led to.
    pub fn processes(&self) -> Vec<i32> {
        let home = format!("HOME={}", self.home.path().display());
        let ours = |pid: &i32| {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|b| *b == 0).any(|v| v == home.as_bytes())
        };
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        all.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(ours).collect()
    }
}

impl Default for Flist {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Flist {
    fn drop(&mut self) {
        // Without mounts they end by themselves, and until then they write to the cache that is removed next.
        let idle = crate::mount_table::under(self.home.path()).is_empty();
        let patience = if idle { Duration::from_secs(5) } else { Duration::ZERO };
        for pid in self.processes() {
            if !crate::wait::ends(pid, patience) {
                let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
            }
        }
    }
}

fn binary() -> PathBuf {
    let bin = std::env::var_os("FLIST_BIN").map_or_else(
        || {
            let exe = std::env::current_exe().expect("a process knows its executable");
            // Tests lie in target/PROFILE/deps, programs one higher.
            let folder = exe.parent().expect("an executable lies in a folder");
            let profile = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
            profile.expect("deps is no root").join("flist")
        },
        PathBuf::from,
    );
    assert!(
        bin.is_file(),
        "no binary at {}: build it with `cargo build -p flist-tools`, or name it in FLIST_BIN",
        bin.display()
    );
    bin
}
