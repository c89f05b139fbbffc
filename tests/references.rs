//! What a user may write for an flist: addresses, hints and tags, wherever a command takes one.

use std::fs;
use std::time::Duration;

use harness::{Flist, Origin, Outcome, args, compare, process};

const SOON: Duration = Duration::from_secs(20);

#[track_caller]
fn explains(outcome: &Outcome, code: i32, words: &str) {
    assert_eq!(outcome.code, code, "{}: {}", outcome.command, outcome.stderr);
    assert!(outcome.stderr.contains(words), "{}: no {words:?}: {}", outcome.command, outcome.stderr);
}

#[test]
fn every_spelling_leads_to_the_same_flist() {
    let (flist, cid) = Flist::with_image();
    let listed = flist.ok(args!["ls", cid]).text();
    flist.ok(args!["tag", "mine/v1.0", cid]);
    for reference in [format!("ipfs://{cid}"), format!("/ipfs/{cid}"), format!("{cid}?"), "mine/v1.0".into()]
    {
        assert_eq!(flist.ok(args!["ls", reference]).text(), listed);
        let mounted = flist.mount(&reference);
        assert_eq!(mounted.status().reference, cid, "{reference}");
        compare::assert_same(&flist.home().join("source"), mounted.path());
    }
}

#[test]
fn where_a_name_leads_is_said_by_every_command_that_is_given_one() {
    let (flist, cid) = Flist::with_image();
    let said = format!("mine is {cid}");
    let tagged = flist.ok(args!["tag", "mine", cid]);
    assert!(tagged.stderr.contains(&said) && tagged.stdout.is_empty(), "{tagged:?}");
    let dir = flist.mountpoint();
    let commands = [
        args!["ls", "mine"],
        args!["tree", "mine"],
        args!["info", "mine"],
        args!["stat", "mine", "/"],
        args!["check", "mine"],
        args!["unpack", "mine", flist.home().join("unpacked")],
        args!["mount", "mine", dir],
    ];
    for command in commands {
        let outcome = flist.ok(command);
        assert!(outcome.stderr.contains(&said), "{}: {}", outcome.command, outcome.stderr);
        assert_eq!(outcome.stderr.matches(&said).count(), 1, "{}", outcome.stderr);
    }
    flist.adopt(&dir).umount();
    let quiet = flist.ok(args!["info", "mine", "-q", "--json"]);
    assert_eq!(quiet.json()["ref"], cid);
    assert!(quiet.stderr.is_empty(), "{}", quiet.stderr);
    // An address needs no telling.
    assert!(flist.ok(args!["ls", cid]).stderr.is_empty());
}

#[test]
fn tags_are_given_followed_listed_and_removed() {
    let (flist, one) = Flist::with_image();
    let other = {
        fs::write(flist.home().join("source/more"), b"more").unwrap();
        flist.pack(&flist.home().join("source"))
    };
    assert!(flist.ok(args!["tag"]).text().is_empty());
    flist.ok(args!["tag", "a", one]);
    flist.ok(args!["tag", "b/c", "a"]);
    flist.ok(args!["tag", "a", format!("ipfs://{other}?gw=https://gw.example.org")]);
    let list = flist.ok(args!["tag", "--json"]).json();
    assert_eq!((&list[0]["name"], &list[0]["cid"]), (&"a".into(), &other.as_str().into()), "{list:#}");
    assert_eq!(list[0]["ref"], format!("{other}?gw=https://gw.example.org"));
    assert_eq!((&list[1]["name"], &list[1]["cid"]), (&"b/c".into(), &one.as_str().into()), "{list:#}");
    let text = flist.ok(args!["tag"]).text();
    assert_eq!(text.lines().count(), 2, "{text}");
    flist.ok(args!["tag", "--remove", "a"]);
    explains(&flist.run_within(SOON, args!["tag", "--remove", "a"]), 1, "there is no tag a");
    explains(&flist.run_within(SOON, args!["ls", "a"]), 1, "`flist tag` lists");
    explains(&flist.run_within(SOON, args!["tag", "--remove"]), 2, "NAME");
    explains(&flist.run_within(SOON, args!["tag", "x"]), 2, "REF");
    explains(&flist.run_within(SOON, args!["tag", one, one]), 2, "looks like the address");
    explains(&flist.run_within(SOON, args!["tag", "../x", one]), 2, "a tag has");
    explains(&flist.run_within(SOON, args!["tag", "x", "y"]), 1, "\"y\" is neither a tag");
}

