//! Publishing to nodes that go wrong, are cut off, or are full: what was sent counts once, nothing hangs, and nothing is called
//! published that is not.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::ipfs::Daemon;
use harness::process::{self, Outcome};
use harness::publisher::{self, explains, objects, publish};
use harness::rpc::Trick;
use harness::tmpfs::Tmpfs;
use harness::{Flist, Place, Rpc, args, skip, store, synthetic, wait};
use rustix::process::{Pid, Signal, kill_process};

const MIB: usize = 1 << 20;

/// Starts to publish with `options`; what it says goes to the file that comes back with it.
fn start(flist: &Flist, cid: &str, to: &str, options: &[&str]) -> (Child, std::path::PathBuf) {
    let mut arguments = args!["publish", cid, "--to", to];
    arguments.extend(options.iter().map(Into::into));
    let log = flist.home().join("log");
    let said = File::create(&log).unwrap();
    let mut command = flist.command(arguments);
    command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
    (command.spawn().unwrap(), log)
}

/// Sends `signal` and waits for the end.
fn end(mut child: Child, signal: Signal, limit: Duration) -> Option<i32> {
    kill_process(Pid::from_child(&child), signal).unwrap();
    if !wait::ends(child.id() as i32, limit) {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("it still runs {limit:?} after {signal:?}");
    }
    child.wait().unwrap().code()
}

/// Panics unless `cars`, but the last, are as long as they should be, and the last alone is to pin.
fn are_cut_well(cars: &[(usize, bool)]) {
    let (last, parts) = cars.split_last().expect("something was sent");
    assert!(!parts.is_empty(), "one CAR has it all: {cars:?}");
    assert!(parts.iter().all(|(bytes, pin)| (64 * MIB..=256 * MIB).contains(bytes) && !pin), "{cars:?}");
    assert!(last.0 <= 256 * MIB && last.1, "{cars:?}");
}

/// CARs are cut by their bytes, the root comes with the last one, and who is killed between two goes on there.
#[test]
fn an_flist_of_three_hundred_megabytes_takes_two_cars() {
    let (flist, cid) = publisher::packed(synthetic::three_hundred_megabytes);
    let (all, size) = (objects(&flist), store::size(flist.store()));
    assert!(size > 300 << 20, "{size}");

    let node = Rpc::start();
    // Of the second one it keeps nothing, and it never answers.
    node.fails_after(1, "dag/import", Trick::Hangs, 1);
    let (child, _) = start(&flist, &cid, &node.spec(), &[]);
    wait::until("the second CAR begins", Duration::from_secs(120), || node.count("dag/import") == 2);
    end(child, Signal::KILL, Duration::from_secs(30));
    // What the node makes of the end of the connection.
    wait::until("the node has noticed", Duration::from_secs(30), || node.imports().len() == 2);
    let first = node.imports()[0];
    are_cut_well(&[first, (0, true)]);
    assert!(first.0 > 255 * MIB, "it is full: {first:?}");
    assert!(node.pins().is_empty(), "half an flist is not pinned");
    let there = node.blocks();
    assert!(!there.contains(&cid) && there.len() < all.len());

    let report = publish(&flist, &cid, &node.spec(), &["--name", "large"]);
    assert_eq!(report["skipped"].as_u64(), Some(there.len() as u64), "{report}");
    assert_eq!(report["sent"].as_u64(), Some((all.len() - there.len()) as u64), "{report}");
    let second = node.imports()[2];
    assert!(second.0 < size as usize - 255 * MIB + MIB, "only what is missing: {second:?} of {size}");
    assert_eq!(node.imports().len(), 3);
    assert_eq!(node.blocks(), all);
    assert_eq!(node.pins(), [(cid.clone(), "flist:large".to_owned())].into());
    drop(node);

    let node = Rpc::start();
    let report = publish(&flist, &cid, &node.spec(), &[]);
    assert_eq!((report["sent"].as_u64(), report["skipped"].as_u64()), (Some(all.len() as u64), Some(0)));
    are_cut_well(&node.imports());
    assert_eq!(node.imports().len(), 2);
    assert_eq!(node.pins(), [(cid.clone(), format!("flist:{cid}"))].into());
    drop(node);

    let node = match Daemon::js_ipfs() {
        Ok(node) => node,
        Err(why) => return skip::skip(&why),
    };
    let report = publish(&flist, &cid, &node.spec(), &[]);
    assert_eq!(report["sent_bytes"].as_u64(), Some(size), "{report}");
    assert_eq!(node.pins(), [cid.as_str()]);
    let mut below = node.refs(&cid);
    below.push(cid);
    below.sort();
    assert_eq!(below, all);
}

