//! A node beside what it is built on, in one run: redis alone, a plain BLPOP loop as the predecessor had, and core0.
//!
//! `cargo bench -p core0`, as root. Every client sends a command and waits for its result, in one pipeline.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use serde_json::{Value, json};

/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(4);
/// Rounds; the contenders take turns within each.
const ROUNDS: usize = 3;
/// Short processes.
const PROCESSES: usize = 3000;

struct Node {
    manager: Child,
    port: u16,
    password: String,
}

impl Node {
    fn start(dir: &Path) -> Self {
        let mut manager = Command::new(env!("CARGO_BIN_EXE_core0"))
            .args(["run", "--dev"])
            .arg(dir)
            .env("G8_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .expect("core0 starts");
        let mut line = String::new();
        let stdout = manager.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("core0 says that it is ready");
        let ready: Value = serde_json::from_str(line.trim_start_matches("ready ")).expect("in JSON");
        let port = ready["port"].as_u64().expect("a port") as u16;
        Self { manager, port, password: ready["password"].as_str().expect("a password").into() }
    }

    fn client(&self) -> redis::Client {
        let login = RedisConnectionInfo::default().set_password(&self.password);
        let address = ConnectionAddr::Tcp("127.0.0.1".into(), self.port);
        let info = address.into_connection_info().expect("an address").set_redis_settings(login);
        redis::Client::open(info).expect("an address of redis")
    }

    fn connect(&self) -> Connection {
        self.client().get_connection().expect("redis answers")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // SAFETY: no pointers.
        unsafe { libc::kill(self.manager.id() as i32, libc::SIGTERM) };
        let _ = self.manager.wait();
    }
}

/// Commands a second and the median of their times, of some clients that send to a queue. They share one thread: fifty
/// threads would measure the scheduler.
fn clients(node: &Node, queue: &'static str, count: usize) -> (f64, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let client = node.client();
    let began = Instant::now();
    let mut times: Vec<Duration> = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..count {
            let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
            let connection = client.get_multiplexed_async_connection_with_config(&config).await;
            tasks.spawn(send(connection.expect("redis answers"), queue, began));
        }
        tasks.join_all().await.concat()
    });
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    times.sort_unstable();
    (rate, times[times.len() / 2])
}

async fn send(mut connection: MultiplexedConnection, queue: &'static str, began: Instant) -> Vec<Duration> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut times = Vec::new();
    while began.elapsed() < SPAN {
        let id = format!("b{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let envelope = json!({"id": id, "command": "core.ping", "arguments": {}}).to_string();
        let sent = Instant::now();
        let (_, (_, result)): (u64, (String, String)) = redis::pipe()
            .rpush(queue, envelope)
            .cmd("BLPOP")
            .arg(format!("result:{id}"))
            .arg(30)
            .query_async(&mut connection)
            .await
            .expect("a result");
        assert!(result.contains("PONG"), "{result}");
        times.push(sent.elapsed());
    }
    times
}

/// The predecessor's loop: one command after the other.
fn plain_loop(mut connection: Connection, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let popped: Option<(String, String)> =
            redis::cmd("BLPOP").arg("bench:plain").arg(0.2).query(&mut connection).expect("redis answers");
        let Some((_, raw)) = popped else { continue };
        let envelope: Value = serde_json::from_str(&raw).expect("a command");
        let key = format!("result:{}", envelope["id"].as_str().expect("an id"));
        let result = json!({"id": envelope["id"], "command": envelope["command"], "data": "\"PONG\"", "level": 20,
            "streams": ["", ""], "state": "SUCCESS", "starttime": 0, "time": 0});
        redis::pipe()
            .rpush(&key, result.to_string())
            .ignore()
            .expire(&key, 300)
            .ignore()
            .exec(&mut connection)
            .expect("redis answers");
    }
}

