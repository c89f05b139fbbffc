//! Users beside the administrator: what is theirs, what they may, and what a hostile one tries.

use std::fmt::Write;
use std::path::Path;

use redis::{Connection, RedisResult};
use serde_json::{Value, json};

use crate::harness::{Node, PATIENCE, said, until};

/// Writes a configuration with these users, as `name role password`.
fn configure(dir: &Path, users: &[(&str, &str, &str)]) {
    let mut config = String::new();
    for (name, role, password) in users {
        let secret = dir.join(format!("{name}.secret"));
        std::fs::write(&secret, format!("{password}\n")).unwrap();
        writeln!(config, "[users.{name}]\nrole = {role:?}\npassword_file = {secret:?}").unwrap();
    }
    std::fs::write(dir.join("core0.toml"), config).unwrap();
}

fn node_with(users: &[(&str, &str, &str)]) -> (tempfile::TempDir, Node) {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), users);
    let node = Node::start_in(folder.path());
    (folder, node)
}

fn push(connection: &mut Connection, user: &str, envelope: &Value) -> RedisResult<()> {
    redis::cmd("RPUSH").arg(format!("core:user:{user}")).arg(envelope.to_string()).exec(connection)
}

/// Waits for a result as a named user does, who cannot take it away.
fn result(connection: &mut Connection, user: &str, id: &str) -> Value {
    type Streams = Vec<(String, Vec<(String, (String, String))>)>;
    let wait = PATIENCE.as_millis() as u64;
    let read = redis::cmd("XREAD")
        .arg("BLOCK")
        .arg(wait.min(10_000))
        .arg("STREAMS")
        .arg(format!("result:{user}:{id}"))
        .arg("0")
        .clone();
    for _ in 0..6 {
        if let Some(streams) = read.query::<Option<Streams>>(connection).unwrap() {
            assert_eq!(streams[0].1.len(), 1, "{streams:?}");
            let (field, json) = &streams[0].1[0].1;
            assert_eq!(field, "json");
            return serde_json::from_str(json).unwrap();
        }
    }
    panic!("no result of {id}");
}

fn call(connection: &mut Connection, user: &str, command: &str, arguments: Value) -> Value {
    let id = crate::harness::new_id();
    push(connection, user, &json!({"id": id, "command": command, "arguments": arguments})).unwrap();
    result(connection, user, &id)
}

#[test]
fn users_have_their_own_queues_results_and_roles() {
    let (_folder, node) = node_with(&[("eve", "read", "long-1"), ("bob", "operate", "long-2")]);
    assert!(node.connect_as("eve", "wrong").is_err());
    assert!(node.connect_as("eve", "long-2").is_err());
    assert!(node.connect_as("default", "wrong").is_err());
    let mut eve = node.connect_as("eve", "long-1").unwrap();
    let mut bob = node.connect_as("bob", "long-2").unwrap();
    assert_eq!(call(&mut eve, "eve", "core.ping", json!({}))["state"], "SUCCESS");
    let refused = call(&mut eve, "eve", "bash", json!({"script": "true"}));
    assert_eq!((&refused["state"], &refused["code"]), (&json!("ERROR"), &json!(403)), "{refused}");
    assert_eq!(call(&mut bob, "bob", "bash", json!({"script": "echo mine"}))["streams"][0], "mine\n");
    let refused = call(&mut bob, "bob", "core.reboot", json!({}));
    assert_eq!(refused["code"], 403, "{refused}");
    // A result stays for whoever reads it later.
    push(&mut eve, "eve", &json!({"id": "kept", "command": "core.ping"})).unwrap();
    assert_eq!(result(&mut eve, "eve", "kept"), result(&mut eve, "eve", "kept"));
    let life: i64 = redis::cmd("TTL").arg("result:eve:kept").query(&mut eve).unwrap();
    assert!((1..=300).contains(&life), "{life}");
}