/// Publishes on a terminal and returns the last state of its bar, and what it printed at its end.
#[track_caller]
fn seen(flist: &Flist, cid: &str, to: &str) -> (String, String) {
    let mut command = Command::new("script");
    let line = format!("stty cols 300; exec '{}' publish {cid} --to {to}", flist.bin().display());
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    flist.environment(&mut command);
    let Outcome { stdout, .. } = process::run(&mut command, process::PATIENCE).ok();
    let text = String::from_utf8_lossy(&stdout).into_owned();
    let mut states =
        text.split(['\r', '\n']).filter(|line| line.contains(" objects") && line.contains("publishing"));
    let last = states.next_back().unwrap_or_else(|| panic!("no bar: {text}")).to_owned();
    let result = text.lines().rfind(|line| line.contains(" were sent"));
    (last, result.unwrap_or_else(|| panic!("no result: {text}")).to_owned())
}

/// The bar ends at what there is, in objects and bytes, whatever has happened on the way, and says what was there already.
#[test]
fn progress_ends_at_the_true_totals_and_tells_what_was_there() {
    let (flist, cid) = publisher::seven_megabytes();
    let (all, size) = (objects(&flist).len(), store::size(flist.store()));
    let size = format!("{:.2} MiB", size as f64 / MIB as f64);
    let is_complete = |state: &str| {
        assert!(state.contains(&format!(" {all} of {all} objects")), "{state}");
        assert!(state.contains(&format!(" {size}/{size} ")), "{size}: {state}");
    };
    for trick in [None, Some(Trick::Cuts(3 << 20)), Some(Trick::LosesBlocks), Some(Trick::NoRootLine)] {
        let node = Rpc::start();
        trick.into_iter().for_each(|trick| node.fails("dag/import", trick, 1));
        let (state, result) = seen(&flist, &cid, &node.spec());
        is_complete(&state);
        assert!(!state.contains("were there"), "what we brought was not there: {trick:?}: {state}");
        assert!(
            result.contains(&format!(": {all} objects of {size}, {all} of {size} were sent")),
            "{result}"
        );
    }
    // A disk that was full in the middle; and a pin that somebody removed.
    let node = Rpc::start();
    node.fails("dag/import", Trick::Full, 1);
    flist.run(args!["publish", cid, "--to", node.spec()]).exits(1);
    for _ in 0..2 {
        let there = node.blocks().len();
        let (state, result) = seen(&flist, &cid, &node.spec());
        is_complete(&state);
        assert!(there > 0 && state.contains(&format!(", {there} were there")), "{there}: {state}");
        assert!(result.contains(&format!(", {} of ", all - there)), "{there} were there: {result}");
        node.unpin(&cid);
    }
    // And a store, where each object is looked at.
    let other = Flist::new();
    for there in [0, all] {
        let (state, _) = seen(&flist, &cid, &other.spec());
        is_complete(&state);
        assert_eq!(state.contains(&format!(", {all} were there")), there == all, "{state}");
    }
}

