//! Faults under load: every accepted command is answered once, and nothing is done twice.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use redis::{Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisResult};
use serde_json::{Value, json};

use crate::harness::{Node, runs, signal, until};

/// Commands of a load: every third one appends its id to a file, the others only look.
const COMMANDS: usize = 300;

struct Load {
    prefix: &'static str,
    effects: std::path::PathBuf,
}

impl Load {
    fn new(node: &Node, prefix: &'static str) -> Self {
        Self { prefix, effects: node.dir.join(format!("{prefix}-effects")) }
    }

    fn id(&self, i: usize) -> String {
        format!("{}-{i}", self.prefix)
    }

    fn envelope(&self, i: usize) -> String {
        let id = self.id(i);
        match i % 3 {
            0 => {
                let script = format!("echo {id} >> {}; sleep 0.02", self.effects.display());
                json!({"id": id, "command": "bash", "arguments": {"script": script}}).to_string()
            }
            1 => json!({"id": id, "command": "core.ping"}).to_string(),
            _ => json!({"id": id, "command": "no.such.command"}).to_string(),
        }
    }

    /// Whether those before this one are answered.
    fn is_answered(&self, node: &Node, before: usize) -> bool {
        let keys: Vec<String> = (0..before).map(|i| format!("result:{}", self.id(i))).collect();
        keys.is_empty()
            || redis::cmd("EXISTS").arg(&keys).query::<usize>(&mut node.connect()).unwrap() == before
    }

    /// What came of it: each command has one result, and no effect is there twice. Gives the results by id.
    fn check(&self, node: &Node) -> BTreeMap<String, Value> {
        let results: BTreeMap<String, Value> =
            (0..COMMANDS).map(|i| (self.id(i), node.result(&self.id(i)))).collect();
        let mut redis = node.connect();
        for (id, result) in &results {
            let length: u64 = redis::cmd("LLEN").arg(format!("result:{id}")).query(&mut redis).unwrap();
            assert_eq!(length, 1, "{id} has {length} results");
            assert_eq!(result["id"], json!(id));
        }
        let text = std::fs::read_to_string(&self.effects).unwrap_or_default();
        let mut effects: BTreeMap<&str, usize> = BTreeMap::new();
        text.lines().for_each(|id| *effects.entry(id).or_default() += 1);
        for (i, id) in (0..COMMANDS).map(|i| (i, self.id(i))) {
            let (count, state) =
                (effects.get(id.as_str()).copied().unwrap_or(0), results[&id]["state"].as_str().unwrap());
            match i % 3 {
                0 if state == "SUCCESS" => assert_eq!(count, 1, "{id} succeeded and did it {count} times"),
                // Interrupted, perhaps before it did it, and never run again.
                0 => assert!(
                    count <= 1 && results[&id]["code"] == 503,
                    "{id}: {count} times, {}",
                    results[&id]
                ),
                1 => assert_eq!(state, "SUCCESS", "{id}: {}", results[&id]),
                _ => assert_eq!(state, "UNKNOWN_CMD", "{id}"),
            }
        }
        let password = std::fs::read_to_string(node.dir.join("redis/core0.password")).unwrap();
        let mut own = node.connect_as("core0", &password).unwrap();
        until("nothing is in flight", || {
            redis::cmd("HLEN").arg("core:inflight:default").query::<u64>(&mut own).unwrap() == 0
        });
        results
    }
}

/// Pushes until redis says that it has it; a push whose reply is lost may be there or not, and is looked for.
fn push(node: &Node, connection: &mut Option<Connection>, id: &str, envelope: &str) {
    until("a command is pushed", || {
        if connection.is_none() {
            *connection = node.connect_as("default", &node.password).ok();
        }
        let Some(open) = connection.as_mut() else { return false };
        // Sent again, it is a duplicate and dropped: the first one is answered.
        let sent = redis::cmd("RPUSH").arg("core:default").arg(envelope).exec(open);
        if let Err(e) = &sent {
            assert!(e.is_io_error() || e.code() == Some("LOADING"), "{id}: {e}");
            *connection = None;
        }
        sent.is_ok()
    });
}

#[test]
fn redis_is_killed_again_and_again_under_load() {
    let node = Node::start();
    let load = Load::new(&node, "redis");
    let mut connection = None;
    for i in 0..COMMANDS {
        push(&node, &mut connection, &load.id(i), &load.envelope(i));
        if i % 60 == 30 {
            signal(node.pid_of("redis-server"), libc::SIGKILL);
        }
    }
    let results = load.check(&node);
    // redis alone was killed: no job was interrupted.
    let failed = results.values().filter(|result| result["code"] == 503).count();
    assert_eq!(failed, 0);
}

#[test]
fn the_manager_is_killed_again_and_again_under_load() {
    let mut node = Node::start();
    let load = Load::new(&node, "manager");
    let (mut connection, mut interrupted) = (None, 0);
    for i in 0..COMMANDS {
        push(&node, &mut connection, &load.id(i), &load.envelope(i));
        if i % 60 == 30 {
            // Nothing is run again twice: what one kill has interrupted is through before the next.
            until("what the last one interrupted is answered", || load.is_answered(&node, interrupted));
            node.kill_manager();
            node.restart();
            interrupted = i + 1;
        }
    }
    load.check(&node);
}