/// Single operations a second and their median time, as redis-benchmark measures them.
fn redis_alone(node: &Node, count: usize) -> (f64, Duration) {
    let output = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", &node.port.to_string(), "-n", "60000", "-c", &count.to_string()])
        .args(["--csv", "-t", "lpush"])
        .env("REDISCLI_AUTH", &node.password)
        .args(["-a", &node.password])
        .stderr(Stdio::null())
        .output()
        .expect("redis-benchmark is in redis-tools");
    let text = String::from_utf8_lossy(&output.stdout);
    let row = text.lines().rfind(|line| line.starts_with("\"LPUSH")).unwrap_or_else(|| panic!("{text}"));
    let fields: Vec<f64> =
        row.split(',').skip(1).filter_map(|field| field.trim_matches('"').parse().ok()).collect();
    redis::cmd("DEL").arg("mylist").exec(&mut node.connect()).expect("redis answers");
    (fields[0], Duration::from_secs_f64(fields[3] / 1000.0))
}

/// Short processes a second, with their output.
fn processes(node: &Node) -> f64 {
    let began = Instant::now();
    let mut connection = node.connect();
    let envelope = |i: usize| {
        let arguments = json!({"name": "echo", "args": [i.to_string()]});
        json!({"id": format!("p{i}"), "command": "core.system", "arguments": arguments}).to_string()
    };
    let all: Vec<String> = (0..PROCESSES).map(envelope).collect();
    redis::cmd("RPUSH").arg("core:default").arg(all).exec(&mut connection).expect("redis answers");
    for i in 0..PROCESSES {
        let (_, json): (String, String) =
            redis::cmd("BLPOP").arg(format!("result:p{i}")).arg(60).query(&mut connection).expect("a result");
        let result: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((&result["state"], &result["streams"][0]), (&json!("SUCCESS"), &json!(format!("{i}\n"))));
    }
    PROCESSES as f64 / began.elapsed().as_secs_f64()
}

/// The same processes a second, without a node.
fn alone() -> f64 {
    let began = Instant::now();
    for i in 0..PROCESSES / 4 {
        let output = Command::new("echo").arg(i.to_string()).output().expect("echo runs");
        assert_eq!(output.stdout, format!("{i}\n").as_bytes());
    }
    (PROCESSES / 4) as f64 / began.elapsed().as_secs_f64()
}

fn resident(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("unknown").trim().into()
}

fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = Node::start(dir.path());
    std::thread::sleep(Duration::from_secs(1));
    println!("manager idle, resident: {}", resident(node.manager.id()));
    let stop = Arc::new(AtomicBool::new(false));
    let (connection, stopped) = (node.connect(), stop.clone());
    let plain = std::thread::spawn(move || plain_loop(connection, &stopped));
    println!("{:<28} {:>10} {:>12} {:>10} {:>12}", "", "50 clients", "p50", "1 client", "p50");
    for _ in 0..ROUNDS {
        let rows: [(&str, [(f64, Duration); 2]); 3] = [
            ("redis-benchmark, one LPUSH", [redis_alone(&node, 50), redis_alone(&node, 1)]),
            ("plain BLPOP loop, ping", [clients(&node, "bench:plain", 50), clients(&node, "bench:plain", 1)]),
            ("core0, core.ping", [clients(&node, "core:default", 50), clients(&node, "core:default", 1)]),
        ];
        for (name, [(many, many_p50), (one, one_p50)]) in rows {
            println!("{name:<28} {many:>8.0}/s {many_p50:>12.1?} {one:>8.0}/s {one_p50:>12.1?}");
        }
    }
    for _ in 0..ROUNDS {
        println!("fork, exec, wait, one by one: {:.0}/s", alone());
        // Ids are remembered: each round is a node of its own.
        let dir = tempfile::tempdir().expect("a folder");
        println!("short processes: {:.0}/s", processes(&Node::start(dir.path())));
    }
    println!("manager afterwards, resident: {}", resident(node.manager.id()));
    stop.store(true, Ordering::Relaxed);
    plain.join().expect("the plain loop");
}