/// Whatever call a node never answers, it costs a bounded time. What is asked in vain for what there is, is sent all the same.
#[test]
fn a_node_that_hangs_at_any_call_is_an_error_in_time() {
    let (flist, cid) = publisher::seven_megabytes();
    let no_sign = "no sign of life";
    // After so many calls that went well, and as which node.
    let cases: [(&str, usize, bool, Option<&str>); 8] = [
        ("version", 0, false, Some(no_sign)),
        ("block/stat", 0, false, None),
        ("block/stat", 1, false, None),
        ("block/stat", 9, false, None),
        ("refs/local", 0, true, Some(no_sign)),
        ("pin/ls", 0, false, Some(no_sign)),
        ("pin/ls", 0, true, Some(no_sign)),
        ("pin/add", 0, false, None),
    ];
    std::thread::scope(|scope| {
        for (call, well, poses, words) in cases {
            let (flist, cid) = (&flist, &cid);
            scope.spawn(move || {
                let node = Rpc::start();
                node.fails_after(well, call, Trick::Hangs, usize::MAX);
                if poses {
                    node.poses_as_js_ipfs();
                }
                let arguments = args!["publish", cid, "--to", node.spec(), "--deadline", "3"];
                let outcome = flist.run_within(Duration::from_secs(110), arguments);
                match words {
                    Some(words) => explains(&outcome, &[call, words, &node.spec()]),
                    None => {
                        outcome.ok();
                        assert_eq!(node.blocks(), objects(flist), "{call}");
                        assert!(node.pins().contains_key(cid), "{call}");
                    }
                }
            });
        }
        scope.spawn(|| {
            let node = Rpc::start();
            node.fails("dag/import", Trick::Status(404), usize::MAX);
            node.fails_after(5, "block/put", Trick::Hangs, usize::MAX);
            let arguments = args!["publish", cid, "--to", node.spec(), "--deadline", "3"];
            explains(&flist.run_within(Duration::from_secs(60), arguments), &["block/put", no_sign]);
            assert!(node.pins().is_empty());
        });
    });
}

/// A user who has enough of a node that hangs is let go, whatever it hangs at.
#[test]
fn a_stop_is_heard_while_a_node_hangs() {
    let (flist, cid) = publisher::seven_megabytes();
    for (call, poses) in [
        ("version", false),
        ("refs/local", true),
        ("dag/import", false),
        ("pin/ls", true),
        ("block/put", false),
    ] {
        let node = Rpc::start();
        node.fails(call, Trick::Hangs, usize::MAX);
        if poses {
            node.poses_as_js_ipfs();
        }
        if call == "block/put" {
            node.fails("dag/import", Trick::Status(404), usize::MAX);
        }
        let (child, log) = start(&flist, &cid, &node.spec(), &["--deadline", "600"]);
        wait::until(call, Duration::from_secs(60), || node.count(call) > 0);
        let code = end(child, Signal::INT, Duration::from_secs(30));
        let said = fs::read_to_string(log).unwrap();
        // The time of some calls is over sooner.
        assert_eq!(code, Some(1), "{call}: {said}");
        assert!(said.contains("stopped: what ") || said.contains("no sign of life"), "{call}: {said}");
        assert!(node.pins().is_empty() || call == "pin/ls", "{call}");
    }
}

/// An answer without an end is given up after a bounded number of bytes, or when nothing moves any more.
#[test]
fn an_answer_without_an_end_is_an_error_and_costs_no_memory() {
    let (flist, cid) = publisher::seven_megabytes();
    let cases = [
        ("version", "{ ", false),
        ("block/stat", "{ ", false),
        ("refs/local", "x", true),
        ("refs/local", "\n", true),
        ("dag/import", "x", false),
        ("dag/import", "\n", false),
        ("dag/import", "{}\n", false),
        ("pin/ls", "[", false),
    ];
    let published = |node: &Rpc| {
        // An answer that is kept whole meets this limit of 4 GiB, if not the clock.
        let line = format!(
            "ulimit -v $((4 << 20)); exec '{}' publish {cid} --to {} --deadline 3",
            flist.bin().display(),
            node.spec()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &line]);
        flist.environment(&mut command);
        process::run(&mut command, Duration::from_secs(110))
    };
    std::thread::scope(|scope| {
        for (call, words, poses) in cases {
            let published = &published;
            let cid = &cid;
            scope.spawn(move || {
                let node = Rpc::start();
                if poses {
                    node.poses_as_js_ipfs();
                }
                node.fails(call, Trick::Endless(words), usize::MAX);
                let outcome = published(&node);
                if poses {
                    // What cannot be listed is sent.
                    outcome.ok();
                    assert!(node.pins().contains_key(cid));
                } else {
                    explains(&outcome, &[call, "more than", "bytes came"]);
                }
            });
        }
        // The same sign of life for ever is none.
        scope.spawn(|| {
            let node = Rpc::start();
            node.fails("dag/import", Trick::Status(404), usize::MAX);
            node.fails("pin/add", Trick::Ticks, usize::MAX);
            explains(&published(&node), &["pin/add", "no sign of life for 30s"]);
            assert!(node.pins().is_empty());
        });
    });
}

