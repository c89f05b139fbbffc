//! Jobs without measure: what prints without end.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::Node;

/// Most KiB that the manager has in memory whatever a job prints, and the spawner.
const MANAGER: u64 = 96 << 10;
const SPAWNER: u64 = 24 << 10;
/// Most bytes of the log: four files, and a line that was on its way.
const LOG: u64 = 4 * (64 << 20) + (8 << 20);
/// Most bytes of redis.
const REDIS: u64 = 32 << 20;

/// KiB in memory, now.
fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Bytes of the files of the log.
fn logged(node: &Node) -> u64 {
    // One of them may be removed meanwhile.
    let files = std::fs::read_dir(node.dir.join("log")).unwrap().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.blocks() * 512)).sum()
}

/// Bytes that redis keeps.
fn kept(node: &Node) -> u64 {
    let info: String = redis::cmd("INFO").arg("memory").query(&mut node.connect()).unwrap();
    info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap()
}

/// The result of a job, if it is there.
fn answered(node: &Node, id: &str) -> Option<Value> {
    let key = format!("result:{id}");
    let json: Option<String> = redis::cmd("LINDEX").arg(key).arg(0).query(&mut node.connect()).unwrap();
    json.map(|json| serde_json::from_str(&json).unwrap())
}

/// A job prints so many bytes, and its output goes live to a stream that nobody reads.
fn prints(gigabytes: u64) {
    let node = Node::start();
    let (manager, spawner) = (node.manager.id() as i32, node.pid_of("spawner"));
    let script = format!("head -c {} /dev/zero | tr '\\0' x; echo; echo end", gigabytes * 1_000_000_000);
    let began = Instant::now();
    let id = node.push(json!({"command": "bash", "arguments": {"script": script}, "stream": true}));
    let (mut most, mut pings) = ([0; 4], 0);
    let result = loop {
        assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
        pings += 1;
        let now = [resident(manager), resident(spawner), logged(&node), kept(&node)];
        most = std::array::from_fn(|i| most[i].max(now[i]));
        if let Some(result) = answered(&node, &id) {
            break result;
        }
        assert!(began.elapsed() < Duration::from_secs(60 + 60 * gigabytes), "it does not end");
        // The results of these are kept, too.
        std::thread::sleep(Duration::from_millis(50));
    };
    println!(
        "{gigabytes} GB in {:.1?}, {pings} pings; most: manager {} KiB, spawner {} KiB, log {} bytes, redis {} bytes",
        began.elapsed(),
        most[0],
        most[1],
        most[2],
        most[3]
    );
    assert_eq!(result["state"], "SUCCESS", "{}", result["critical"]);
    let text = result["streams"][0].as_str().unwrap();
    assert!(text.len() <= 256 << 10 && text.ends_with("x\nend\n"), "{} bytes", text.len());
    for (what, most, bound) in [
        ("the manager", most[0], MANAGER),
        ("the spawner", most[1], SPAWNER),
        ("the log", most[2], LOG),
        ("redis", most[3], REDIS),
    ] {
        assert!(most <= bound, "{what} had {most}, more than {bound}");
    }
    assert!(gigabytes < 1 || most[2] > 64 << 20, "the log has little of it: {}", most[2]);
    assert!(pings > 3, "{pings}");
}

#[test]
fn a_job_that_prints_a_gigabyte_takes_no_more_memory_and_disk_than_one_that_prints_little() {
    prints(1);
}

#[test]
#[ignore = "a minute or more: CONTRIBUTING.md"]
fn a_job_that_prints_ten_gigabytes_takes_no_more_memory_and_disk_than_one_that_prints_little() {
    prints(10);
}
