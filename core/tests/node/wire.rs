//! Commands in, results out: the contract with clients.

use serde_json::{Value, json};

use crate::harness::{Node, said, until};

#[test]
fn ping_answers_json_of_level_20_that_can_be_read_again() {
    let node = Node::start();
    let id = node.push(json!({"command": "core.ping", "arguments": {}}));
    for _ in 0..3 {
        let result = node.result(&id);
        assert_eq!(
            (&result["state"], &result["level"], &result["code"]),
            (&json!("SUCCESS"), &json!(20), &json!(0))
        );
        let data: String = serde_json::from_str(result["data"].as_str().unwrap()).unwrap();
        assert_eq!(data, concat!("PONG ", env!("CARGO_PKG_VERSION")));
    }
    let mut redis = node.connect();
    for key in [format!("result:{id}"), format!("result:{id}:flag")] {
        let (length, life): (u64, i64) =
            redis::pipe().cmd("LLEN").arg(&key).cmd("TTL").arg(&key).query(&mut redis).unwrap();
        assert_eq!(length, 1, "{key}");
        assert!((1..=300).contains(&life), "{key} lives {life}");
    }
}

#[test]
fn what_is_answered_on_its_way_in_is_answered_once_and_leaves_nothing() {
    let node = Node::start();
    let secret = std::fs::read_to_string(node.dir.join("redis/core0.password")).unwrap();
    let mut own = node.connect_as("core0", &secret).unwrap();
    // One after the other, so that each comes alone; every third one is there already.
    for i in 0..60 {
        let id = format!("once-{}", i - i % 3 / 2);
        let envelope = json!({"id": id, "command": "core.ping", "tags": ["a"]});
        node.push(envelope);
        let result = node.result(&id);
        assert_eq!(
            (&result["state"], &result["tags"], &result["level"]),
            (&json!("SUCCESS"), &json!(["a"]), &json!(20))
        );
    }
    for (arguments, code) in [(json!([1]), 400), (json!({"name": "x"}), 404), (json!({"name": 7}), 400)] {
        let command = if code == 400 && arguments.is_array() { "core.ping" } else { "service.status" };
        assert_eq!(node.call(command, arguments)["code"], code);
    }
    for i in 0..60 {
        let id = format!("once-{}", i - i % 3 / 2);
        for key in [format!("result:{id}"), format!("result:{id}:flag")] {
            let read =
                |command: &str| redis::cmd(command).arg(&key).query::<i64>(&mut node.connect()).unwrap();
            assert_eq!(read("LLEN"), 1, "{key}");
            assert!((1..=300).contains(&read("TTL")), "{key}");
        }
    }
    for key in ["core:intake:default", "core:inflight:default", "core:default"] {
        assert_eq!(redis::cmd("EXISTS").arg(key).query::<u64>(&mut own).unwrap(), 0, "{key}");
    }
    until("twenty duplicates are logged", || said(&node.dir).matches("DUPLICATE_ID").count() == 20);
    assert_eq!(dropped(&node), (20, 0));
}