#[test]
fn an_administrator_of_another_name_may_all_and_has_room_when_others_used_it_up() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &[("amy", "admin", "long-1"), ("bob", "operate", "long-2")]);
    let config = folder.path().join("core0.toml");
    let users = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("[limits]\naccepted = 2\n{users}")).unwrap();
    let node = Node::start_in(folder.path());
    let mut amy = node.connect_as("amy", "long-1").unwrap();
    let mut bob = node.connect_as("bob", "long-2").unwrap();
    let listed = call(&mut amy, "amy", "disk.list", json!({}));
    assert_eq!(listed["state"], "SUCCESS", "{listed}");
    let machine = call(&mut amy, "amy", "core.reboot", json!({}));
    assert_eq!(machine["code"], 406, "{machine}");
    let sleep = |id: &str| json!({"id": id, "command": "bash", "arguments": {"script": "sleep 600"}});
    for id in ["1", "2"] {
        push(&mut bob, "bob", &sleep(id)).unwrap();
        until("a job of bob's runs", || {
            let list = call(&mut amy, "amy", "job.list", json!({"id": format!("bob:{id}")}));
            list["data"].as_str().unwrap().contains("\"pid\":")
        });
    }
    let full = call(&mut bob, "bob", "bash", json!({"script": "true"}));
    assert_eq!(full["code"], 503, "{full}");
    assert_eq!(call(&mut amy, "amy", "bash", json!({"script": "echo room"}))["streams"][0], "room\n");
    // Her own are hers: nothing of them is in the queue or the results of the administrator without a name.
    push(&mut amy, "amy", &sleep("hers")).unwrap();
    until("it runs", || call(&mut amy, "amy", "job.kill", json!({"id": "hers"}))["state"] == "SUCCESS");
    assert_eq!(result(&mut amy, "amy", "hers")["state"], "KILLED");
    assert!(redis::cmd("RPUSH").arg("core:default").arg("{}").exec(&mut amy).is_err());
    for id in ["1", "2"] {
        assert_eq!(call(&mut amy, "amy", "job.kill", json!({"id": format!("bob:{id}")}))["state"], "SUCCESS");
        assert_eq!(result(&mut bob, "bob", id)["state"], "KILLED");
    }
}

#[test]
fn who_is_refused_by_redis_is_named_in_the_log_of_the_node_and_does_not_fill_it() {
    let (_folder, mut node) = node_with(&[("eve", "read", "long-1")]);
    let told = |node: &Node| {
        let log = said(&node.dir);
        log.lines().filter(|line| line.contains("logins, the name or the password is wrong")).count()
    };
    let secret = "a-wrong-password";
    for user in ["eve", "eve", "default", "mallory\nINFO all is well"] {
        assert!(node.connect_as(user, secret).is_err());
    }
    until("it is in the log", || told(&node) > 0);
    let log = said(&node.dir);
    assert!(log.contains("\"eve\" from 127.0.0.1"), "{log}");
    assert!(!log.contains(secret) && !log.lines().any(|line| line.starts_with("INFO all")), "{log}");
    // The others that it refuses in the next minute are one line, whenever that is over.
    let began = std::time::Instant::now();
    for i in 0..300 {
        assert!(node.connect_as(&format!("user-{}", i % 50), secret).is_err());
    }
    until("redis has none of them any more", || {
        let entries: Vec<redis::Value> =
            redis::cmd("ACL").arg("LOG").query(&mut node.connect_as_core0()).unwrap();
        entries.is_empty()
    });
    assert!(told(&node) as u64 <= 2 + began.elapsed().as_secs() / 60, "{}", said(&node.dir));
    // The next manager tells what it finds.
    node.kill_manager();
    assert!(node.connect_as("late", secret).is_err());
    node.restart();
    until("the next manager tells", || said(&node.dir).contains("\"late\" from 127.0.0.1"));
}