/// What a node says to be there, kept or pinned is believed where it can be, and no further.
#[test]
fn a_node_that_says_what_cannot_be_is_found_out() {
    let (flist, cid) = publisher::seven_megabytes();
    // Sizes that no block has.
    let node = Rpc::start();
    publish(&flist, &cid, &node.spec(), &[]);
    node.fails("block/stat", Trick::Bloats, usize::MAX);
    explains(&flist.run(args!["publish", cid, "--to", node.spec()]), &["block/stat", "a block has at most"]);
    // An answer before the blocks: they are sent again, and in the end it is an error.
    let node = Rpc::start();
    node.poses_as_js_ipfs();
    node.fails("dag/import", Trick::Early, 1);
    publish(&flist, &cid, &node.spec(), &[]);
    assert_eq!(node.blocks(), objects(&flist));
    let node = Rpc::start();
    node.poses_as_js_ipfs();
    node.fails("dag/import", Trick::Early, usize::MAX);
    let outcome = flist.run(args!["publish", cid, "--to", node.spec()]);
    explains(&outcome, &["has not published the flist", &node.spec()]);
    assert_eq!(node.count("dag/import"), 3);
    // A pin that is gone as soon as it is there, on a node where nobody pins again to name it.
    let node = Rpc::start();
    node.poses_as_js_ipfs();
    node.fails("dag/import", Trick::LosesPin, usize::MAX);
    let outcome = flist.run(args!["publish", cid, "--to", node.spec()]);
    explains(&outcome, &["does not list its pin", &node.spec()]);
}

/// Status 200 alone means nothing, whatever call it answers.
#[test]
fn a_pin_that_failed_under_a_200_is_an_error_that_says_why() {
    let (flist, cid) = publisher::seven_megabytes();
    let refused = r#"{"Message":"pin: the pinner is out of order","Code":0,"Type":"error"}"#;
    for (call, words, told) in [
        ("pin/add", "{\"Progress\":3}\n", "before the node said that it was done"),
        ("pin/add", refused, "the pinner is out of order"),
        ("pin/add", "{\"Pins\":[\"bafkreie\"]}\n", "before the node said that it was done"),
        ("pin/ls", "{\"Keys\":{}}", "does not list its pin"),
        ("pin/ls", "{\"Keys\":null}", "does not list its pin"),
        ("pin/ls", "true", "not the RPC of an IPFS node"),
    ] {
        let node = Rpc::start();
        node.fails(call, Trick::Says(words), usize::MAX);
        // Then the pin is a call of its own.
        node.fails("dag/import", Trick::Status(404), usize::MAX);
        explains(&flist.run(args!["publish", cid, "--to", node.spec()]), &[told, &node.spec()]);
    }
    // In a trailer, where kubo has words and js-ipfs has JSON.
    for words in ["the disk is gone", r#"{"Message":"the disk is gone","Code":0}"#] {
        for (call, imports) in [("dag/import", true), ("pin/add", false)] {
            let node = Rpc::start();
            node.fails(call, Trick::Trails(words), usize::MAX);
            if !imports {
                node.fails("dag/import", Trick::Status(404), usize::MAX);
            }
            let outcome = flist.run(args!["publish", cid, "--to", node.spec()]);
            explains(&outcome, &[call, "the node says: the disk is gone", &node.spec()]);
        }
    }
}

