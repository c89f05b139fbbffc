//! The commands that read an image without mounting it, against the tree it was packed from.

use std::fs;

use harness::oddities::{self, Scale};
use harness::{Flist, Place, args, process, synthetic};

#[test]
fn cat_prints_the_bytes_of_every_file() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::seven_megabytes(&source);
    let cid = flist.pack(&source);
    for rel in ["files/00", "files/59", "big-a", "big-b", "tiny-3"] {
        let outcome = flist.ok(args!["cat", cid, rel]);
        assert!(outcome.stdout == fs::read(source.join(rel)).unwrap(), "cat {rel} prints other bytes");
    }
    assert!(
        flist.ok(args!["cat", cid, "/files/07"]).stdout == fs::read(source.join("files/07")).unwrap(),
        "absolute path"
    );
}

#[test]
fn cat_and_ls_say_what_is_wrong_with_a_path() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::tiny(&source);
    let cid = flist.pack(&source);
    for (command, rel) in [
        ("cat", "nothing"),
        ("cat", "dir"),
        ("cat", "hello/below"),
        ("ls", "nothing"),
        ("stat", "dir/nothing"),
        ("tree", "nothing"),
    ] {
        let outcome = flist.run(args![command, cid, rel]).exits(1);
        assert!(
            outcome.stderr.contains(rel),
            "{command} {rel}: the message names the path: {}",
            outcome.stderr
        );
        assert!(outcome.stdout.is_empty(), "{command} {rel}: nothing on stdout");
    }
}

#[test]
fn ls_and_tree_list_every_name() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::tiny(&source);
    let cid = flist.pack(&source);
    let top = flist.ok(args!["ls", cid]).text();
    let dir = flist.ok(args!["ls", cid, "dir"]).text();
    let tree = flist.ok(args!["tree", cid]).text();
    for name in ["dir", "hello", "link"] {
        assert!(top.contains(name) && tree.contains(name), "{name} in\n{top}\n{tree}");
    }
    for name in ["empty", "hello_again", "noise", "text"] {
        assert!(dir.contains(name) && tree.contains(name), "{name} in\n{dir}\n{tree}");
    }
}

#[test]
fn names_that_are_not_text_cannot_break_the_terminal() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    let tree = harness::tree::Builder::at(&source);
    tree.file("escape\u{1b}[31mred", b"");
    tree.file("new\nline", b"");
    tree.file("bell\u{7}", b"");
    tree.finish();
    let cid = flist.pack(&source);
    for command in ["ls", "tree"] {
        let outcome = flist.ok(args![command, cid]);
        let control = outcome.stdout.iter().filter(|b| **b < b' ' && **b != b'\n' && **b != b'\t').count();
        assert_eq!(control, 0, "{command} prints control bytes: {}", outcome.stdout.escape_ascii());
        assert!(!outcome.text().contains("new\nline"), "{command} breaks a line inside a name");
    }
}

#[test]
fn stat_knows_the_attributes() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    let tree = harness::tree::Builder::at(&source);
    tree.file("file", &[1; 12_345]);
    tree.owner("file", 70_000, 80_000);
    tree.mode("file", 0o4751);
    tree.finish();
    let cid = flist.pack(&source);
    let text = flist.ok(args!["stat", cid, "file"]).text();
    for fact in ["12345", "70000", "80000", "4751"] {
        assert!(text.replace([',', '_'], "").contains(fact), "{fact} in\n{text}");
    }
}

#[test]
fn info_counts_what_is_there() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::seven_megabytes(&source);
    let options =
        ["--entrypoint", "/bin/x", "--env", "A=b", "--workdir", "/w", "--user", "5", "--label", "k=v"];
    let cid = flist.pack_with(&source, &options);
    let info = flist.ok(args!["info", cid, "--json"]).json();
    let number = |key: &str| info[key].as_u64().unwrap_or_else(|| panic!("no number {key}: {info:#}"));
    assert!(info["ref"].as_str().is_some_and(|r| r.contains(&cid)), "{info:#}");
    assert_eq!(
        number("inodes"),
        1 + 1 + 60 + 2 + 5 + 1,
        "root, files/, its files, two big, five tiny, a link"
    );
    let contents: u64 =
        synthetic::files(&source).iter().map(|f| fs::metadata(source.join(f)).unwrap().len()).sum();
    assert_eq!(number("content_bytes"), contents);
    let stored = harness::store::size(flist.store());
    assert!(
        number("stored_bytes") <= stored && number("stored_bytes") > stored / 2,
        "{info:#}\n{stored} in the store"
    );
    assert!(number("blocks") > 5 && number("tree_bytes").is_multiple_of(4096), "{info:#}");
    assert!(number("small_blocks") >= 60 * 15 && number("big_blocks") >= 2 * 384, "{info:#}");
    for fact in ["/bin/x", "A=b", "/w", "k"] {
        assert!(info["config"].to_string().contains(fact), "{fact} in {}", info["config"]);
    }
    assert!(!flist.ok(args!["info", cid]).text().is_empty());
}

#[test]
fn check_is_content_with_a_whole_image_of_every_oddity() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    oddities::build(&source, Scale::FAST);
    let cid = flist.pack(&source);
    flist.ok(args!["check", cid]);
    flist.ok(args!["check", cid, "--json"]).json();
    assert!(
        !flist.cache().join("LOCK").exists() || flist.mounts().is_empty(),
        "check leaves no daemon behind"
    );
}

#[test]
fn unpack_refuses_to_write_into_a_directory_that_is_not_empty() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::tiny(&source);
    let cid = flist.pack(&source);
    let target = place.dir("target");
    fs::write(target.join("hello"), b"mine").unwrap();
    let outcome = flist.run(args!["unpack", cid, target]).exits(1);
    assert!(outcome.stderr.contains("target"), "names the place: {}", outcome.stderr);
    assert_eq!(fs::read(target.join("hello")).unwrap(), b"mine");
}

#[test]
fn completions_and_man_pages_name_every_command() {
    let (flist, place) = (Flist::new(), Place::new());
    let commands = [
        "pack", "mount", "umount", "mounts", "ls", "tree", "cat", "stat", "info", "check", "unpack", "run",
        "cache",
    ];
    for shell in ["bash", "zsh", "fish"] {
        let script = flist.ok(args!["completions", shell]).text();
        for command in commands {
            assert!(script.contains(command), "{command} in the completions for {shell}");
        }
    }
    let bash = place.join("flist.bash");
    fs::write(&bash, flist.ok(args!["completions", "bash"]).stdout).unwrap();
    process::tool("bash", args!["-n", bash]);
    let pages = place.dir("man");
    flist.ok(args!["man", pages]);
    for command in commands {
        let page = pages.join(format!("flist-{command}.1"));
        assert!(page.is_file(), "no {}", page.display());
    }
}

#[test]
fn every_command_explains_itself_and_usage_errors_exit_with_2() {
    let flist = Flist::new();
    let help = flist.ok(args!["--help"]).text();
    for command in [
        "pack", "mount", "umount", "mounts", "ls", "tree", "cat", "stat", "info", "check", "unpack", "run",
        "cache",
    ] {
        assert!(help.contains(command), "{command} in the help");
        assert!(!flist.ok(args![command, "--help"]).text().is_empty());
        flist.run(args![command, "--no-such-option"]).exits(2);
    }
    flist.run(args![]).exits(2);
    flist.run(args!["no-such-command"]).exits(2);
    flist.run(args!["mount"]).exits(2);
    assert!(flist.ok(args!["--version"]).text().contains("flist"));
}
