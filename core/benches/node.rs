//! A node beside what it is built on, in one run: redis alone, a plain BLPOP loop as the predecessor had, and core0.
//!
//! `cargo bench -p core0 --bench node`, as root. Every client sends a command and waits for its result, in one pipeline. What was
//! measured is printed with what it should be, and kept in `benches/results/`, by date.

use std::collections::BTreeMap;
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

/// Names of what is measured: many clients, how long one of them waits, one client, how long that waits.
const REDIS: [&str; 4] = [
    "redis, one LPUSH, 50 clients, a second",
    "redis, one LPUSH, 50 clients, p50, us",
    "redis, one LPUSH, 1 client, a second",
    "redis, one LPUSH, 1 client, p50, us",
];
const PLAIN: [&str; 4] = [
    "plain BLPOP loop, ping, 50 clients, a second",
    "plain BLPOP loop, ping, 50 clients, p50, us",
    "plain BLPOP loop, ping, 1 client, a second",
    "plain BLPOP loop, ping, 1 client, p50, us",
];
const PING: [&str; 4] = [
    "core0, core.ping, 50 clients, a second",
    "core0, core.ping, 50 clients, p50, us",
    "core0, core.ping, 1 client, a second",
    "core0, core.ping, 1 client, p50, us",
];
const PROCESSES_A_SECOND: &str = "core0, short processes, a second";
const IDLE: &str = "manager idle, resident, KiB";

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

/// KiB in memory.
fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a process has memory")
}

/// All that was measured, by what it is: one value a round.
#[derive(Default)]
struct Measured(BTreeMap<&'static str, Vec<f64>>);

impl Measured {
    fn add(&mut self, what: &'static str, value: f64) {
        self.0.entry(what).or_default().push(value);
    }

    /// Of many clients and of one.
    fn add_both(&mut self, [many, many_p50, one, one_p50]: [&'static str; 4], rows: [(f64, Duration); 2]) {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let [(rate, p50), (rate_of_one, p50_of_one)] = rows;
        for (what, value) in
            [(many, rate), (many_p50, us(p50)), (one, rate_of_one), (one_p50, us(p50_of_one))]
        {
            self.add(what, value);
        }
    }

    /// The median of the rounds.
    fn median(&self, what: &str) -> f64 {
        let mut values = self.0[what].clone();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    /// The median of what one is to the other in each round: they are neighbours in time.
    fn ratio(&self, what: &str, of: &str) -> f64 {
        let mut ratios: Vec<f64> = self.0[what].iter().zip(&self.0[of]).map(|(a, b)| a / b).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    }
}

/// What is to be reached: a name, at least or at most how much, and how much it is.
fn figures(measured: &Measured) -> [(&'static str, &'static str, f64, f64); 5] {
    let ratio = |what, of| measured.ratio(what, of);
    [
        ("core.ping, 50 clients, a second", ">=", 15_000.0, measured.median(PING[0])),
        ("core.ping, 50 clients, x the plain loop", ">=", 2.5, ratio(PING[0], PLAIN[0])),
        ("core.ping, 1 client, p50, x a push to redis and a pop", "<=", 2.0, ratio(PING[3], REDIS[3]) / 2.0),
        (
            "short processes with output, none lost, a second",
            ">=",
            1500.0,
            measured.median(PROCESSES_A_SECOND),
        ),
        ("the manager idle, resident, MiB", "<=", 30.0, measured.median(IDLE) / 1024.0),
    ]
}

/// Prints what was measured and what of it is as it should be, and keeps both, by date.
fn tell(measured: &Measured) {
    println!("\n{:<52} {:>10}  of each round", "", "median");
    for (what, values) in &measured.0 {
        let rounds: Vec<String> = values.iter().map(|value| format!("{value:.0}")).collect();
        println!("{what:<52} {:>10.0}  {}", measured.median(what), rounds.join(" "));
    }
    println!("\n{:<56} {:>12} {:>10}  verdict", "figure", "aim", "value");
    let mut kept = Vec::new();
    for (what, than, aim, value) in figures(measured) {
        let met = if than == ">=" { value >= aim } else { value <= aim };
        let verdict = if met { "met" } else { "missed" };
        println!("{what:<56} {:>12} {value:>10.2}  {verdict}", format!("{than} {aim}"));
        kept.push(json!({"what": what, "aim": format!("{than} {aim}"), "value": value, "met": met}));
    }
    let text = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().expect("it is there");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let facts = json!({
        "commit": text("git", &["-C", &root.display().to_string(), "describe", "--always", "--dirty", "--abbrev=12"]),
        "kernel": text("uname", &["-r"]),
        // Runs of another profile, or beside others, tell little.
        "debug": cfg!(debug_assertions),
        "load": std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "redis": text("redis-server", &["--version"]),
        "rounds": ROUNDS,
        "when": text("date", &["-u", "+%FT%TZ"]),
    });
    let document = json!({"facts": facts, "figures": kept, "measured": measured.0});
    let file =
        root.join("benches/results").join(format!("{}-node.json", text("date", &["-u", "+%F-%H%M%S"])));
    std::fs::write(&file, format!("{document:#}\n")).expect("results can be kept");
    println!("\nkept in {}", file.display());
}

fn main() {
    let mut measured = Measured::default();
    let dir = tempfile::tempdir().expect("a folder");
    let node = Node::start(dir.path());
    std::thread::sleep(Duration::from_secs(1));
    measured.add(IDLE, resident(node.manager.id()));
    let stop = Arc::new(AtomicBool::new(false));
    let (connection, stopped) = (node.connect(), stop.clone());
    let plain = std::thread::spawn(move || plain_loop(connection, &stopped));
    for _ in 0..ROUNDS {
        measured.add_both(REDIS, [redis_alone(&node, 50), redis_alone(&node, 1)]);
        measured.add_both(PLAIN, [clients(&node, "bench:plain", 50), clients(&node, "bench:plain", 1)]);
        measured.add_both(PING, [clients(&node, "core:default", 50), clients(&node, "core:default", 1)]);
    }
    for _ in 0..ROUNDS {
        measured.add("fork, exec, wait, one by one, a second", alone());
        // Ids are remembered: each round is a node of its own.
        let dir = tempfile::tempdir().expect("a folder");
        measured.add(PROCESSES_A_SECOND, processes(&Node::start(dir.path())));
    }
    measured.add("manager afterwards, resident, KiB", resident(node.manager.id()));
    stop.store(true, Ordering::Relaxed);
    plain.join().expect("the plain loop");
    tell(&measured);
}