/// The pin of a profile is looked at as that of its flist is.
#[test]
fn a_profile_whose_pin_disappears_is_not_published() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    harness::rootfs::build(&source, &["/bin/true"]);
    let cid = flist.pack(&source);
    let reference = flist.ok(args!["profile", "record", cid, "--", "/bin/true"]).text();
    let node = Rpc::start();
    publish(&flist, &cid, &node.spec(), &[]);
    // The first pin is the profile's.
    node.fails("pin/add", Trick::LosesPin, 1);
    let outcome = flist.run(args!["publish", reference, "--to", node.spec()]);
    explains(&outcome, &["does not list its pin", &node.spec()]);
    publish(&flist, &reference, &node.spec(), &[]);
    assert_eq!(node.pins().len(), 2);
}

/// The disk of a node is full: nothing is pinned, the reason is told, and with more room the same command ends the work.
#[test]
fn a_node_whose_disk_is_full_says_so_and_is_helped_by_more_room() {
    let (flist, cid) = publisher::packed(synthetic::sixty_megabytes);
    let node = Rpc::start();
    node.fails("dag/import", Trick::Full, 1);
    let outcome = flist.run(args!["publish", cid, "--to", node.spec()]);
    explains(&outcome, &["no space left on device", "sends only the rest", &node.spec()]);
    assert!(node.pins().is_empty());
    let report = publish(&flist, &cid, &node.spec(), &[]);
    assert!(report["skipped"].as_u64() > Some(10), "{report}");

    let place = Place::new();
    let disk = Tmpfs::mount(&place.dir("disk"), 24);
    let node = match Daemon::js_ipfs_on(disk.path()) {
        Ok(node) => node,
        Err(why) => return skip::skip(&why),
    };
    let arguments = args!["publish", cid, "--to", node.spec(), "--deadline", "5"];
    let outcome = flist.run_within(Duration::from_secs(200), arguments);
    explains(&outcome, &["ENOSPC", "no space left", &node.spec()]);
    disk.resize(512);
    let report = publish(&flist, &cid, &node.spec(), &[]);
    assert!(report["skipped"].as_u64() > Some(10), "{report}");
    assert_eq!(node.pins(), [cid]);
}

/// What passes by itself is done again, and only what is missing is sent again.
#[test]
fn trouble_that_passes_costs_another_try() {
    let (flist, cid) = publisher::seven_megabytes();
    let size = store::size(flist.store());
    // One that counts wrongly and then has everything and the pin is believed the second time.
    for (trick, imports) in [
        (Trick::Cuts(3 << 20), 2),
        (Trick::LosesBlocks, 2),
        (Trick::Status(503), 2),
        (Trick::NoRootLine, 2),
        (Trick::Miscounts, 1),
    ] {
        let node = Rpc::start();
        node.fails("dag/import", trick, 1);
        let report = publish(&flist, &cid, &node.spec(), &[]);
        assert_eq!(node.count("dag/import"), imports, "{trick:?}");
        assert_eq!(node.blocks(), objects(&flist), "{trick:?}");
        assert!(node.pins().contains_key(&cid), "{trick:?}");
        assert_eq!(report["sent_bytes"].as_u64(), Some(size), "{trick:?}: {report}");
        let taken: usize = node.imported();
        match trick {
            Trick::Cuts(_) => assert!(taken < 2 * size as usize - (2 << 20), "{taken} bytes for {size}"),
            Trick::LosesBlocks => assert!(taken < 2 * size as usize - (1 << 20), "{taken} bytes for {size}"),
            _ => {}
        }
    }
}