#[test]
fn bad_input_is_one_clear_result_or_a_line_in_the_log() {
    let node = Node::start();
    let mut sent: Vec<(Value, &str, u64, &str)> = Vec::new();
    let mut send = |envelope: Value, state, code, message| {
        let id = node.push(envelope);
        sent.push((id.into(), state, code, message));
    };
    send(json!({"command": "no.such"}), "UNKNOWN_CMD", 404, "there is no command \"no.such\"");
    send(json!({"command": "job.kill"}), "ERROR", 400, "missing field `id`");
    send(json!({"command": "job.kill", "arguments": {"id": 7}}), "ERROR", 400, "invalid type");
    send(
        json!({"command": "job.kill", "arguments": {"id": "x", "signal": 900}}),
        "ERROR",
        400,
        "is no signal",
    );
    send(json!({"command": "job.kill", "arguments": {"id": "x"}}), "ERROR", 404, "no job x runs");
    send(json!({"command": "core.ping", "arguments": [1]}), "ERROR", 400, "no object");
    send(json!({"command": "core.ping", "max_time": "soon"}), "ERROR", 400, "max_time");
    send(json!({"arguments": {}}), "ERROR", 400, "the command is missing");
    send(json!({"command": "core.system", "arguments": {"name": "a\0b"}}), "ERROR", 400, "NUL");
    send(json!({"command": "core.system", "arguments": {"name": ""}}), "ERROR", 400, "empty");
    send(
        json!({"command": "core.system", "arguments": {"name": "no-such-program"}}),
        "ERROR",
        404,
        "no-such-program",
    );
    send(
        json!({"command": "core.system", "arguments": {"name": "true", "dir": "/no/such"}}),
        "ERROR",
        404,
        "/no/such",
    );
    send(
        json!({"command": "core.system", "arguments": {"name": "true", "stdin": "x".repeat(2 << 20)}}),
        "ERROR",
        400,
        "at most",
    );
    for (id, state, code, message) in sent {
        let result = node.result(id.as_str().unwrap());
        assert_eq!((&result["state"], &result["code"]), (&json!(state), &json!(code)), "{result}");
        let data: String = serde_json::from_str(result["data"].as_str().unwrap()).unwrap();
        assert!(data.contains(message), "{message}: {data}");
    }
    // What is no command in JSON is answered too, as long as its id can be read.
    let deep = format!(
        r#"{{"id":"nested","command":"core.ping","arguments":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    node.push_raw(deep.as_bytes());
    node.push_raw(b"{\"id\":\"odd\",\"command\":\"bash\",\"arguments\":{\"script\":\"\xff\"}}");
    for (id, message) in [("nested", "recursion limit"), ("odd", "unicode")] {
        let result = node.result(id);
        assert_eq!((&result["state"], &result["code"]), (&json!("ERROR"), &json!(400)), "{result}");
        assert!(result["data"].as_str().unwrap().contains(message), "{result}");
    }
    let deep = format!(r#"{{"id":"deep","command":"core.ping","arguments":{}"#, "[".repeat(100_000));
    let raws: [&[u8]; 6] =
        [b"", b"\xff\xfe{", b"[]", br#"{"command":"core.ping"}"#, br#"{"id":"a:b"}"#, deep.as_bytes()];
    raws.iter().for_each(|raw| node.push_raw(raw));
    until("a line in the log for each", || said(&node.dir).matches("is dropped").count() >= raws.len());
    assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
}

/// What was dropped, by `core.state`: duplicates, and what could not be read.
fn dropped(node: &Node) -> (u64, u64) {
    let state = node.call("core.state", json!({}));
    let state: Value = serde_json::from_str(state["data"].as_str().unwrap()).unwrap();
    (state["duplicates"].as_u64().unwrap(), state["unreadable"].as_u64().unwrap())
}

#[test]
fn who_sends_rubbish_for_ever_does_not_fill_the_log() {
    let node = Node::start();
    let mut pipeline = redis::pipe();
    (0..5000).for_each(|_| {
        pipeline.cmd("RPUSH").arg("core:default").arg("rubbish").ignore();
    });
    pipeline.exec(&mut node.connect()).unwrap();
    // It was all looked at when this one is answered.
    assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
    let lines = said(&node.dir).matches("is dropped").count();
    assert!((1..=20).contains(&lines), "{lines} lines");
    // Counted it is all.
    assert_eq!(dropped(&node), (0, 5000));
}

#[test]
fn a_duplicate_is_dropped_and_reads_the_first_result() {
    let node = Node::start();
    let dir = node.dir.display();
    let script = format!("echo x >> {dir}/effect; sleep 0.3");
    let envelope = json!({"id": "twice", "command": "bash", "arguments": {"script": script}});
    node.push(envelope.clone());
    node.push(envelope.clone());
    assert_eq!(node.result("twice")["state"], "SUCCESS");
    node.push(envelope);
    until("two duplicates are logged", || said(&node.dir).matches("DUPLICATE_ID").count() == 2);
    assert_eq!(dropped(&node), (2, 0));
    assert_eq!(std::fs::read_to_string(node.dir.join("effect")).unwrap(), "x\n");
    let length: u64 = redis::cmd("LLEN").arg("result:twice").query(&mut node.connect()).unwrap();
    assert_eq!(length, 1);
}

#[test]
fn output_is_a_stream_that_many_read() {
    let node = Node::start();
    let script = "echo one; echo two >&2; echo 8::three";
    let id = node.push(json!({"command": "bash", "arguments": {"script": script}, "stream": true}));
    node.result(&id);
    for _ in 0..2 {
        let read = || -> Vec<(String, Vec<(String, String)>)> {
            redis::cmd("XRANGE")
                .arg(format!("stream:{id}"))
                .arg("-")
                .arg("+")
                .query(&mut node.connect())
                .unwrap()
        };
        until("the end of the stream", || read().iter().any(|(_, fields)| fields[0].0 == "end"));
        let mut texts: Vec<String> = Vec::new();
        for (_, fields) in read() {
            let get =
                |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
            texts.push(match get("end") {
                Some(state) => format!("end {state}"),
                None => format!("{} {}", get("level").unwrap(), get("text").unwrap()),
            });
        }
        assert_eq!(texts.pop().as_deref(), Some("end SUCCESS"));
        texts.sort();
        assert_eq!(texts, ["1 one", "2 two", "8 three"]);
    }
}

#[test]
fn a_job_can_be_listened_to_later() {
    let node = Node::start();
    let script = "echo first; while [ ! -e \"$0\" ]; do sleep 0.05; done; echo last";
    let go = node.dir.join("go");
    let arguments = json!({"name": "bash", "args": ["-c", script, go]});
    let job = node.push(json!({"command": "core.system", "arguments": arguments}));
    until("the first line", || {
        let log = std::fs::read_to_string(node.dir.join("log/jobs.log")).unwrap_or_default();
        log.contains("first")
    });
    let listener = node.push(json!({"command": "core.subscribe", "arguments": {"id": job}}));
    let answer = node.result(&listener)["data"].as_str().unwrap().to_string();
    assert_eq!(serde_json::from_str::<Value>(&answer).unwrap()["stream"], format!("stream:{listener}"));
    std::fs::write(go, "").unwrap();
    node.result(&job);
    let mut redis = node.connect();
    let mut texts = || -> Vec<String> {
        let entries: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
            .arg(format!("stream:{listener}"))
            .arg("-")
            .arg("+")
            .query(&mut redis)
            .unwrap();
        entries.into_iter().map(|(_, fields)| fields.last().unwrap().clone()).collect()
    };
    until("what was before, what came, and the end", || texts() == ["first", "last", "SUCCESS"]);
}
