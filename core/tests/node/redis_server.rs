//! The redis of a node when it is killed, damaged, robbed of its port, or full.

use std::net::TcpListener;
use std::time::Duration;

use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use serde_json::{Value, json};

use crate::harness::{Node, PATIENCE, said, signal, until};

/// A bash job that goes on until a file is there.
fn job_until(node: &Node, id: &str) -> std::path::PathBuf {
    let go = node.dir.join(format!("{id}.go"));
    let began = node.dir.join(format!("{id}.began"));
    let script = format!(
        "echo x >> {}; while [ ! -e {} ]; do sleep 0.05; done; echo done",
        began.display(),
        go.display()
    );
    node.push(json!({"id": id, "command": "bash", "arguments": {"script": script}}));
    until("the job runs", || began.exists());
    go
}

/// Spoils what redis keeps, in the middle.
fn spoil(node: &Node) {
    let folder = node.dir.join("redis/appendonlydir");
    let log = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let log = log.filter(|path| path.to_str().unwrap().ends_with(".incr.aof")).max().unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    // Where a command begins: within its words it would be another value.
    let middle = bytes.len() / 2;
    let at = middle + bytes[middle..].windows(3).position(|three| three == b"\r\n*").unwrap();
    bytes[at + 2] = b'?';
    std::fs::write(log, bytes).unwrap();
}

fn redis_is_back(node: &Node) {
    until("redis is back", || {
        node.connect_as("default", &node.password)
            .and_then(|mut connection| redis::cmd("PING").exec(&mut connection))
            .is_ok()
    });
}

#[test]
fn damaged_data_is_put_aside_and_what_runs_is_answered() {
    let node = Node::start();
    for _ in 0..20 {
        node.call("core.ping", json!({}));
    }
    let go = job_until(&node, "running");
    let early = job_until(&node, "early");
    signal(node.pid_of("redis-server"), libc::SIGSTOP);
    // This one ends while redis is away.
    std::fs::write(early, "").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    spoil(&node);
    signal(node.pid_of("redis-server"), libc::SIGKILL);
    redis_is_back(&node);
    assert!(said(&node.dir).contains("what redis kept is damaged"), "{}", said(&node.dir));
    assert!(node.dir.join("redis/appendonlydir.damaged").exists());
    assert_eq!(node.result("early")["streams"][0], "done\n");
    assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
    std::fs::write(go, "").unwrap();
    assert_eq!(node.result("running")["streams"][0], "done\n");
    // Sent again by a client that does not know, it is a duplicate.
    node.push(
        json!({"id": "running", "command": "bash", "arguments": {"script": "echo x >> running.began"}}),
    );
    until("the duplicate is logged", || said(&node.dir).contains("DUPLICATE_ID"));
    assert_eq!(std::fs::read_to_string(node.dir.join("running.began")).unwrap(), "x\n");
    let length: u64 = redis::cmd("LLEN").arg("result:running").query(&mut node.connect()).unwrap();
    assert_eq!(length, 1);
}

#[test]
fn a_manager_starts_on_damaged_data() {
    let mut node = Node::start();
    for _ in 0..20 {
        node.call("core.ping", json!({}));
    }
    node.stop();
    spoil(&node);
    node.restart();
    assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
    assert!(node.dir.join("redis/appendonlydir.damaged").exists(), "{}", said(&node.dir));
}

#[test]
fn a_file_that_ends_too_early_loses_only_its_end() {
    let mut node = Node::start();
    let id = node.push(json!({"command": "core.ping"}));
    node.result(&id);
    for _ in 0..20 {
        node.call("core.ping", json!({}));
    }
    node.stop();
    let folder = std::fs::read_dir(node.dir.join("redis/appendonlydir")).unwrap().flatten();
    let log =
        folder.map(|entry| entry.path()).find(|path| path.to_str().unwrap().ends_with(".incr.aof")).unwrap();
    let file = std::fs::File::options().write(true).open(&log).unwrap();
    file.set_len(file.metadata().unwrap().len() - 7).unwrap();
    node.restart();
    assert_eq!(node.result(&id)["state"], "SUCCESS");
    assert!(!node.dir.join("redis/appendonlydir.damaged").exists(), "{}", said(&node.dir));
}