#[test]
fn core0s_own_connections_are_cut_again_and_again_under_load() {
    let node = Node::start();
    let load = Load::new(&node, "own");
    let password = std::fs::read_to_string(node.dir.join("redis/core0.password")).unwrap();
    let mut own = node.connect_as("core0", &password).unwrap();
    let mut connection = None;
    let mut cut = 0;
    for i in 0..COMMANDS {
        push(&node, &mut connection, &load.id(i), &load.envelope(i));
        if i % 3 == 0 {
            let kill = redis::cmd("CLIENT").arg("KILL").arg("USER").arg("core0").clone();
            cut += kill.query::<u64>(&mut own).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert!(cut > 10, "{cut} connections were cut");
    let results = load.check(&node);
    assert!(results.values().all(|result| result["code"] != 503));
}

#[test]
fn commands_that_are_too_large_for_one_reply_are_all_answered() {
    let node = Node::start();
    let manager = node.manager.id() as i32;
    // 77 MB wait when it looks; redis gives up a connection that 64 MiB wait for.
    signal(manager, libc::SIGSTOP);
    let ballast = "x".repeat(1_200_000);
    let ids: Vec<String> = (0..64)
        .map(|_| node.push(json!({"command": "core.ping", "arguments": {"ballast": ballast}})))
        .collect();
    signal(manager, libc::SIGCONT);
    for id in ids {
        assert_eq!(node.result(&id)["id"], json!(id));
    }
}

/// A proxy on the loopback that cuts the connection at the n-th piece of data, in either direction.
struct Cutter {
    port: u16,
    left: Arc<AtomicI64>,
    cuts: Arc<AtomicU64>,
}

impl Cutter {
    fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (left, cuts) = (Arc::new(AtomicI64::new(i64::MAX)), Arc::new(AtomicU64::new(0)));
        let shared = (left.clone(), cuts.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (left, cuts) = shared.clone();
                    std::thread::spawn(move || pump(from, to, &left, &cuts));
                }
            }
        });
        Self { port, left, cuts }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, left: &AtomicI64, cuts: &AtomicU64) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if left.fetch_sub(1, Ordering::SeqCst) == 1 {
            cuts.fetch_add(1, Ordering::SeqCst);
            break;
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(std::net::Shutdown::Both), to.shutdown(std::net::Shutdown::Both));
}

#[test]
fn a_client_whose_connection_is_cut_at_any_operation_gets_its_one_result() {
    let node = Node::start();
    let cutter = Cutter::start(node.port);
    let connect = || -> RedisResult<Connection> {
        let login = RedisConnectionInfo::default().set_password(&node.password);
        let address = ConnectionAddr::Tcp("127.0.0.1".into(), cutter.port);
        let client = redis::Client::open(address.into_connection_info()?.set_redis_settings(login))?;
        client.get_connection_with_timeout(Duration::from_secs(10))
    };
    let out = node.dir.join("cut-effects");
    // A session has some six pieces of data: what is cut covers them all.
    for n in 1..=12 {
        let id = format!("cut-{n}");
        let script = format!("echo {id} >> {}", out.display());
        let envelope = json!({"id": id, "command": "bash", "arguments": {"script": script}}).to_string();
        cutter.left.store(n, Ordering::SeqCst);
        let mut pushed = false;
        let mut result = None;
        until("the result", || {
            let Ok(mut connection) = connect() else { return false };
            if !pushed {
                pushed = redis::cmd("RPUSH").arg("core:default").arg(&envelope).exec(&mut connection).is_ok();
            }
            let key = format!("result:{id}");
            let read =
                redis::cmd("BRPOPLPUSH").arg(&key).arg(&key).arg(2).query::<Option<String>>(&mut connection);
            result = read.ok().flatten();
            result.is_some()
        });
        let result: Value = serde_json::from_str(&result.unwrap()).unwrap();
        assert_eq!(result["state"], "SUCCESS", "{result}");
        let length: u64 = redis::cmd("LLEN").arg(format!("result:{id}")).query(&mut node.connect()).unwrap();
        assert_eq!(length, 1, "{id}");
    }
    let cuts = cutter.cuts.load(Ordering::SeqCst);
    assert!((4..12).contains(&cuts), "{cuts} cuts");
    let effects = std::fs::read_to_string(out).unwrap();
    let mut lines: Vec<&str> = effects.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!((lines.len(), effects.lines().count()), (12, 12), "{effects}");
}

#[test]
fn a_job_of_hundreds_of_processes_ends_with_all_of_them() {
    let node = Node::start();
    // Of a size that is no danger to what runs beside it.
    let script = "i=0; while [ $i -lt 300 ]; do (sleep 301.5 & wait) & i=$((i+1)); done; wait";
    let id = node.push(json!({"command": "bash", "arguments": {"script": script}, "max_time": 5}));
    let sleeping = || {
        crate::harness::processes().into_iter().filter(|(_, line)| line.starts_with("sleep 301.5")).count()
    };
    until("it has many children", || sleeping() > 100);
    assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
    assert_eq!(node.result(&id)["state"], "TIMEOUT");
    until("they are all gone", || sleeping() == 0);
    assert!(runs(node.manager.id() as i32));
}
