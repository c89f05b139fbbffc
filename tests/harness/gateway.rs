//! `flist serve` as a process of a user.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{Flist, args, wait};

/// A running gateway. Dropping it kills it.
pub struct Gateway {
    child: Child,
    url: String,
    stdout: BufReader<ChildStdout>,
    stderr: File,
}

/// How long it may take to listen: it may have to start a daemon first.
const LISTENS: Duration = Duration::from_secs(60);

impl Gateway {
    /// Has `flist` serve its store on a free port.
    #[track_caller]
    pub fn of(flist: &Flist) -> Self {
        Self::with(flist, &[])
    }

    /// The same with `options`.
    #[track_caller]
    pub fn with(flist: &Flist, options: &[&str]) -> Self {
        Self::on("127.0.0.1:0", flist, options)
    }

    /// The same on an address of the network of the calling thread.
    #[track_caller]
    pub fn on(address: &str, flist: &Flist, options: &[&str]) -> Self {
        let mut arguments = args!["serve", "--listen", address];
        arguments.extend(options.iter().map(Into::into));
        Self::run(&mut flist.command(arguments))
    }

    /// The same where it listens by default.
    #[track_caller]
    pub fn by_default(flist: &Flist) -> Self {
        Self::run(flist.command(args!["serve"]).env_remove("G8_LISTEN"))
    }

    /// Has `flist` serve what its cache holds: no store is named, and the default one is not there.
    #[track_caller]
    pub fn of_cache(flist: &Flist) -> Self {
        Self::of_cache_on("127.0.0.1:0", flist, &[])
    }

    /// The same with `options`, on an address of the network of the calling thread.
    #[track_caller]
    pub fn of_cache_on(address: &str, flist: &Flist, options: &[&str]) -> Self {
        let mut arguments = args!["serve", "--listen", address];
        arguments.extend(options.iter().map(Into::into));
        Self::run(flist.command(arguments).env("G8_FROM", ""))
    }

    #[track_caller]
    fn run(command: &mut Command) -> Self {
        let stderr = tempfile::tempfile().expect("a temporary file for what it warns of");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone().expect("a second descriptor of an open file"))
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start `flist serve`: {e}"));
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut gateway = Self { child, url: String::new(), stdout, stderr };
        assert!(
            wait::has_words(gateway.stdout.get_ref(), LISTENS),
            "`flist serve` is silent for {LISTENS:?}"
        );
        let mut line = String::new();
        gateway.stdout.read_line(&mut line).expect("its first line");
        let url = line.trim_end().strip_prefix("listening on ");
        let url = url.unwrap_or_else(|| panic!("`flist serve` says {line:?}: {}", gateway.warned()));
        url.clone_into(&mut gateway.url);
        gateway
    }

    /// What it has warned of so far.
    pub fn warned(&mut self) -> String {
        let mut said = String::new();
        self.stderr.rewind().expect("a file can be rewound");
        self.stderr.read_to_string(&mut said).expect("our own file can be read");
        // It goes on to write where it was.
        self.stderr.seek(std::io::SeekFrom::End(0)).expect("a file has an end");
        said
    }

    /// As `--from` names it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Ends it by `signal`; it must obey soon and say that all is well.
    #[track_caller]
    pub fn stop(mut self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("our own child can be told");
        wait::for_the_end_of(self.child.id() as i32, Duration::from_secs(15));
        let status = self.child.wait().expect("our own child can be waited for");
        assert!(status.success(), "`flist serve` ended with {status} after {signal:?}: {}", self.warned());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
