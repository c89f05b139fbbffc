//! The log of jobs: complete, within what the disk takes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Node, until, with_own_mounts};

/// The lines of the log of a node, oldest first, rotated ones too.
pub fn lines(dir: &Path) -> Vec<Value> {
    let files = ["jobs.log.3", "jobs.log.2", "jobs.log.1", "jobs.log"];
    let texts = files.map(|name| std::fs::read_to_string(dir.join("log").join(name)).unwrap_or_default());
    // The last one may be half written now.
    texts.iter().flat_map(|text| text.lines()).filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What a job printed to the log, by level.
pub fn of_job(dir: &Path, id: &str) -> BTreeMap<u64, Vec<String>> {
    let mut texts: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for line in lines(dir).iter().filter(|line| line["source"] == format!("job {id}")) {
        let text = line["text"].as_str().unwrap().to_string();
        texts.entry(line["level"].as_u64().unwrap()).or_default().push(text);
    }
    texts
}

#[test]
fn jobs_that_print_as_fast_as_they_can_have_every_line_in_the_log() {
    let node = Node::start();
    // 70,000 lines and 9 MB each, of three at once: far more than any queue holds, and they are followed by another file.
    let script = "for i in {1..35}; do seq -f %0128g 1 1000; seq -f %0128g 1 1000 >&2; done";
    let ids: Vec<String> =
        (0..3).map(|_| node.push(json!({"command": "bash", "arguments": {"script": script}}))).collect();
    let expected: Vec<String> = (0..35).flat_map(|_| (1..=1000).map(|i| format!("{i:0128}"))).collect();
    for id in ids {
        assert_eq!(node.result(&id)["state"], "SUCCESS");
        until("the last line", || {
            let texts = of_job(&node.dir, &id);
            texts.get(&1).map(Vec::len) == Some(35_000) && texts.get(&2).map(Vec::len) == Some(35_000)
        });
        for texts in of_job(&node.dir, &id).values() {
            assert!(*texts == expected);
        }
    }
}

#[test]
fn a_job_that_outlives_the_manager_again_and_again_has_every_line_once() {
    let mut node = Node::start();
    // It prints while nobody reads, and goes on to its end when the file is there. A line may be cut in two by a kill.
    let go = node.dir.join("go");
    let script = format!(
        "for i in {{1..4000}}; do echo line $i; [ $((i % 7)) = 0 ] && echo bad $i >&2; [ $((i % 50)) = 0 ] && sleep 0.02; \
         [ $i = 100 ] && echo '20::{{\"early\":1}}'; done; \
         while [ ! -e {0} ]; do sleep 0.02; done; printf 'last'; exit 3",
        go.display()
    );
    let id = node.push(json!({"command": "bash", "arguments": {"script": script}}));
    let mut kills = 0;
    let mut seen = 0;
    while seen < 4000 {
        let pause = std::time::Duration::from_millis(20 + 37 * (kills % 5));
        std::thread::sleep(pause);
        node.kill_manager();
        kills += 1;
        node.restart();
        seen = of_job(&node.dir, &id).get(&1).map_or(0, Vec::len);
    }
    assert!(kills > 3, "{kills}");
    std::fs::write(go, "").unwrap();
    let result = node.result(&id);
    let out: Vec<String> = (1..=4000).map(|i| format!("line {i}")).chain(["last".into()]).collect();
    let err: Vec<String> = (1..=4000).filter(|i| i % 7 == 0).map(|i| format!("bad {i}")).collect();
    let tail = |lines: &[String]| {
        lines[lines.len() - 100..].iter().map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_eq!((&result["code"], &result["data"]), (&json!(1003), &json!("{\"early\":1}")), "{result}");
    assert_eq!(result["streams"], json!([tail(&out), tail(&err)]));
    until("the last line is in the log", || of_job(&node.dir, &id)[&1].last() == out.last());
    let texts = of_job(&node.dir, &id);
    assert!(texts[&1] == out, "{} of {} lines", texts[&1].len(), out.len());
    assert!(texts[&2] == err, "{} of {} lines", texts[&2].len(), err.len());
}

#[test]
fn a_loud_job_whose_manager_is_killed_has_every_line_once() {
    let mut node = Node::start();
    let script = "for i in {0..99}; do seq -f %0100g $((i * 1000 + 1)) $((i * 1000 + 1000)); sleep 0.03; done; echo end >&2";
    let id = node.push(json!({"command": "bash", "arguments": {"script": script}}));
    let count = |node: &Node| of_job(&node.dir, &id).get(&1).map_or(0, Vec::len);
    for burst in [5_000, 30_000, 60_000] {
        until("it goes on", || count(&node) > burst);
        node.kill_manager();
        node.restart();
    }
    let result = node.result(&id);
    let expected: Vec<String> = (1..=100_000).map(|i| format!("{i:0100}")).collect();
    let tail: String = expected[expected.len() - 100..].iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(result["streams"], json!([tail, "end\n"]));
    until("the last line", || count(&node) >= expected.len());
    assert!(of_job(&node.dir, &id)[&1] == expected, "{} lines", count(&node));
}

#[test]
fn a_job_that_ended_while_the_manager_was_away_has_its_whole_output() {
    let mut node = Node::start();
    let go = node.dir.join("go");
    let script =
        format!("echo early; while [ ! -e {} ]; do sleep 0.02; done; echo late; echo bad >&2", go.display());
    let id = node.push(json!({"command": "bash", "arguments": {"script": script}}));
    until("the first line", || of_job(&node.dir, &id).contains_key(&1));
    node.kill_manager();
    std::fs::write(go, "").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    // Killed again, when it may have read and even logged the rest, and not answered.
    for pause in [0, 5, 20] {
        node.restart();
        std::thread::sleep(std::time::Duration::from_millis(pause));
        node.kill_manager();
    }
    node.restart();
    assert_eq!(node.result(&id)["streams"], json!(["early\nlate\n", "bad\n"]));
    until("all is in the log", || {
        of_job(&node.dir, &id) == [(1, vec!["early".into(), "late".into()]), (2, vec!["bad".into()])].into()
    });
}

#[test]
fn a_full_disk_holds_no_job_up_and_the_log_says_what_is_missing() {
    with_own_mounts(|| {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::create_dir(&log).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m,mode=700", "core0-test"])
            .arg(&log)
            .status();
        assert!(mounted.unwrap().success());
        let ballast = log.join("ballast");
        std::fs::write(&ballast, vec![0; 3 << 20]).unwrap();
        let node = Node::start_in(folder.path());
        let loud = json!({"command": "bash", "arguments": {"script": "seq -f %01000g 1 20000; echo last"}});
        let id = node.push(loud);
        let result = node.result(&id);
        assert_eq!(result["state"], "SUCCESS", "{result}");
        assert!(result["streams"][0].as_str().unwrap().ends_with("0020000\nlast\n"));
        std::fs::remove_file(ballast).unwrap();
        let next = node.push(json!({"command": "bash", "arguments": {"script": "echo it goes on"}}));
        assert_eq!(node.result(&next)["state"], "SUCCESS");
        until("the log goes on", || of_job(&node.dir, &next).get(&1).is_some_and(|texts| texts.len() == 1));
        let all = lines(&node.dir);
        let gaps: Vec<u64> = all
            .iter()
            .filter(|line| line["source"] == "core0")
            .map(|line| line["text"].as_str().unwrap().split_once(" lines are missing here: ").unwrap())
            .map(|(count, why)| {
                assert!(why.contains("No space left on device"), "{why}");
                count.parse::<u64>().unwrap()
            })
            .collect();
        let there = of_job(&node.dir, &id)[&1].len() as u64;
        assert!(there > 100 && there < 20_000, "{there}");
        // Of redis there is a line now and then.
        let missing: u64 = gaps.iter().sum();
        assert!((20_001..20_101).contains(&(there + missing)), "{there} are there, {gaps:?} are missing");
        // Every line is whole.
        let text = std::fs::read_to_string(log.join("jobs.log")).unwrap();
        assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    });
}