#[test]
fn a_redis_whose_port_is_taken_is_reached_by_its_socket_until_it_has_it_again() {
    let node = Node::start();
    let go = job_until(&node, "running");
    let redis = node.pid_of("redis-server");
    signal(redis, libc::SIGKILL);
    let mut thief = None;
    until("somebody takes the port", || {
        thief = TcpListener::bind(("127.0.0.1", node.port)).ok();
        thief.is_some() || said(&node.dir).contains("redis ended")
    });
    let by_socket = || {
        let login = RedisConnectionInfo::default().set_password(&node.password);
        let address = ConnectionAddr::Unix(node.dir.join("redis.sock"));
        let info = address.into_connection_info().unwrap().set_redis_settings(login);
        // Until it has read what it kept, it takes connections and refuses commands.
        let mut connection = redis::Client::open(info).unwrap().get_connection().ok()?;
        redis::cmd("PING").query::<String>(&mut connection).ok().map(|_| connection)
    };
    if thief.is_none() {
        // redis was faster: killed again, it finds the port taken, since it is ours before it starts.
        redis_is_back(&node);
        until("somebody takes the port after all", || {
            let now = node.processes().into_iter().find(|(_, line)| line.contains("redis-server"));
            if let Some((pid, _)) = now {
                signal(pid, libc::SIGKILL);
            }
            thief = TcpListener::bind(("127.0.0.1", node.port)).ok();
            thief.is_some()
        });
    }
    let mut connection = None;
    until("redis is there by its socket", || {
        connection = by_socket();
        connection.is_some()
    });
    std::fs::write(go, "").unwrap();
    let answer: Option<String> = redis::cmd("BRPOPLPUSH")
        .arg("result:running")
        .arg("result:running")
        .arg(PATIENCE.as_secs())
        .query(&mut connection.unwrap())
        .unwrap();
    let answer: Value = serde_json::from_str(&answer.unwrap()).unwrap();
    assert_eq!(answer["streams"][0], "done\n");
    assert!(said(&node.dir).contains("is taken by something else"), "{}", said(&node.dir));
    drop(thief);
    redis_is_back(&node);
    assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
}

#[test]
fn a_stream_ends_in_a_redis_that_is_full() {
    let node = Node::start();
    let go = node.dir.join("go");
    let script = format!("echo begins; while [ ! -e {} ]; do sleep 0.05; done; echo ends", go.display());
    let job = json!({"command": "bash", "arguments": {"script": script}, "stream": true});
    let id = node.push(job);
    let key = format!("stream:{id}");
    let mut own = node.connect_as_core0();
    let read = |own: &mut redis::Connection| -> Vec<(String, Vec<(String, String)>)> {
        redis::cmd("XRANGE").arg(&key).arg("-").arg("+").query(own).unwrap()
    };
    until("it is heard", || !read(&mut own).is_empty());
    // Full, as far as redis is concerned.
    redis::cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg("noeviction").exec(&mut own).unwrap();
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1mb").exec(&mut own).unwrap();
    let refused = redis::cmd("SET").arg("x").arg("y").exec(&mut own).unwrap_err();
    assert_eq!(refused.code(), Some("OOM"));
    std::fs::write(go, "").unwrap();
    let began = std::time::Instant::now();
    until("the stream has its end", || {
        let last = read(&mut own).pop().unwrap().1;
        last == [("end".to_string(), "SUCCESS".to_string())]
    });
    // What readers wait for is there before anybody made room, and before it is given up.
    assert!(began.elapsed() < Duration::from_secs(45), "{:?}", began.elapsed());
    let life: i64 = redis::cmd("TTL").arg(&key).query(&mut own).unwrap();
    assert!(life > 0, "{life}");
}

