//! The sentence of all this: containers of a Debian that nobody has downloaded, by the old client and by ours.
//!
//! A store next door serves it over HTTP; the node has an empty cache. Needs the Python environments of `.ci/setup`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Flist, Gateway, Place, debian, store};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::Value;

#[path = "../core/tests/python/venv.rs"]
mod venv;

/// How long a node may take to stop before it is killed.
const STOPS: Duration = Duration::from_secs(60);
/// The same for both clients.
const SCRIPT: &str = r#"
import importlib, json, sys

module, login, cid, url = sys.argv[1:]
host, port, password = login.split(":")
client = importlib.import_module(module).Client(host, int(port), password)
client.timeout = 120
number = client.container.create(cid, storage=url, hostname="debian")
assert str(number) in client.container.list()
inside = client.container.client(number)
assert inside.ping().startswith("PONG ")
result = inside.system("cat /etc/debian_version /etc/hostname").get()
assert result.state == "SUCCESS" and result.stdout.endswith("\ndebian\n"), result.stdout
result = inside.bash("python3 -c 'print(6 * 7)'; . /etc/os-release; echo $ID; exit 3").get()
assert (result.state, result.stdout) == ("ERROR", "42\ndebian\n"), result.stdout
(mount,) = client.json("flist.list", {})
client.container.terminate(number)
assert str(number) not in client.container.list()
print(mount["bytes_fetched"])
"#;

/// `core0 run --dev`, as it is built beside the tests. It stops with this value.
struct Core0 {
    manager: Child,
    login: String,
}

impl Core0 {
    fn start(folder: &Path) -> Self {
        let test = std::env::current_exe().expect("a process knows its executable");
        let program = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps").join("core0");
        assert!(program.exists(), "no {}: build it with `cargo build -p core0`", program.display());
        let node = folder.join("node");
        std::fs::create_dir(&node).unwrap();
        let log = std::fs::File::create(folder.join("core0.log")).unwrap();
        let mut manager = Command::new(program)
            .args(["run", "--dev"])
            .arg(&node)
            .env_remove("G8_CORE0_CONFIG")
            .env_remove("G8_FROM")
            .env("G8_CACHE", folder.join("cache"))
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(manager.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(line.strip_prefix("ready ").unwrap()).unwrap();
        let login = format!("127.0.0.1:{}:{}", ready["port"], ready["password"].as_str().unwrap());
        Core0 { manager, login }
    }
}

impl Drop for Core0 {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.manager);
        let _ = kill_process(pid, Signal::TERM);
        let began = Instant::now();
        while matches!(self.manager.try_wait(), Ok(None)) && began.elapsed() < STOPS {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.manager.kill();
        let _ = self.manager.wait();
    }
}

/// What the script says that a client of an environment runs, with modules of ours before the others.
fn run(environment: &str, module: &str, path: Option<PathBuf>, arguments: [&str; 3]) -> String {
    let mut python = Command::new(venv::venv(environment).join("bin/python"));
    python
        .args(["-c", SCRIPT, module])
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("PYTHONPATH");
    if let Some(path) = path {
        python.env("PYTHONPATH", path);
    }
    let output = python.output().unwrap();
    assert!(output.status.success(), "{module}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn both_clients_use_a_debian_over_http_before_it_is_downloaded() {
    let tree = debian::tree().unwrap_or_else(|why| panic!("{why}"));
    let flist = Flist::new();
    let cid = flist.pack(&tree);
    let total = store::size(flist.store());
    let ours = venv::crate_dir().join("../core/pyclient/src");
    for (environment, module, path) in [("g8core", "g8core", None), ("client", "g8os", Some(ours))] {
        let (flist, cid) = (&flist, cid.as_str());
        let tested = move || {
            // The bridge of its containers is its own.
            // SAFETY: a network namespace changes no memory and no descriptor of this thread.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("root makes network namespaces");
            assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
            let (gateway, place) = (Gateway::of(flist), Place::new());
            let node = Core0::start(place.path());
            let fetched = run(environment, module, path, [&node.login, cid, gateway.url()]);
            let fetched: u64 = fetched.trim().parse().unwrap();
            assert!(fetched > 0 && fetched * 2 < total, "{module}: {fetched} of {total} bytes were fetched");
        };
        std::thread::scope(|scope| scope.spawn(tested).join()).unwrap();
    }
}
