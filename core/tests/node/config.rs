//! `core0 run --config FILE`: every setting does what it says, and what cannot be is named with its file and its line.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use serde_json::{Value, json};

use crate::harness::{Node, PATIENCE, new_id, signal, until};
use crate::logs::lines;

/// Entries of a stream: their ids, and names and values of their fields.
type Entries = Vec<(String, Vec<String>)>;

/// A node as a machine has it, in `/run/core0` and `/var/log/core0`, with file systems and a network of its own below them.
struct System {
    manager: Child,
    ready: Value,
}

impl System {
    fn start(config: &Path, log: &Path) -> Self {
        let fence =
            "ip link set lo up && mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log && exec \"$@\"";
        let mut manager = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "--", "sh", "-c", fence, "fence"])
            .args([env!("CARGO_BIN_EXE_core0"), "run", "--config"])
            .arg(config)
            .env_remove("G8_CORE0_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(manager.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said = || std::fs::read_to_string(log).unwrap();
        let ready = line.strip_prefix("ready ").unwrap_or_else(|| panic!("{line:?}\n{}", said()));
        Self { ready: serde_json::from_str(ready).unwrap(), manager }
    }

    /// A path of the node's, as it is seen from outside of its fence.
    fn path(&self, inside: &str) -> PathBuf {
        format!("/proc/{}/root{inside}", self.manager.id()).into()
    }

    fn connect(&self, user: &str, password: &str) -> redis::RedisResult<Connection> {
        let login = RedisConnectionInfo::default().set_username(user).set_password(password);
        let address = ConnectionAddr::Unix(self.path("/run/core0/redis.sock"));
        redis::Client::open(address.into_connection_info()?.set_redis_settings(login))?.get_connection()
    }

    fn administrator(&self) -> Connection {
        self.connect("default", self.ready["password"].as_str().unwrap()).unwrap()
    }

    fn push(&self, envelope: Value) -> String {
        let id = new_id();
        let mut envelope = envelope;
        envelope["id"] = id.clone().into();
        let mut redis = self.administrator();
        redis::cmd("RPUSH").arg("core:default").arg(envelope.to_string()).exec(&mut redis).unwrap();
        id
    }

    fn result_within(&self, id: &str, patience: Duration) -> Option<Value> {
        let key = format!("result:{id}");
        let wait = redis::cmd("BRPOPLPUSH")
            .arg(&key)
            .arg(&key)
            .arg(patience.as_secs())
            .query::<Option<String>>(&mut self.administrator());
        wait.unwrap().map(|json| serde_json::from_str(&json).unwrap())
    }

    fn call(&self, command: &str, arguments: Value) -> Value {
        let id = self.push(json!({"command": command, "arguments": arguments}));
        self.result_within(&id, PATIENCE).unwrap()
    }

    /// As a named user: results are streams then.
    fn call_as(&self, redis: &mut Connection, user: &str, envelope: Value) -> Value {
        let id = new_id();
        let mut envelope = envelope;
        envelope["id"] = id.clone().into();
        redis::cmd("RPUSH").arg(format!("core:user:{user}")).arg(envelope.to_string()).exec(redis).unwrap();
        let read: Vec<(String, Entries)> = redis::cmd("XREAD")
            .arg(&["BLOCK", "60000", "STREAMS", &format!("result:{user}:{id}"), "0"])
            .query(redis)
            .unwrap();
        serde_json::from_str(&read[0].1[0].1[1]).unwrap()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        signal(self.manager.id() as i32, libc::SIGTERM);
        let began = Instant::now();
        while matches!(self.manager.try_wait(), Ok(None)) && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.manager.kill();
        let _ = self.manager.wait();
    }
}

fn bash_until(go: &Path) -> Value {
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done; echo done", go.display());
    json!({"command": "bash", "arguments": {"script": script}})
}

