//! Images from an HTTP gateway: the same bytes as ever, and what becomes of them when the network and the strangers in
//! it do their worst.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::origin::{FAULTS, Fault, Link};
use harness::tls::{Authority, Certificate};
use harness::{Flist, Gateway, Mounted, Origin, Outcome, args, compare, prng::SplitMix64, synthetic, wait};
use rustix::process::Signal;

/// Scheduling noise allowed after a deadline: debug builds on two shared cores are slow.
const SLACK: Duration = Duration::from_secs(5);
/// The same where a daemon is started too.
const STARTS: Duration = Duration::from_secs(20);

/// A user who has packed, for others to read: 24 files of 600 KB that share no block.
struct Publisher {
    flist: Flist,
    cid: String,
}

impl Publisher {
    fn new() -> Self {
        let flist = Flist::new();
        let tree = harness::tree::Builder::at(&flist.home().join("source"));
        let mut rng = SplitMix64::new(80);
        for file in 0..24 {
            tree.file(name(file), &rng.bytes(600_000));
        }
        tree.finish();
        let cid = flist.pack(&flist.home().join("source"));
        Self { flist, cid }
    }

    fn source(&self) -> std::path::PathBuf {
        self.flist.home().join("source")
    }

    fn origin(&self) -> Origin {
        Origin::over(self.flist.store())
    }

    /// What reading `file` gives, compared with the source: right bytes or an error, never anything else.
    #[track_caller]
    fn read(&self, mounted: &Mounted<'_>, file: usize) -> std::io::Result<()> {
        let bytes = fs::read(mounted.join(name(file)))?;
        assert!(bytes == fs::read(self.source().join(name(file))).unwrap(), "WRONG BYTES in {}", name(file));
        Ok(())
    }
}

fn name(file: usize) -> String {
    format!("file-{file:02}")
}

#[track_caller]
fn is_trouble(error: &std::io::Error) {
    let code = error.raw_os_error();
    assert!(matches!(code, Some(libc::EIO | libc::ETIMEDOUT)), "EIO or ETIMEDOUT expected, got {error}");
}

fn drop_page_cache() {
    fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
}

/// Ends the mount and its daemon, and with it all that was only in memory.
fn end(mounted: Mounted<'_>) {
    let pid = mounted.pid();
    mounted.umount();
    wait::for_the_end_of(pid, Duration::from_secs(20));
}

#[test]
fn a_tree_mounted_from_a_gateway_equals_its_source() {
    let publisher = Flist::new();
    let source = publisher.home().join("source");
    synthetic::seven_megabytes(&source);
    let cid = publisher.pack(&source);
    let gateway = Gateway::of(&publisher);
    for mode in ["auto", "fuse"] {
        let reader = Flist::new();
        let mounted = reader.mount_with(&cid, &["--from", gateway.url(), "--mode", mode]);
        compare::assert_same(&source, mounted.path());
        reader.ok(args!["check", cid, "--from", gateway.url()]);
    }
    gateway.stop(Signal::TERM);
    Gateway::of(&publisher).stop(Signal::INT);
}

#[test]
fn every_block_is_asked_for_once() {
    let publisher = Publisher::new();
    let origin = publisher.origin();
    origin.link(Link { round_trip: Duration::from_millis(5), bytes_per_second: Some(100 << 20) });
    let reader = Flist::new();
    let mounted = reader.mount_with(&publisher.cid, &["--from", &origin.url()]);
    let opening: Vec<_> = origin.asked().into_iter().map(|asked| (asked.cid, asked.is_car)).collect();
    assert_eq!(opening, [(publisher.cid.clone(), true)], "one request is enough to open an flist");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (publisher, mounted) = (&publisher, &mounted);
            scope
                .spawn(move || (0..24).for_each(|n| publisher.read(mounted, (n + 6 * thread) % 24).unwrap()));
        }
    });
    assert!(origin.asked().iter().skip(1).all(|asked| !asked.is_car), "data is asked for block by block");
    let asked: Vec<String> = origin.asked().into_iter().map(|asked| asked.cid).collect();
    let once: HashSet<&String> = asked.iter().collect();
    assert_eq!(asked.len(), once.len(), "some block was asked for twice");
    let objects: HashSet<String> =
        harness::store::objects(publisher.flist.store()).into_iter().map(|(name, _)| name).collect();
    assert!(asked.iter().all(|cid| objects.contains(cid)), "only what the flist has is asked for");
}

