//! `flist bench`: what it prints, what it draws, and that it leaves nothing behind.

use std::fs;

use harness::{Flist, args, mount_table, synthetic};

#[test]
fn files_are_measured_cold_and_warm_from_each_source() {
    let (flist, cid) = Flist::with_image();
    let copy = flist.home().join("copy");
    harness::process::tool("cp", args!["-a", flist.store(), copy]);
    let from = format!("{},dir:{}", flist.spec(), copy.display());
    let picture = flist.home().join("picture.svg");
    let report =
        flist.ok(args!["bench", cid, "--from", from, "--rounds", "2", "--plot", picture, "--json"]).json();
    let sources = report["sources"].as_array().unwrap();
    assert_eq!(sources.len(), 2);
    for source in sources {
        let tasks = source["tasks"].as_array().unwrap();
        let names: Vec<&str> = tasks.iter().map(|t| t["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["mount", "files, cold", "files, warm"]);
        for task in tasks {
            assert_eq!(task["rounds"].as_array().unwrap().len(), 2, "{task:#}");
        }
        let fetched = |task: usize, round: usize| tasks[task]["rounds"][round]["fetched_bytes"].as_u64();
        assert!((0..2).all(|round| fetched(1, round) > Some(0)), "every round begins with an empty cache");
        assert!((0..2).all(|round| fetched(2, round) == Some(0)), "and is warm after that");
        let sizes = synthetic::files(&flist.home().join("source"));
        let bytes: u64 =
            sizes.iter().map(|f| fs::metadata(flist.home().join("source").join(f)).unwrap().len()).sum();
        assert_eq!(tasks[1]["needed_bytes"].as_u64(), Some(bytes));
    }
    let drawn = fs::read_to_string(picture).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("files, cold"), "{drawn}");
    assert_nothing_left(&flist);
}

#[test]
fn a_command_is_started_cold_and_warm_and_its_output_stays_out_of_the_result() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    harness::tree::Builder::at(&source).finish();
    fs::create_dir(source.join("bin")).unwrap();
    fs::copy("/bin/busybox", source.join("bin/busybox")).unwrap();
    let cid = flist.pack(&source);
    let table = flist.ok(args!["bench", cid, "--rounds", "1", "--", "/bin/busybox", "echo", "loud"]);
    assert!(table.text().contains("mount and start, cold") && table.text().contains("start, warm"));
    assert!(!table.text().contains("loud"), "{}", table.text());
    let failed = flist.run(args!["bench", cid, "--rounds", "1", "--", "/bin/busybox", "false"]);
    assert_eq!(failed.code, 1);
    assert!(failed.stderr.contains("the command ended with 1"), "{}", failed.stderr);
    assert_nothing_left(&flist);
}

fn assert_nothing_left(flist: &Flist) {
    assert!(mount_table::under(flist.home().path()).is_empty());
    let names = fs::read_dir(flist.home().path()).unwrap().map(|e| e.unwrap().file_name());
    let left: Vec<_> = names.filter(|n| n.to_string_lossy().starts_with("flist-bench-")).collect();
    assert!(left.is_empty(), "{left:?}");
}