#[test]
fn every_setting_of_a_file_has_its_effect() {
    let folder = tempfile::tempdir().unwrap();
    let (config, log, secret) =
        (folder.path().join("node.toml"), folder.path().join("log"), folder.path().join("secret"));
    let layers = folder.path().join("layers");
    std::fs::write(&secret, "of-the-worker\n").unwrap();
    // That of the word `known`, in large letters, which redis itself does not take.
    let known = "7117FFF2D0FD294462B3C802B7CB8753579F23F3946B99CF55F38E873F013F10";
    let text = format!(
        "[users.worker]\nrole = 'operate'\npassword_file = '{}'\n[limits]\nprocesses = 1\naccepted = 4\naccepted_bytes = 200_000\nprocesses_each = 30\n\
         [firewall]\ninput = 'drop'\n[redis]\nport = 7123\npassword_sha256 = '{known}'\n[network]\ncontainers = '10.88.0.1/20'\n\
         [containers]\ndisk = '{}'\n",
        secret.display(),
        layers.display()
    );
    std::fs::write(&config, text).unwrap();
    let node = System::start(&config, &log);

    // redis.port, and where a node that is nobody's folder keeps its files.
    assert_eq!(node.ready["port"], 7123);
    for file in ["/run/core0/password", "/run/core0/redis/redis.conf", "/var/log/core0/jobs.log"] {
        assert!(node.path(file).exists(), "{file}");
    }
    // redis.password_sha256: two passwords, and no third one.
    assert!(node.connect("default", "known").is_ok());
    assert!(node.connect("default", "unknown").is_err());
    // config.get: all of it, and no secret.
    let shown = node.call("config.get", json!({}));
    let shown: Value = serde_json::from_str(shown["data"].as_str().unwrap()).unwrap();
    let wanted = json!({
        "users": {"worker": {"role": "operate", "password_file": secret}},
        "limits": {"processes": 1, "accepted": 4, "accepted_bytes": 200_000, "processes_each": 30},
        "firewall": {"input": "drop"},
        "redis": {"port": 7123},
        "network": {"containers": "10.88.0.1/20"},
        "containers": {"disk": layers},
    });
    assert_eq!(shown, wanted);
    // firewall.input
    let table = node.call("core.system", json!({"name": "nft", "args": ["list", "table", "inet", "core0"]}));
    assert!(table["streams"][0].as_str().unwrap().contains("policy drop"), "{table}");
    // users
    let mut worker = node.connect("worker", "of-the-worker").unwrap();
    let mut as_worker = |envelope: Value| node.call_as(&mut worker, "worker", envelope);
    assert_eq!(as_worker(json!({"command": "core.ping"}))["state"], "SUCCESS");
    assert_eq!(as_worker(json!({"command": "config.get"}))["code"], 403);
    // limits.processes_each
    let many = node.call("bash", json!({"script": "for i in $(seq 60); do sleep 600 & done; sleep 600"}));
    assert_eq!(many["code"], 1137, "{many}");
    assert!(many["critical"].as_str().unwrap().contains("more than the 30 that it may have"), "{many}");
    // limits.processes: the second one waits for the first.
    let go = folder.path().join("go");
    let first = node.push(bash_until(&go));
    let second = node.push(json!({"command": "bash", "arguments": {"script": "echo second"}}));
    assert_eq!(node.result_within(&second, Duration::from_secs(2)), None);
    // limits.accepted_bytes and limits.accepted are the bounds of who is no administrator.
    let large = json!({"command": "bash", "arguments": {"script": "true", "stdin": "x".repeat(250_000)}});
    let refused = as_worker(large);
    assert!(
        refused["code"] == 503 && refused["data"].as_str().unwrap().contains("200000 bytes"),
        "{refused}"
    );
    let waiting: Vec<String> = (0..2).map(|_| node.push(bash_until(&go))).collect();
    assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
    let refused = as_worker(json!({"command": "bash", "arguments": {"script": "true"}}));
    assert!(refused["code"] == 503 && refused["data"].as_str().unwrap().contains("4 commands"), "{refused}");
    std::fs::write(&go, "").unwrap();
    for id in [first, second].iter().chain(&waiting) {
        assert_eq!(node.result_within(id, PATIENCE).unwrap()["state"], "SUCCESS");
    }
    let took = as_worker(json!({"command": "bash", "arguments": {"script": "echo again"}}));
    assert_eq!(took["streams"][0], "again\n");
}

/// What `core0 run` says of a configuration that cannot be.
fn refused(folder: &Path, text: &str) -> String {
    let config = folder.join("bad.toml");
    std::fs::write(&config, text).unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_core0"))
        .args(["run", "--dev"])
        .arg(folder.join("node"))
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8(ran.stderr).unwrap();
    assert!(ran.status.code() == Some(1) && ran.stdout.is_empty(), "{text}: {stderr}");
    assert!(stderr.starts_with(&format!("core0: {}", config.display())), "{text}: {stderr}");
    stderr
}