/// Who needs a block of a far server will soon need its neighbours, and each would cost a round trip.
#[test]
fn what_lies_around_a_missing_block_comes_along_from_far_away_and_not_from_next_door() {
    use std::os::unix::fs::FileExt;
    let publisher = Publisher::new();
    let asked_for_a_page = |round_trip| {
        let origin = publisher.origin();
        origin.link(Link { round_trip, bytes_per_second: None });
        let reader = Flist::new();
        let mounted = reader.mount_with(&publisher.cid, &["--from", &origin.url(), "--mode", "fuse"]);
        origin.forget();
        let file = fs::File::open(mounted.join(name(12))).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
        file.read_exact_at(&mut [0; 100], 300_000).unwrap();
        wait::until("the mount is quiet", Duration::from_secs(30), || {
            let before = origin.asked().len();
            std::thread::sleep(10 * round_trip + Duration::from_millis(300));
            origin.asked().len() == before
        });
        let asked = origin.asked().len();
        (0..24).for_each(|file| publisher.read(&mounted, file).unwrap());
        let all: Vec<String> = origin.asked().into_iter().map(|asked| asked.cid).collect();
        assert_eq!(all.len(), all.iter().collect::<HashSet<_>>().len(), "some block was asked for twice");
        asked
    };
    let (near, far) = (asked_for_a_page(Duration::ZERO), asked_for_a_page(Duration::from_millis(40)));
    // A machine that takes milliseconds for an answer from next door takes it for far away, rightly.
    assert!(near < 8 && far > 1 && far < 16, "{near} blocks from next door, {far} from far away");
}

/// What the kernel asks for it waits for, all of it.
#[test]
fn the_kernel_reads_less_ahead_where_the_source_is_far() {
    let publisher = Publisher::new();
    let origin = publisher.origin();
    origin.link(Link { round_trip: Duration::from_millis(20), bytes_per_second: None });
    let reader = Flist::new();
    let mounted = reader.mount_with(&publisher.cid, &["--from", &origin.url(), "--mode", "kernel"]);
    let bdi = harness::mount_table::erofs_name(mounted.path());
    let text = fs::read_to_string(format!("/sys/class/bdi/{bdi}/read_ahead_kb")).unwrap();
    assert_eq!(text.trim(), "256", "from this machine it is 512");
}

#[test]
fn what_was_read_is_served_while_the_source_is_down_and_the_rest_when_it_is_back() {
    let publisher = Publisher::new();
    let origin = publisher.origin();
    let reader = Flist::new();
    let options = ["--from", &origin.url(), "--deadline", "3", "--mode", "fuse"];
    let mounted = reader.mount_with(&publisher.cid, &options);
    (0..4).for_each(|file| publisher.read(&mounted, file).unwrap());
    end(mounted);
    origin.down();
    drop_page_cache();

    // Root, tree and map are in the cache too, so even a new daemon needs nobody.
    let mounted = reader.mount_with(&publisher.cid, &options);
    (0..4).for_each(|file| publisher.read(&mounted, file).unwrap());
    assert!(mounted.status().hits_disk > 0, "{:#?}", mounted.status());
    let began = Instant::now();
    is_trouble(&publisher.read(&mounted, 20).unwrap_err());
    assert!(began.elapsed() < Duration::from_secs(3) + SLACK, "an error after {:?}", began.elapsed());

    // The same mount, once somebody listens again.
    origin.up();
    wait::until("the source is found again", Duration::from_secs(20), || {
        publisher.read(&mounted, 20).is_ok()
    });
    compare::assert_same(&publisher.source(), mounted.path());
}

#[test]
fn a_read_waits_for_a_source_that_comes_back_in_time() {
    let publisher = Publisher::new();
    let origin = publisher.origin();
    let reader = Flist::new();
    let mounted = reader.mount_with(&publisher.cid, &["--from", &origin.url(), "--deadline", "60"]);
    origin.down();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| publisher.read(&mounted, 7));
        std::thread::sleep(Duration::from_millis(1500));
        origin.up();
        reading.join().unwrap().unwrap();
    });
    assert!(began.elapsed() < Duration::from_secs(1) * 20, "read after {:?}", began.elapsed());
}

#[test]
fn every_fault_is_an_error_in_time_or_right_bytes_and_is_forgotten() {
    let publisher = Publisher::new();
    std::thread::scope(|scope| {
        // Side by side: most of the time they wait.
        let faults = FAULTS.map(|fault| {
            let publisher = &publisher;
            scope.spawn(move || one_fault(publisher, fault))
        });
        for fault in faults {
            fault.join().unwrap();
        }
    });
}

