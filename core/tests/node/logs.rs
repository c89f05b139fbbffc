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
fn a_full_disk_holds_no_job_up_and_the_log_says_what_is_missing() {
    with_own_mounts(|| {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::create_dir(&log).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m,mode=700", "core0-test"]).arg(&log).status();
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
