//! Jobs on a terminal: what they show, what is typed, their size, their end.

use serde_json::{Value, json};

use crate::harness::{Node, runs, until};

fn start(node: &Node, script: &str) -> String {
    let arguments = json!({"script": script, "terminal": {"rows": 24, "cols": 80}});
    node.push(json!({"command": "bash", "arguments": arguments, "stream": true}))
}

fn push(node: &Node, id: &str, entry: Value) {
    let key = format!("input:{id}");
    redis::cmd("RPUSH").arg(key).arg(entry.to_string()).exec(&mut node.connect()).unwrap();
}

/// All that it has shown, as it is.
fn shown(node: &Node, id: &str) -> String {
    let entries: Vec<(String, Vec<(String, String)>)> = redis::cmd("XRANGE")
        .arg(format!("stream:{id}"))
        .arg("-")
        .arg("+")
        .query(&mut node.connect())
        .unwrap();
    entries
        .into_iter()
        .flat_map(|(_, fields)| fields)
        .filter(|(name, _)| name == "text")
        .map(|(_, text)| text)
        .collect()
}

#[test]
fn what_is_typed_is_read_and_what_is_shown_comes_as_it_is() {
    let node = Node::start();
    let script = "tty; stty size; read -r -p 'name? ' name; echo \"hello $name\"; while read -r line; do stty size; done; echo bye; exit 5";
    let id = start(&node, script);
    // A prompt has no end of a line.
    until("the prompt", || shown(&node, &id).ends_with("name? "));
    assert!(shown(&node, &id).contains("/dev/pts/") && shown(&node, &id).contains("24 80\r\n"));
    push(&node, &id, json!({"data": "w\u{f6}rld\n"}));
    until("the answer", || shown(&node, &id).contains("hello w\u{f6}rld\r\n"));
    for nonsense in [json!({"rows": 0, "cols": 9}), json!({"x": 1}), json!([]), json!("x".repeat(100_000))] {
        push(&node, &id, nonsense);
    }
    push(&node, &id, json!({"rows": 50, "cols": 132}));
    push(&node, &id, json!({"data": "\n"}));
    until("a new size", || shown(&node, &id).contains("50 132\r\n"));
    let typed = json!({"id": id, "data": "\n", "terminal": {"rows": 51, "cols": 133}});
    assert_eq!(node.call("job.input", typed)["state"], "SUCCESS");
    until("a newer size", || shown(&node, &id).contains("51 133\r\n"));
    for (arguments, code) in [
        (json!({"id": id, "data": "x".repeat(100_000)}), 400),
        (json!({"id": id, "terminal": {"rows": 0, "cols": 80}}), 400),
        (json!({"id": id}), 400),
        (json!({"id": "nobody", "data": "x"}), 404),
        (json!({"id": "nobody"}), 404),
    ] {
        let result = node.call("job.input", arguments);
        assert_eq!((&result["state"], &result["code"]), (&json!("ERROR"), &json!(code)), "{result}");
    }
    // Ctrl-D is the end of the input.
    push(&node, &id, json!({"data": "\u{4}"}));
    let result = node.result(&id);
    assert_eq!((&result["state"], &result["code"]), (&json!("ERROR"), &json!(1005)), "{result}");
    assert!(result["streams"][0].as_str().unwrap().ends_with("bye\r\n"), "{result}");
    assert!(shown(&node, &id).ends_with("bye\r\n"));
    until("its input is gone", || {
        redis::cmd("EXISTS").arg(format!("input:{id}")).query::<u64>(&mut node.connect()).unwrap() == 0
    });
}

#[test]
fn ctrl_c_interrupts_and_a_kill_ends_it() {
    let node = Node::start();
    let id = start(&node, "trap 'echo interrupted' INT; echo ready; while :; do sleep 0.1; done");
    until("it is ready", || shown(&node, &id).contains("ready"));
    push(&node, &id, json!({"data": "\u{3}"}));
    until("it was interrupted", || shown(&node, &id).contains("interrupted"));
    assert_eq!(node.call("job.kill", json!({"id": id, "signal": 9}))["state"], "SUCCESS");
    assert_eq!(node.result(&id)["state"], "KILLED");
}

#[test]
fn a_job_on_a_terminal_does_not_outlive_the_manager() {
    let mut node = Node::start();
    let id = start(&node, "echo \"pid $$.\"; sleep 600");
    let mut pid = 0;
    until("it runs", || {
        let text = shown(&node, &id);
        let number =
            text.split_once("pid ").and_then(|(_, rest)| rest.split_once('.')).map(|(pid, _)| pid.parse());
        pid = number.and_then(Result::ok).unwrap_or(0);
        pid > 0
    });
    node.kill_manager();
    node.restart();
    let result = node.result(&id);
    assert_eq!((&result["state"], &result["code"]), (&json!("ERROR"), &json!(503)), "{result}");
    until("it is gone", || !runs(pid));
}

#[test]
fn a_terminal_that_cannot_be_is_refused() {
    let node = Node::start();
    for (terminal, stdin) in [(json!({"rows": 0, "cols": 80}), ""), (json!({"rows": 24, "cols": 80}), "x")] {
        let arguments = json!({"script": "true", "stdin": stdin, "terminal": terminal});
        let result = node.call("bash", arguments);
        assert_eq!((&result["state"], &result["code"]), (&json!("ERROR"), &json!(400)), "{result}");
    }
}

#[test]
fn what_is_typed_and_never_read_ends_with_its_job() {
    let node = Node::start();
    let own = || -> usize {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut node.connect_as_core0()).unwrap();
        list.lines().filter(|line| line.contains(" user=core0 ") && line.contains("cmd=blpop")).count()
    };
    let ids: Vec<String> =
        (0..5).map(|_| start(&node, "stty raw -echo; echo ready; exec sleep 600")).collect();
    for id in &ids {
        until("it is ready", || shown(&node, id).contains("ready"));
        // More than a terminal holds: whoever writes it waits.
        for _ in 0..8 {
            push(&node, id, json!({"data": "x".repeat(60_000)}));
        }
        until("somebody waits for the terminal", || {
            redis::cmd("LLEN").arg(format!("input:{id}")).query::<u64>(&mut node.connect()).unwrap() < 8
        });
    }
    for id in &ids {
        assert_eq!(node.call("job.kill", json!({"id": id, "signal": 9}))["state"], "SUCCESS");
        assert_eq!(node.result(id)["state"], "KILLED");
        until("what was not read is gone", || {
            redis::cmd("EXISTS").arg(format!("input:{id}")).query::<u64>(&mut node.connect()).unwrap() == 0
        });
    }
    until("nobody waits for input any more", || own() == 0);
}