fn one_fault(publisher: &Publisher, fault: Fault) {
    let (origin, reader) = (publisher.origin(), Flist::new());
    let limit = Duration::from_secs(4);
    // In mode kernel the deadline is that of one page: EROFS asks for 64 KiB at a time and goes on after an error.
    let options = ["--from", &origin.url(), "--deadline", "4", "--mode", "fuse"];
    let mounted = reader.mount_with(&publisher.cid, &options);
    origin.forget();
    origin.fails(fault);
    let began = Instant::now();
    match publisher.read(&mounted, 3) {
        Err(error) => is_trouble(&error),
        Ok(()) => panic!("{fault:?}: nobody had the block"),
    }
    assert!(began.elapsed() < limit + SLACK, "{fault:?}: an error after {:?}", began.elapsed());
    assert!(origin.asked().iter().any(|asked| asked.fault == Some(fault)), "{fault:?} was never met");
    origin.heal();
    // Who lied about a block is asked for another one at once; for the same one in half a minute.
    let lied = matches!(fault, Fault::FlipBit | Fault::Short | Fault::Endless);
    let file = if lied { 17 } else { 3 };
    let what = format!("{fault:?} is forgotten");
    wait::until(&what, Duration::from_secs(20), || publisher.read(&mounted, file).is_ok());
    let status = mounted.status();
    assert_eq!(status.wrong > 0, lied, "{fault:?}: {status:#?}");
}

/// The shortcut by which an flist is opened is one: whatever becomes of it, there is the long way, alone and beside
/// another source. Only who lies about a block is not asked for it again.
#[test]
fn an_flist_is_opened_whatever_becomes_of_the_answer_that_has_all_of_it() {
    let user = Flist::new();
    let source = user.home().join("source");
    let tree = harness::tree::Builder::at(&source);
    let mut rng = SplitMix64::new(81);
    // Little but metadata, so that half of the answer is half of that.
    tree.file("file", b"content");
    for link in 0..3000 {
        let target: String = rng.bytes(100).iter().map(|byte| format!("{byte:02x}")).collect();
        tree.symlink(format!("link-{link}"), &target);
    }
    tree.finish();
    let publisher = Publisher { cid: user.pack(&source), flist: user };
    std::thread::scope(|scope| {
        let faults = FAULTS.map(|fault| {
            let publisher = &publisher;
            scope.spawn(move || {
                opened_past(publisher, fault, None);
                opened_past(publisher, fault, Some(&publisher.origin()));
            })
        });
        for fault in faults {
            fault.join().unwrap();
        }
    });
}

fn opened_past(publisher: &Publisher, fault: Fault, good: Option<&Origin>) {
    let (bad, reader) = (publisher.origin(), Flist::new());
    bad.fails_where(move |asked| asked.ends_with("?format=car").then_some(fault));
    let from = [Some(&bad), good].into_iter().flatten().map(Origin::url).collect::<Vec<_>>().join(",");
    let limit = Duration::from_secs(20);
    let opened = reader.run_within(
        limit + SLACK,
        args!["info", publisher.cid, "--from", from, "--deadline", limit.as_secs().to_string()],
    );
    let asked = bad.asked();
    assert!(asked.iter().any(|asked| asked.fault == Some(fault)), "{fault:?} was never met");
    let tries = if fault == Fault::RedirectLoop { 4 } else { 1 };
    assert_eq!(asked.iter().filter(|asked| asked.is_car).count(), tries, "{fault:?}: {asked:#?}");
    match (fault, good) {
        (Fault::FlipBit, None) => explains(&opened, 1, "wrong", &bad.url()),
        _ => assert_eq!(opened.code, 0, "{fault:?}: {}", opened.stderr),
    }
}

/// In mode kernel too, where a page is asked for up to four times.
#[test]
fn a_page_that_cannot_be_had_is_an_error_in_time_in_every_mode() {
    use std::os::unix::fs::FileExt;
    let publisher = Publisher::new();
    for mode in ["fuse", "auto"] {
        let (origin, reader) = (publisher.origin(), Flist::new());
        let options = ["--from", &origin.url(), "--deadline", "4", "--mode", mode];
        let mounted = reader.mount_with(&publisher.cid, &options);
        origin.fails(Fault::Stall);
        let file = fs::File::open(mounted.join(name(5))).unwrap();
        let began = Instant::now();
        is_trouble(&file.read_exact_at(&mut [0; 100], 300_000).unwrap_err());
        assert!(began.elapsed() < Duration::from_secs(4) + SLACK, "{mode}: after {:?}", began.elapsed());
    }
}