#[test]
fn unknown_keys_and_bad_values_are_named_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let hash = "g".repeat(64);
    let user = "role = 'read'\npassword_file = '/x'";
    for (text, line, why) in [
        ("\n[limit]\nprocesses = 3\n".into(), 2, "unknown field `limit`"),
        ("[limits]\nproceses = 3\n".into(), 2, "unknown field `proceses`"),
        ("[limits]\n\nprocesses = 0\n".into(), 3, "at least 1"),
        ("[limits]\naccepted = -1\n".into(), 2, "-1"),
        ("[limits]\nprocesses_each = 0\n".into(), 2, "at least 1"),
        ("[limits]\naccepted_bytes = 99999999999999\n".into(), 2, "99999999999999"),
        ("[limits]\nprocesses = 'many'\n".into(), 2, "many"),
        ("[redis]\nport = 70000\n".into(), 2, "70000"),
        (format!("[redis]\nport = 1\npassword_sha256 = '{hash}'\n"), 3, "no SHA-256"),
        ("[firewall]\ninput = 'reject'\n".into(), 2, "unknown variant `reject`"),
        ("[network]\ncontainers = '10.0.0.1/30'\n".into(), 2, "no IPv4 network for containers"),
        ("[network]\ncontainers = 'fd00::1/64'\n".into(), 2, "no IPv4 network for containers"),
        ("[network]\ncontainers = 'everywhere'\n".into(), 2, "everywhere"),
        ("[users.a]\nrole = 'root'\npassword_file = '/x'\n".into(), 2, "unknown variant `root`"),
        ("[users.a]\nrole = 'read'\n".into(), 1, "missing field `password_file`"),
        (format!("\n[users.default]\n{user}\n"), 2, "cannot be a user"),
        (format!("[users.\"a:b\"]\n{user}\n"), 1, "cannot be a user"),
        ("[limits\n".into(), 1, "unclosed table"),
        ("port = 1\nport = 2\n".into(), 2, "duplicate key"),
    ] {
        let said = refused(folder.path(), &text);
        assert!(said.contains(&format!("at line {line}, ")) && said.contains(why), "{text}: {said}");
    }
}

#[test]
fn a_file_that_is_missing_or_cannot_be_read_is_named_also_when_a_variable_says_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("latin"), b"[limits] # \xe9\n").unwrap();
    for (name, why) in [("missing", "No such file"), ("latin", "UTF-8"), (".", "Is a directory")] {
        let file = folder.path().join(name);
        for by_variable in [false, true] {
            let mut run = Command::new(env!("CARGO_BIN_EXE_core0"));
            run.args(["run", "--dev"]).arg(folder.path().join("node")).env_remove("G8_CORE0_CONFIG");
            match by_variable {
                true => run.env("G8_CORE0_CONFIG", &file),
                false => run.arg("--config").arg(&file),
            };
            let ran = run.stdin(Stdio::null()).output().unwrap();
            let stderr = String::from_utf8(ran.stderr).unwrap();
            let named = format!("core0: cannot read {}: ", file.display());
            assert!(!ran.status.success() && stderr.starts_with(&named) && stderr.contains(why), "{stderr}");
        }
    }
}

#[test]
fn a_user_whose_password_is_not_there_keeps_the_node_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("core0.toml");
    std::fs::write(&config, "[users.a]\nrole = 'read'\npassword_file = '/no/such/password'\n").unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_core0"))
        .args(["run", "--dev"])
        .arg(folder.path())
        .env_remove("G8_CORE0_CONFIG")
        .output()
        .unwrap();
    let stderr = String::from_utf8(ran.stderr).unwrap();
    assert!(
        !ran.status.success() && stderr.contains("the password of user a in /no/such/password"),
        "{stderr}"
    );
}

#[test]
fn log_levels_are_what_is_logged_and_nothing_else() {
    let node = Node::start();
    let script = "echo out; echo err >&2; echo 7::warning; echo 8::error; echo 3::public";
    let run = |levels: Value| {
        let envelope =
            json!({"command": "bash", "arguments": {"script": script}, "stream": true, "log_levels": levels});
        let id = node.push(envelope);
        let result = node.result(&id);
        // The result and the live stream have all of it.
        assert_eq!(result["streams"], json!(["out\n", "err\n"]), "{result}");
        let stream = || -> Entries {
            let key = format!("stream:{id}");
            redis::cmd("XRANGE").arg(key).arg("-").arg("+").query(&mut node.connect()).unwrap()
        };
        until("all of it and the end are in the stream", || stream().len() == 6);
        id
    };
    let logged = |id: &str| {
        let source = format!("job {id}");
        let of_job = lines(&node.dir).into_iter().filter(|line| line["source"] == *source);
        let mut levels: Vec<u64> = of_job.map(|line| line["level"].as_u64().unwrap()).collect();
        levels.sort();
        levels
    };
    let (some, none) = (run(json!([2, 8])), run(json!([30])));
    let all = run(json!([]));
    until("the last job is logged", || logged(&all).len() == 5);
    assert_eq!(logged(&all), [1, 2, 3, 7, 8]);
    assert_eq!(logged(&some), [2, 8]);
    assert_eq!(logged(&none), [] as [u64; 0]);
    let refused = node.push(json!({"command": "bash", "arguments": {"script": "true"}, "log_levels": [99]}));
    assert_eq!(node.result(&refused)["code"], 400);
}
