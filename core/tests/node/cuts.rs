//! core0's own connections to redis, cut at any operation: each command is answered once, and nothing is done twice.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use redis::Connection;
use serde_json::{Value, json};

use crate::harness::{Node, until};

/// More operations than what is done here takes; some come from elsewhere, as core0 asks redis now and then whether it is well.
const OPERATIONS: u64 = 120;

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    /// The request: redis never hears of it.
    Request,
    /// The reply: redis has done it, and core0 does not know.
    Reply,
}

#[derive(Debug, Default)]
struct State {
    /// Operations until the next cut.
    left: Option<(u64, Cut)>,
    cuts: u64,
    connections: u64,
}

/// A proxy in the place of redis' socket.
struct Cutter {
    state: Arc<Mutex<State>>,
}

impl Cutter {
    /// Takes the place of a socket that somebody listens on; what is connected already stays so.
    fn in_place_of(socket: &Path) -> Self {
        let real = socket.with_extension("real");
        std::fs::rename(socket, &real).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                shared.lock().connections += 1;
                let (real, state) = (real.clone(), shared.clone());
                std::thread::spawn(move || pass(client, real, &state));
            }
        });
        Self { state }
    }

    fn arm(&self, nth: u64, what: Cut) {
        let mut state = self.state.lock();
        (state.left, state.cuts) = (Some((nth, what)), 0);
    }

    /// How often it has cut since it was armed: at most once.
    fn disarm(&self) -> u64 {
        let mut state = self.state.lock();
        state.left = None;
        state.cuts
    }
}

/// core0 waits for each answer before it asks again on the same connection, so what is read at once is one operation.
fn pass(mut client: UnixStream, real: PathBuf, state: &Mutex<State>) {
    let Ok(mut server) = UnixStream::connect(real) else { return };
    let (mut replies, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let held = Arc::new(Mutex::new(false));
    let is_held = held.clone();
    let answering = std::thread::spawn(move || {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = replies.read(&mut bytes) {
            if *is_held.lock() || back.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = (back.shutdown(std::net::Shutdown::Both), replies.shutdown(std::net::Shutdown::Both));
    });
    let mut bytes = vec![0; 1 << 20];
    while let Ok(count @ 1..) = client.read(&mut bytes) {
        let cut = state.lock().next();
        // Before redis has it, so that no reply is faster.
        *held.lock() = cut == Some(Cut::Reply);
        if cut == Some(Cut::Request) || server.write_all(&bytes[..count]).is_err() {
            break;
        }
        if cut == Some(Cut::Reply) {
            // The other thread ends it when redis has answered.
            let _ = answering.join();
            return;
        }
    }
    let _ = (client.shutdown(std::net::Shutdown::Both), server.shutdown(std::net::Shutdown::Both));
    let _ = answering.join();
}

impl State {
    /// One more operation: whether it is cut.
    fn next(&mut self) -> Option<Cut> {
        let (left, what) = self.left.as_mut()?;
        *left -= 1;
        let cut = (*left == 0).then_some(*what)?;
        (self.left, self.cuts) = (None, 1);
        Some(cut)
    }
}

/// One command that comes alone, and then some at once: what is answered on its way in, what is carried out, what is refused.
fn session(node: &Node, redis: &mut Connection, name: &str) {
    let effects = node.dir.join(format!("{name}.effects"));
    let command = |id: &str, command: &str, arguments: Value| json!({"id": format!("{name}-{id}"), "command": command, "arguments": arguments});
    node.push(command("alone", "core.ping", json!({})));
    assert_eq!(node.result(&format!("{name}-alone"))["state"], "SUCCESS");
    let script = format!("echo done >> {}; echo said", effects.display());
    let mut effect = command("effect", "bash", json!({"script": script}));
    effect["stream"] = json!(true);
    let commands = [
        effect,
        command("ping", "core.ping", json!({})),
        command("fails", "core.system", json!({"name": "false"})),
        command("unknown", "no.such.command", json!({})),
    ];
    let commands: Vec<String> = commands.iter().map(Value::to_string).collect();
    redis::cmd("RPUSH").arg("core:default").arg(commands).exec(redis).unwrap();
    for (id, state) in
        [("effect", "SUCCESS"), ("ping", "SUCCESS"), ("fails", "ERROR"), ("unknown", "UNKNOWN_CMD")]
    {
        let result = node.result(&format!("{name}-{id}"));
        assert_eq!(result["state"], state, "{result}");
    }
    until("the stream has its end", || {
        let last: Vec<(String, Vec<(String, String)>)> = redis::cmd("XREVRANGE")
            .arg(format!("stream:{name}-effect"))
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1)
            .query(redis)
            .unwrap();
        last.first().is_some_and(|(_, fields)| fields[0].0 == "end")
    });
    assert_eq!(std::fs::read_to_string(effects).unwrap(), "done\n");
}

fn each_operation_is_cut_once(what: Cut) {
    let node = Node::start();
    let mut redis = node.connect();
    let mut own = node.connect_as_core0();
    // Everybody has a connection then.
    session(&node, &mut redis, "before");
    let cutter = Cutter::in_place_of(&node.dir.join("redis.sock"));
    let closed: u64 = redis::cmd("CLIENT").arg("KILL").arg("USER").arg("core0").query(&mut own).unwrap();
    assert!(closed >= 3, "{closed}");
    session(&node, &mut redis, "whole");
    assert!(cutter.state.lock().connections >= 3);
    let mut names = vec!["whole".to_owned()];
    for nth in 1.. {
        let name = format!("{what:?}-{nth}");
        cutter.arm(nth, what);
        session(&node, &mut redis, &name);
        let cuts = cutter.disarm();
        names.push(name);
        if cuts == 0 {
            break;
        }
        assert!(nth < OPERATIONS, "there is no end of operations");
    }
    println!("{} operations were cut: {what:?}", names.len() - 2);
    // At least: two commands taken, two answers given, one stream written, and all with connections that were made anew.
    assert!(names.len() > 6, "{names:?}");
    // Also later, nothing is answered again.
    until("nothing is in flight", || {
        redis::cmd("HLEN").arg("core:inflight:default").query::<u64>(&mut own).unwrap() == 0
    });
    for name in &names {
        for id in ["alone", "effect", "ping", "fails", "unknown"] {
            let length: u64 =
                redis::cmd("LLEN").arg(format!("result:{name}-{id}")).query(&mut redis).unwrap();
            assert_eq!(length, 1, "{name}-{id}");
        }
        let effects = std::fs::read_to_string(node.dir.join(format!("{name}.effects"))).unwrap();
        assert_eq!(effects, "done\n", "{name}");
    }
}

#[test]
fn a_request_of_core0_that_is_cut_loses_and_doubles_nothing_whichever_it_is() {
    each_operation_is_cut_once(Cut::Request);
}

#[test]
fn a_reply_to_core0_that_is_cut_loses_and_doubles_nothing_whichever_it_is() {
    each_operation_is_cut_once(Cut::Reply);
}