#[test]
fn whatever_one_source_does_the_other_one_makes_up_for_it() {
    let publisher = Publisher::new();
    let good = publisher.origin();
    std::thread::scope(|scope| {
        let faults = FAULTS.map(|fault| {
            let (publisher, good) = (&publisher, &good);
            scope.spawn(move || {
                let (bad, reader) = (publisher.origin(), Flist::new());
                bad.fails(fault);
                let both = format!("{},{}", bad.url(), good.url());
                let mounted = reader.mount_with(&publisher.cid, &["--from", &both, "--deadline", "40"]);
                for file in (0..24).step_by(3) {
                    publisher.read(&mounted, file).unwrap_or_else(|e| panic!("{fault:?}: {e}"));
                }
                assert!(!bad.asked().is_empty(), "{fault:?}: the first source was never asked");
            })
        });
        for fault in faults {
            fault.join().unwrap();
        }
    });
}

/// The first reads wait for the one that stalls, until another one overtakes it; then it is asked last.
#[test]
fn a_source_that_stalls_is_overtaken_and_then_left_alone() {
    let publisher = Publisher::new();
    let (stalled, good) = (publisher.origin(), publisher.origin());
    let both = format!("{},{}", stalled.url(), good.url());
    let reader = Flist::new();
    let mounted = reader.mount_with(&publisher.cid, &["--from", &both, "--deadline", "60"]);
    stalled.fails(Fault::Stall);
    let began = Instant::now();
    (0..24).for_each(|file| publisher.read(&mounted, file).unwrap());
    assert!(began.elapsed() < Duration::from_secs(20), "24 reads took {:?}", began.elapsed());
    let asked = stalled.asked().iter().filter(|asked| asked.fault.is_some()).count();
    assert!(asked < 24, "the stalled source was asked {asked} times");
}

#[test]
fn credentials_reach_the_gateway_and_nobody_else() {
    let publisher = Publisher::new();
    let origin = publisher.origin();
    let reader = Flist::new();
    let from = origin.url_with("me:verysecret");
    let mounted = reader.mount_with(&publisher.cid, &["--from", &from, "--deadline", "5"]);
    publisher.read(&mounted, 0).unwrap();
    assert!(
        origin.asked().iter().all(|asked| asked.head.contains("uthorization: Basic bWU6dmVyeXNlY3JldA=="))
    );
    origin.fails(Fault::Status(403));
    is_trouble(&publisher.read(&mounted, 9).unwrap_err());
    let listed = reader.ok(args!["mounts", "--json"]);
    assert!(listed.text().contains(&origin.url()), "{}", listed.text());
    let log = fs::read_to_string(reader.cache().join("daemon.log")).unwrap_or_default();
    assert!(log.contains("403"), "the failure is in the log: {log}");
    let mut all_is_logged = reader.command(args!["info", publisher.cid, "--from", from, "--deadline", "5"]);
    all_is_logged.env("G8_LOG", "trace");
    let failed = harness::process::run(&mut all_is_logged, STARTS).exits(1);
    assert!(failed.stderr.contains("TRACE"), "{}", failed.stderr);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for place in
        [listed.text(), listed.stderr, log, failed.stderr, failed.stdout.escape_ascii().to_string(), table]
    {
        assert!(!place.contains("verysecret"), "{place}");
    }
    for command in ["--help", "help"] {
        let mut help = reader.command(args![command]);
        help.env("G8_FROM", &from);
        let said = harness::process::run(&mut help, Duration::from_secs(10)).ok().text();
        assert!(!said.contains("verysecret"), "{said}");
    }
}