#[test]
fn a_hostile_user_reads_nothing_of_others_and_writes_nothing_but_its_queue() {
    let (_folder, node) = node_with(&[("eve", "operate", "long-1"), ("bob", "operate", "long-2")]);
    let mut bob = node.connect_as("bob", "long-2").unwrap();
    push(&mut bob, "bob", &json!({"id": "1", "command": "core.ping"})).unwrap();
    result(&mut bob, "bob", "1");
    let secret = node.push(json!({"id": "eve", "command": "core.ping"}));
    node.result(&secret);
    let mut eve = node.connect_as("eve", "long-1").unwrap();
    push(
        &mut eve,
        "eve",
        &json!({"id": "1", "command": "bash", "arguments": {"script": "echo x"}, "stream": true}),
    )
    .unwrap();
    result(&mut eve, "eve", "1");
    let refused = [
        // Of others.
        "RPUSH core:default {}",
        "RPUSH core:user:bob {}",
        "RPUSH core:inflight:eve {}",
        "LRANGE core:user:bob 0 -1",
        "XREAD STREAMS result:bob:1 0",
        "XREAD STREAMS result:eve 0",
        "XRANGE stream:bob:1 - +",
        "LRANGE result:eve 0 -1",
        "GET core:seq",
        "EXISTS result:eve:1 result:bob:1",
        // Its own, which core0 writes.
        "RPUSH result:eve:1 x",
        "RPUSH result:eve:new x",
        "RPUSH result:eve:1:flag x",
        "RPUSH stream:eve:1 x",
        "RPUSH logger:eve:q x",
        "LPUSH core:user:eve x",
        "XADD result:eve:1 * json {}",
        "XADD stream:eve:1 * text x",
        "XDEL result:eve:1 1-0",
        "XTRIM stream:eve:1 MAXLEN 0",
        "DEL result:eve:1",
        "EXPIRE result:eve:1 100000000",
        "PERSIST result:eve:1",
        "LPOP core:user:eve",
        "LRANGE core:user:eve 0 -1",
        "BRPOPLPUSH core:user:eve result:eve:2 1",
        "LMOVE result:eve:1:flag result:eve:3 LEFT LEFT",
        "COPY result:eve:1 result:eve:4",
        "RENAME result:eve:1 result:eve:5",
        "SORT result:eve:1:flag STORE result:eve:6",
        "LINSERT core:user:eve BEFORE a b",
        "LSET core:user:eve 0 a",
        "RPUSHX result:eve:1:flag x",
        "SET result:eve:9 x",
        "RESTORE result:eve:9 0 x",
        "XGROUP CREATE stream:eve:1 group 0",
        // The server's.
        "SELECT 1",
        "FLUSHALL",
        "FLUSHDB",
        "KEYS *",
        "SCAN 0",
        "CONFIG GET *",
        "ACL LIST",
        "ACL WHOAMI",
        "CLIENT LIST",
        "CLIENT KILL TYPE normal",
        "CLIENT NO-EVICT ON",
        "CLIENT PAUSE 100000",
        "CLIENT TRACKING ON",
        "EVAL return1 0",
        "FCALL f 0",
        "SUBSCRIBE x",
        "PUBLISH x y",
        "MONITOR",
        "SHUTDOWN NOSAVE",
        "MULTI",
        "WATCH result:eve:1",
        "WAIT 1 100000",
        "SWAPDB 0 1",
        "INFO",
        "SLOWLOG GET",
        "MEMORY STATS",
        "REPLICAOF 127.0.0.1 1",
        "MIGRATE 127.0.0.1 1 result:eve:1 0 10",
    ];
    let mut open = Vec::new();
    for line in refused {
        let words: Vec<&str> = line.split(' ').collect();
        match redis::cmd(words[0]).arg(&words[1..]).query::<redis::Value>(&mut eve) {
            Ok(value) => open.push(format!("{line}: {value:?}")),
            Err(e) if e.code() == Some("NOPERM") || e.to_string().contains("out of range") => {}
            Err(e) => open.push(format!("{line}: {e}")),
        }
    }
    assert!(open.is_empty(), "{open:#?}");
    // And the administrator may not administrate redis.
    for line in
        ["CONFIG GET *", "KEYS *", "FLUSHALL", "SHUTDOWN NOSAVE", "ACL LIST", "DEBUG SLEEP 1", "SELECT 1"]
    {
        let words: Vec<&str> = line.split(' ').collect();
        let refused = redis::cmd(words[0]).arg(&words[1..]).exec(&mut node.connect());
        assert!(refused.is_err(), "{line}");
    }
}