#[test]
fn a_damaged_name_is_an_error_that_names_its_file_and_hides_no_other() {
    let (flist, cid) = Flist::with_image();
    flist.ok(args!["tag", "good", cid]);
    flist.ok(args!["tag", "bad", cid]);
    let file = flist.home().join("data/g8os/names/tag/bad");
    fs::write(&file, b"{\"v\":1").unwrap();
    explains(&flist.run_within(SOON, args!["ls", "bad"]), 1, file.to_str().unwrap());
    let list = flist.run_within(SOON, args!["tag"]);
    explains(&list, 1, file.to_str().unwrap());
    assert!(list.text().contains("good"), "{}", list.text());
    flist.ok(args!["tag", "bad", cid]);
    flist.ok(args!["ls", "bad"]);
}

#[test]
fn a_hint_is_one_more_source_of_the_mount_when_the_user_allows_it() {
    let (publisher, cid) = Flist::with_image();
    let origin = Origin::over(publisher.store());
    let reader = Flist::new();
    let nothing = format!("dir:{}", reader.home().dir("empty").display());
    let reference = format!("{cid}?gw={}", origin.url());
    let mounted = reader.mount_with(&reference, &["--from", &nothing, "--allow-private-hints"]);
    compare::assert_same(&publisher.home().join("source"), mounted.path());
    let list = reader.ok(args!["source", "list", mounted.path(), "--json"]).json();
    assert_eq!(
        (&list[0]["spec"], &list[1]["spec"]),
        (&nothing.as_str().into(), &origin.url().into()),
        "{list:#}"
    );
    mounted.umount();
    // It was for that mount only.
    let outcome = reader.run_within(SOON, args!["info", cid, "--from", nothing]);
    explains(&outcome, 1, "no source has block");
    let mut allowed = reader.command(args!["info", reference, "--from", nothing]);
    process::run(allowed.env("G8_ALLOW_PRIVATE_HINTS", "1"), SOON).ok();
}

#[test]
fn a_hint_leads_to_public_addresses_only() {
    let (publisher, cid) = Flist::with_image();
    let origin = Origin::over(publisher.store());
    let port = origin.url().rsplit(':').next().unwrap().to_owned();
    let reader = Flist::new();
    let nothing = format!("dir:{}", reader.home().dir("empty").display());
    let dir = reader.mountpoint();
    for host in
        ["127.0.0.1", "[::1]", "169.254.169.254", "10.1.2.3", "[::ffff:127.0.0.1]", "0x7f.1", "localhost"]
    {
        let reference = format!("{cid}?gw=http://{host}:{port}");
        for command in [args!["mount", reference, dir], args!["info", reference]] {
            let mut command = command;
            command.extend(args!["--from", nothing, "--deadline", "10"]);
            explains(&reader.run_within(SOON, command), 1, "not a public address");
        }
    }
    assert!(origin.asked().is_empty(), "it was asked: {:?}", origin.asked());
    let bad = [
        (format!("{cid}?gw=http://me:verysecret@example.org"), "has credentials"),
        (
            format!("{cid}?peer=/ip4/10.0.0.1/tcp/4001/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC"),
            "not followed",
        ),
        (format!("{cid}?peer=10.0.0.1"), "no address of a node"),
        (format!("{cid}?ge=x"), "unknown hint"),
        ("ipns://example.org".into(), "takes an IPFS node to resolve"),
    ];
    for (reference, words) in bad {
        let outcome = reader.run_within(SOON, args!["info", reference]);
        explains(&outcome, 1, words);
        assert!(!outcome.stderr.contains("verysecret"), "{}", outcome.stderr);
    }
}