#[test]
fn what_is_no_gateway_says_so_at_once() {
    let publisher = Publisher::new();
    let origin = publisher.origin();
    let user = Flist::new();
    let told = [
        (Fault::Html, "is not a trustless gateway"),
        (Fault::RedirectLoop, "redirected too often"),
        (Fault::Status(401), "401"),
        (Fault::Status(404), "no source has block"),
    ];
    for (fault, words) in told {
        origin.fails(fault);
        let outcome =
            user.run_within(STARTS, args!["mount", publisher.cid, user.mountpoint(), "--from", origin.url()]);
        explains(&outcome, 1, words, &origin.url());
    }
    let gateway = Gateway::of(&publisher.flist);
    let plain = gateway.url().replacen("http", "https", 1);
    let outcome = user.run_within(STARTS, args!["info", publisher.cid, "--from", plain]);
    explains(&outcome, 1, "cannot be used", &plain);
    // What may pass is waited for, and then told.
    origin.down();
    let outcome = user.run_within(
        Duration::from_secs(2) + STARTS,
        args!["mount", publisher.cid, user.mountpoint(), "--from", origin.url(), "--deadline", "2"],
    );
    explains(&outcome, 1, "Connection refused", &origin.url());
    let outcome = user.run_within(STARTS, args!["info", publisher.cid, "--from", "htp://host"]);
    explains(&outcome, 2, "a source is dir:PATH,", "htp://host");
    let source = publisher.source();
    let outcome = user.run_within(STARTS, args!["pack", source, "--to", origin.url()]);
    explains(&outcome, 1, "can only be read", &origin.url());
    harness::mount_table::assert_none_under(user.home().path());
}

/// The certificates of the system decide, here one authority alone. What is wrong with one is no trouble that passes, and
/// nobody is asked over such a connection.
#[test]
fn https_is_http_from_those_whose_certificate_is_good() {
    let publisher = Publisher::new();
    let (origin, authority, stranger) = (publisher.origin(), Authority::default(), Authority::default());
    let trusted = authority.file_in(&publisher.flist.home().dir("authority"));
    let run = |user: &Flist, arguments| {
        harness::process::run(user.command(arguments).env("SSL_CERT_FILE", &trusted), STARTS)
    };
    let bad = [
        (&authority, Certificate::Expired, "expired"),
        (&authority, Certificate::ForOther, "not valid for name"),
        (&stranger, Certificate::Good, "BadSignature"),
    ];
    for (authority, certificate, words) in bad {
        let (front, user) = (authority.front(certificate, origin.address()), Flist::new());
        let mountpoint = user.mountpoint();
        let outcome =
            run(&user, args!["mount", publisher.cid, mountpoint, "--from", front.url(), "--deadline", "60"]);
        explains(&outcome, 1, words, &front.url());
        assert!(origin.asked().is_empty(), "{certificate:?}");
        harness::mount_table::assert_none_under(user.home().path());
    }
    let (front, user) = (authority.front(Certificate::Good, origin.address()), Flist::new());
    let mountpoint = user.mountpoint();
    run(&user, args!["mount", publisher.cid, mountpoint, "--from", front.url()]).ok();
    let mounted = user.adopt(&mountpoint);
    compare::assert_same(&publisher.source(), mounted.path());
}

#[track_caller]
fn explains(outcome: &Outcome, code: i32, words: &str, source: &str) {
    assert_eq!(outcome.code, code, "{}: {}", outcome.command, outcome.stderr);
    for needed in [words, source] {
        assert!(outcome.stderr.contains(needed), "{}: no {needed:?}: {}", outcome.command, outcome.stderr);
    }
}

#[test]
fn a_gateway_tells_why_it_cannot_listen_and_warns_when_everybody_can_reach_it() {
    let publisher = Flist::new();
    let mut gateway = Gateway::of(&publisher);
    for (address, warns) in
        [("0.0.0.0:0", true), ("[::]:0", true), ("127.0.0.2:0", false), ("[::1]:0", false)]
    {
        let mut gateway = Gateway::on(address, &publisher, &[]);
        let (said, url) = (gateway.warned(), gateway.url().trim_start_matches("http://").to_owned());
        let words = format!("whoever reaches {url} can read every block");
        assert_eq!(said.contains(&words), warns, "{address}: {said}");
    }
    assert!(!gateway.warned().contains("whoever reaches"), "{}", gateway.warned());
    let taken = gateway.url().trim_start_matches("http://");
    let outcome = publisher.run_within(STARTS, args!["serve", "--listen", taken]);
    explains(&outcome, 1, "listening on", taken);
    let outcome = publisher.run_within(STARTS, args!["serve", "--listen", "everywhere"]);
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
}

/// A gateway of a gateway: blocks go through any number of hands and are proven in each.
#[test]
fn gateways_can_stand_in_a_row() {
    let publisher = Publisher::new();
    let origin = publisher.origin();
    let between = Flist::new();
    let gateway = Gateway::with(&between, &["--from", &origin.url()]);
    let reader = Flist::new();
    let mounted = reader.mount_with(&publisher.cid, &["--from", gateway.url()]);
    compare::assert_same(&publisher.source(), mounted.path());
    let asked = origin.asked();
    assert!(!asked.is_empty() && asked.iter().all(|asked| !Path::new(&asked.cid).is_absolute()));
}