#[test]
fn what_others_run_is_seen_by_the_administrator_alone() {
    let (_folder, node) = node_with(&[("eve", "operate", "long-1"), ("bob", "operate", "long-2")]);
    let mut bob = node.connect_as("bob", "long-2").unwrap();
    let arguments = json!({"name": "sh", "args": ["-c", "echo '10::a-token-of-bob:1|A'; sleep 60; true", "a-token-of-bob"]});
    push(&mut bob, "bob", &json!({"id": "1", "command": "core.system", "arguments": arguments})).unwrap();
    until("it runs", || {
        let list = node.call("process.list", json!({"pid": 0}));
        list["data"].as_str().unwrap().contains("a-token-of-bob")
    });
    until("its statistics are there", || {
        node.call("aggregator.query", json!({}))["data"].as_str().unwrap().contains("a-token-of-bob")
    });
    let mut eve = node.connect_as("eve", "long-1").unwrap();
    for (command, arguments) in [
        ("process.list", json!({"pid": 0})),
        ("process.list", json!({})),
        ("job.list", json!({})),
        ("aggregator.query", json!({})),
        ("info.port", json!({})),
    ] {
        let seen = call(&mut eve, "eve", command, arguments);
        assert_eq!(seen["state"], "SUCCESS", "{seen}");
        assert!(!seen["data"].as_str().unwrap().contains("a-token-of-bob"), "{command} shows it");
    }
    let killed = call(&mut eve, "eve", "job.kill", json!({"id": "bob:1"}));
    assert_eq!(killed["code"], 404, "{killed}");
    let heard = call(&mut eve, "eve", "core.subscribe", json!({"id": "bob:1"}));
    assert_eq!(heard["code"], 404, "{heard}");
}

#[test]
fn what_a_hostile_user_sends_does_not_keep_the_administrator_out() {
    let (_folder, node) = node_with(&[("eve", "operate", "long-1")]);
    let mut eve = node.connect_as("eve", "long-1").unwrap();
    // Commands that stay accepted for long, 190 MB of them: redis has room for 256.
    let ballast = "x".repeat(1_900_000);
    let mut busy = 0;
    for i in 0..100 {
        let id = format!("big-{i}");
        let envelope = json!({"id": id, "command": "bash",
            "arguments": {"script": "sleep 600", "stdin": ballast}});
        push(&mut eve, "eve", &envelope).unwrap();
    }
    for i in 0..100 {
        let key = format!("result:eve:big-{i}");
        until("each is accepted or refused", || {
            redis::cmd("EXISTS").arg(format!("{key}:flag")).query::<u64>(&mut eve).unwrap() == 1
        });
        if redis::cmd("EXISTS").arg(&key).query::<u64>(&mut eve).unwrap() == 1 {
            let refused = result(&mut eve, "eve", &format!("big-{i}"));
            assert!(refused["data"].as_str().unwrap().contains("are being worked on"), "{refused}");
            assert_eq!(refused["code"], 503);
            busy += 1;
        }
    }
    assert!((50..100).contains(&busy), "{busy} were refused");
    assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
    // One of the same size, from who may kill the others.
    let big = json!({"script": "true", "stdin": ballast});
    assert_eq!(node.call("bash", big)["state"], "SUCCESS");
    let killed = node.call("job.killall", json!({"signal": 9}));
    assert_eq!(killed["state"], "SUCCESS", "{killed}");
    until("there is room again", || {
        let result = call(&mut eve, "eve", "bash", json!({"script": "true", "stdin": ballast}));
        result["state"] == "SUCCESS"
    });
}