#[test]
fn a_client_that_is_silent_is_cut_off_and_one_that_waits_is_not() {
    use std::io::Read;
    let node = Node::start();
    let mut own = node.connect_as_core0();
    let (_, limit): (String, u64) = redis::cmd("CONFIG").arg("GET").arg("timeout").query(&mut own).unwrap();
    assert!((60..=3600).contains(&limit), "{limit} s");
    // Nobody wants to wait for as long as that.
    redis::cmd("CONFIG").arg("SET").arg("timeout").arg(1).exec(&mut own).unwrap();
    let mut silent = std::net::TcpStream::connect(("127.0.0.1", node.port)).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut waiting = node.connect();
    let waiting = std::thread::spawn(move || -> Option<(String, String)> {
        redis::cmd("BLPOP").arg("a-list").arg(PATIENCE.as_secs()).query(&mut waiting).unwrap()
    });
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0, "it is still there");
    std::thread::sleep(Duration::from_secs(3));
    redis::cmd("RPUSH").arg("a-list").arg("there").exec(&mut node.connect()).unwrap();
    assert_eq!(waiting.join().unwrap().unwrap().1, "there");
    // core0's own were silent, too.
    let result = node.call("bash", json!({"script": "echo works"}));
    assert_eq!(result["streams"][0], "works\n", "{result}");
}

#[test]
fn a_full_redis_refuses_clients_clearly_and_never_what_is_accepted() {
    let mut node = Node::start();
    let go = job_until(&node, "running");
    // It waits before there is no room.
    let mut waiting = node.connect();
    let waiting = std::thread::spawn(move || -> Option<(String, String)> {
        redis::cmd("BLPOP").arg("result:running").arg(PATIENCE.as_secs()).query(&mut waiting).unwrap()
    });
    // What the administrator keeps without a time to live: nothing can be dropped for it.
    let mut redis = node.connect();
    let mut kept = 0;
    let mut fill = |redis: &mut redis::Connection, size: usize| loop {
        let key = format!("ballast-{kept}");
        match redis::cmd("SET").arg(key).arg("x".repeat(size)).exec(redis) {
            Ok(()) => kept += 1,
            Err(e) => break assert_eq!(e.code(), Some("OOM"), "{e}"),
        }
        assert!(kept < 20_000);
    };
    fill(&mut redis, 3 << 20);
    let mut push = None;
    // What the buffers of this connection took is free a moment later, and filled too.
    until("a command is refused", || {
        fill(&mut redis, 16 << 10);
        push = redis::cmd("RPUSH").arg("core:default").arg("{}").exec(&mut redis).err();
        std::thread::sleep(Duration::from_millis(200));
        push.is_some()
    });
    assert_eq!(push.unwrap().code(), Some("OOM"));
    // The next manager takes up what was accepted all the same.
    node.kill_manager();
    node.restart();
    // Its result is written all the same, and who waits gets it; then it is the first to make room.
    std::fs::write(go, "").unwrap();
    let (_, json) = waiting.join().unwrap().unwrap();
    assert!(json.contains("done"), "{json}");
    for i in 0..kept {
        redis::cmd("DEL").arg(format!("ballast-{i}")).exec(&mut redis).unwrap();
    }
    assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
    let left: u64 =
        redis::cmd("HLEN").arg("core:inflight:default").query(&mut node.connect_as_core0()).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_connection_that_hoards_memory_is_cut_off_and_the_others_are_served() {
    let node = Node::start();
    let early = node.push(json!({"command": "core.ping"}));
    node.result(&early);
    let mut redis = node.connect();
    redis::cmd("SET").arg("big").arg("x".repeat(3 << 20)).exec(&mut redis).unwrap();
    // Each asks for 300 MB and reads nothing.
    let request = "*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n".repeat(100);
    let greedy: Vec<_> = (0..6)
        .map(|_| {
            use std::io::Write;
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", node.port)).unwrap();
            let login = format!("*2\r\n$4\r\nAUTH\r\n${}\r\n{}\r\n", node.password.len(), node.password);
            stream.write_all(login.as_bytes()).unwrap();
            // It may be cut off while it asks.
            let _ = stream.write_all(request.as_bytes());
            stream
        })
        .collect();
    assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
    assert_eq!(node.result(&early)["state"], "SUCCESS", "what others wait for was dropped");
    drop(greedy);
}