/// Whatever a node does, nothing is called published that is not.
#[test]
fn a_node_that_does_not_have_the_flist_is_an_error_that_says_why() {
    let (flist, cid) = publisher::seven_megabytes();
    let always = [
        (Trick::PinFails, "the pinner is out of order"),
        (Trick::NoRootLine, "did not say whether it pinned"),
        (Trick::OtherRoot, "pinned something else"),
        (Trick::Html, "not the RPC of an IPFS node"),
        (Trick::Status(500), "something is wrong with this node"),
        (Trick::Status(401), "credentials"),
        (Trick::Status(302), "something is wrong with this node"),
        (Trick::Status(429), "HTTP status 429"),
        (Trick::Cuts(1 << 20), "no answer"),
        (Trick::Hangs, "no sign of life"),
    ];
    std::thread::scope(|scope| {
        for (trick, words) in always {
            let (flist, cid) = (&flist, &cid);
            scope.spawn(move || {
                let node = Rpc::start();
                node.fails("dag/import", trick, usize::MAX);
                let arguments = args!["publish", cid, "--to", node.spec(), "--deadline", "3"];
                let outcome = flist.run_within(Duration::from_secs(110), arguments);
                explains(&outcome, &[words, &node.spec()]);
                assert!(!node.pins().contains_key(cid), "{trick:?}");
            });
        }
    });
    let node = Rpc::start();
    node.fails("pin/add", Trick::LosesPin, usize::MAX);
    let outcome = flist.run(args!["publish", cid, "--to", node.spec()]);
    explains(&outcome, &["does not list its pin", &node.spec()]);
}

/// Asked to come back in three seconds, twice, we do: our own pauses would be over in less than one of them.
#[test]
fn a_node_that_is_busy_is_asked_again_when_it_says() {
    let (node, (flist, cid)) = (Rpc::start(), Flist::with_image());
    node.fails("dag/import", Trick::Busy(3), 2);
    let began = std::time::Instant::now();
    publish(&flist, &cid, &node.spec(), &[]);
    assert!(began.elapsed() >= Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(node.count("dag/import"), 3);
    assert!(node.pins().contains_key(&cid));
}

/// The reason of a refusal may never come, and the call that was refused may take as long as it likes.
#[test]
fn a_node_that_refuses_and_never_says_why_holds_nobody_up() {
    let (node, (flist, cid)) = (Rpc::start(), Flist::with_image());
    node.fails("pin/add", Trick::Mumbles, 1);
    let arguments = args!["publish", cid, "--to", node.spec(), "--json"];
    let published = flist.run_within(Duration::from_secs(60), arguments).ok();
    assert_eq!(node.count("pin/add"), 1, "{}", published.text());
    assert!(node.pins().contains_key(&cid), "it is published, and its pin has no name");
}

#[test]
fn without_an_import_blocks_are_put_one_by_one() {
    let (node, (flist, cid)) = (Rpc::start(), publisher::seven_megabytes());
    node.fails("dag/import", Trick::Status(404), usize::MAX);
    publish(&flist, &cid, &node.spec(), &[]);
    assert_eq!(node.blocks(), objects(&flist));
    assert!(node.pins().contains_key(&cid));
    assert_eq!(node.count("block/put"), objects(&flist).len());
    assert_eq!(node.count("dag/import"), 1);
}

/// As js-ipfs does: what it lacks it would have to be asked for until it is tired of waiting.
#[test]
fn a_node_that_waits_for_what_it_lacks_is_asked_for_what_it_has() {
    let (node, (flist, cid)) = (Rpc::start(), publisher::seven_megabytes());
    publish(&flist, &cid, &node.spec(), &[]);
    let count = objects(&flist).len();
    assert_eq!((node.count("refs/local"), node.count("block/stat")), (0, count + 1));
    let more = flist.home().join("source/more");
    fs::write(&more, "more").unwrap();
    let second = flist.pack(&flist.home().join("source"));
    let before = node.imported();
    node.fails("block/stat", Trick::Hangs, 2);
    let report = publish(&flist, &second, &node.spec(), &[]);
    assert_eq!(node.count("refs/local"), 1);
    assert!(report["skipped"].as_u64().unwrap() > 10, "{report}");
    assert!(node.imported() - before < 2 << 20, "{} bytes", node.imported() - before);
}