#[test]
fn a_changed_configuration_holds_when_the_manager_is_started_again() {
    let (folder, mut node) = node_with(&[
        ("same", "read", "long-1"),
        ("lesser", "operate", "long-2"),
        ("moved", "read", "long-3"),
        ("gone", "operate", "long-4"),
    ]);
    let redis = node.pid_of("redis-server");
    let mut same = node.connect_as("same", "long-1").unwrap();
    let mut moved = node.connect_as("moved", "long-3").unwrap();
    let mut gone = node.connect_as("gone", "long-4").unwrap();
    let mark = folder.path().join("mark");
    let script = format!("sleep 1; echo ran > {}", mark.display());
    push(&mut gone, "gone", &json!({"id": "job", "command": "bash", "arguments": {"script": script}}))
        .unwrap();
    until("the job is accepted", || {
        redis::cmd("EXISTS").arg("result:gone:job:flag").query::<u64>(&mut gone).unwrap() == 1
    });
    node.kill_manager();
    // Sent before it was thrown out, and never taken.
    push(&mut gone, "gone", &json!({"id": "late", "command": "core.ping"})).unwrap();
    configure(
        folder.path(),
        &[
            ("same", "read", "long-1"),
            ("lesser", "read", "long-2"),
            ("moved", "read", "other-3"),
            ("new", "operate", "long-5"),
        ],
    );
    node.restart();
    assert_eq!(node.pid_of("redis-server"), redis, "redis was kept");
    assert!(redis::cmd("PING").exec(&mut gone).is_err(), "a user that is no more is still connected");
    assert!(redis::cmd("PING").exec(&mut moved).is_err(), "a connection with the old password lives");
    assert!(node.connect_as("gone", "long-4").is_err());
    assert!(node.connect_as("moved", "long-3").is_err());
    node.connect_as("moved", "other-3").unwrap();
    let mut new = node.connect_as("new", "long-5").unwrap();
    assert_eq!(call(&mut new, "new", "bash", json!({"script": "true"}))["state"], "SUCCESS");
    let mut lesser = node.connect_as("lesser", "long-2").unwrap();
    assert_eq!(call(&mut lesser, "lesser", "bash", json!({"script": "true"}))["code"], 403);
    if redis::cmd("PING").exec(&mut same).is_err() {
        same = node.connect_as("same", "long-1").unwrap();
    }
    assert_eq!(call(&mut same, "same", "core.ping", json!({}))["state"], "SUCCESS");
    let mut own = node.connect_as_core0();
    let left: Vec<String> = redis::cmd("KEYS").arg("*:gone*").query(&mut own).unwrap();
    assert_eq!(left, Vec::<String>::new());
    // Who has the name next runs nothing of the old one.
    node.kill_manager();
    configure(folder.path(), &[("gone", "read", "long-6")]);
    node.restart();
    let mut next = node.connect_as("gone", "long-6").unwrap();
    assert_eq!(call(&mut next, "gone", "core.ping", json!({}))["state"], "SUCCESS");
    assert_eq!(redis::cmd("EXISTS").arg("result:gone:late").query::<u64>(&mut next).unwrap(), 0);
    assert!(!mark.exists(), "the job of a user that is no more ran on");
}

#[test]
fn users_of_a_manager_that_died_before_redis_knew_them_are_known_to_the_next() {
    let (folder, mut node) = node_with(&[("eve", "read", "long-1")]);
    let mut eve = node.connect_as("eve", "long-1").unwrap();
    node.kill_manager();
    // What a manager leaves that writes its files and is killed then.
    let acl = folder.path().join("redis/users.acl");
    let without: String = std::fs::read_to_string(&acl)
        .unwrap()
        .lines()
        .filter(|line| !line.contains("eve"))
        .map(|l| format!("{l}\n"))
        .collect();
    std::fs::write(folder.path().join("redis/users.changed"), "eve").unwrap();
    std::fs::write(&acl, without).unwrap();
    configure(folder.path(), &[]);
    node.restart();
    assert!(redis::cmd("PING").exec(&mut eve).is_err());
    assert!(node.connect_as("eve", "long-1").is_err());
    assert!(!folder.path().join("redis/users.changed").exists(), "{}", said(&node.dir));
}
