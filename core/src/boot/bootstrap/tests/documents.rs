//! What files say, and what is none.

use proptest::prelude::*;

use super::super::document::{Document, DocumentError, FILE_MAX, MANY};
use super::super::medium;
use super::WHOLE;

const CID: &str = "bafyreibijbanlsc2dlo74o2vcmxnzgb4gaj5cwjfv526b7biquxrtaaca4";

#[test]
fn all_of_a_file_is_understood_and_most_of_it_is_optional() {
    let document = Document::parse(WHOLE.as_bytes()).unwrap();
    assert_eq!((document.sequence, document.mounts.len(), document.sources.len()), (7, 1, 2));
    let image = document.image.unwrap();
    assert_eq!((image.build_id.0.as_str(), image.sequence), (&*"ab".repeat(32), 3));
    assert_eq!(image.image_cid.to_string(), CID);
    assert_eq!(document.system.unwrap().to_string(), CID);
    assert_eq!(document.controllers[0].to_string(), "https://controller.example.org:8443");
    assert_eq!(document.overlay.unwrap().zerotier, "8056c2e21c000001");
    let least = Document::parse(super::numbered(1).as_bytes()).unwrap();
    assert!(least.image.is_none() && least.system.is_none() && least.redis.is_none());
}

#[test]
fn a_password_and_its_hash_are_the_same() {
    // printf secret | sha256sum
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    for login in ["password: secret".to_owned(), format!("password_sha256: {hash}")] {
        let text = format!("{}redis: {{{login}}}\n", super::numbered(1));
        let document = Document::parse(text.as_bytes()).unwrap();
        assert_eq!(document.redis.unwrap().password_sha256.0, hash, "{login}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let good = "sequence: 1\nexpires: 2030-01-31T12:00:00Z\narch: i64\n";
    let mounted =
        |path: &str| format!("{good}sources: ['http://a']\nmounts: [{{flist: {CID}, path: {path}}}]\n");
    let many = |name: &str, one: &str| format!("{good}{name}: [{}]\n", vec![one; MANY + 1].join(", "));
    for (text, line, said) in [
        (String::new(), 0, ""),
        ("just words".into(), 1, ""),
        ("sequence: 1\narch: i64\n".into(), 0, "expires"),
        ("sequence: 1\nexpires: 2030-01-31T12:00:00Z\n".into(), 0, "arch"),
        ("arch: x86_64\n".into(), 1, "expected one of i64, arm64"),
        ("sequence: -1\nexpires: 2030-01-31T12:00:00Z\n".into(), 1, ""),
        ("sequence: 99999999999999999999\nexpires: 2030-01-31T12:00:00Z\n".into(), 1, ""),
        ("sequence: 1\nexpires: tomorrow\n".into(), 2, "no time"),
        (format!("{good}sequence: 2\n"), 4, "duplicate"),
        (format!("{good}sytem: {CID}\n"), 4, "sytem"),
        (format!("{good}image: {{build_id: abc, image_cid: {CID}, sequence: 1}}\n"), 4, "no SHA-256"),
        (
            format!("{good}image:\n  build_id: {}\n  image_cid: Qm\n  sequence: 1\n", "ab".repeat(32)),
            6,
            "no CID",
        ),
        (format!("{good}system: nothing\n"), 4, "no CID"),
        (format!("{good}redis: {{}}\n"), 4, "either a password or"),
        (format!("{good}redis: {{password: ''}}\n"), 4, "is empty"),
        (
            format!("{good}redis: {{password: a, password_sha256: {}}}\n", "ab".repeat(32)),
            4,
            "either a password or",
        ),
        (format!("{good}redis: {{pasword: a}}\n"), 4, "pasword"),
        (format!("{good}controllers: ['ftp://x']\n"), 4, "ftp://x"),
        (format!("{good}sources: ['dir:/etc']\n"), 4, "begins with http"),
        (format!("{good}sources: ['peer:']\n"), 4, "begins with http"),
        // What is not written out.
        (format!("{good}redis: &a {{password_sha256: x}}\noverlay: *a\n"), 4, "anchor"),
        (format!("{good}controllers: !include /etc/passwd\n"), 4, ""),
        (format!("{good}---\n{good}"), 0, ""),
        (format!("{good}sources: {}{}\n", "[".repeat(5000), "]".repeat(5000)), 0, ""),
        ("{".repeat(60_000), 0, ""),
        // What does not go together.
        (format!("{good}system: {CID}\n"), 0, "need sources"),
        (format!("{good}controllers: ['http://127.0.0.1']\n"), 0, "each node itself"),
        (format!("{good}overlay: {{zerotier: '123'}}\n"), 0, "16 hexadecimal digits"),
        (many("controllers", "'http://a'"), 0, "more than 16 controllers"),
        (many("sources", "'http://a'"), 0, "more than 16 sources"),
        (mounted("/etc"), 0, "no place for an flist"),
        (mounted("var/x"), 0, "no place for an flist"),
        (mounted("/var"), 0, "no place for an flist"),
        (mounted("/var/../etc"), 0, "no place for an flist"),
        (mounted("/run/core0/redis"), 0, "no place for an flist"),
        (mounted("\"/var/\\e[2J\""), 0, "no place for an flist"),
    ] {
        let error = Document::parse(text.as_bytes()).expect_err(&text[..text.len().min(200)]);
        let shown = error.to_string();
        assert!(shown.contains(said), "{:.200}: {shown}", text);
        assert!(shown.len() < 600 && !shown.contains('\n'), "{shown}");
        if let DocumentError::Parse { line: found, .. } = error
            && line > 0
        {
            assert_eq!(found, line, "{text:.200}: {shown}");
        }
    }
}

#[test]
fn bytes_that_are_no_text_and_files_without_end_are_refused() {
    let error = Document::parse(b"sequence: \xff\n").unwrap_err();
    assert!(error.to_string().contains("not UTF-8"), "{error}");
    assert_eq!(Document::parse(&vec![b'#'; FILE_MAX + 1]), Err(DocumentError::Long));
    // Nine levels of nine would be a billion.
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for level in 1..10 {
        let below = vec![format!("*a{}", level - 1); 9].join(",");
        bomb += &format!("a{level}: &a{level} [{below}]\n");
    }
    Document::parse(bomb.as_bytes()).unwrap_err();
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = Document::parse(text.as_bytes());
    }

    #[test]
    fn no_change_of_a_good_file_panics(at in 0..WHOLE.len(), byte: u8, cut in 0..WHOLE.len()) {
        let mut bytes = WHOLE.as_bytes().to_vec();
        bytes[at] = byte;
        let _ = Document::parse(&bytes);
        let _ = Document::parse(&bytes[cut..]);
    }
}

#[test]
fn the_medium_names_the_server_and_one_without_a_file_names_none() {
    let folder = tempfile::tempdir().unwrap();
    assert!(medium::find(folder.path()).unwrap().is_none());
    std::fs::write(folder.path().join("bootstrap_0.yaml"), "url: https://boot.example.org/g8os/\n").unwrap();
    let server = medium::find(folder.path()).unwrap().unwrap();
    let arch = if cfg!(target_arch = "x86_64") { "i64" } else { "arm64" };
    let expected = format!("https://boot.example.org/g8os/bootstrap_{arch}.yaml");
    assert_eq!(medium::file_at(&server).as_str(), expected);
    std::fs::write(folder.path().join("bootstrap.yaml"), "\nurl: nowhere\n").unwrap();
    let error = medium::find(folder.path()).unwrap_err().to_string();
    assert!(error.contains("bootstrap.yaml, line 2: ") && error.contains("nowhere"), "{error}");
    assert!(medium::find(&folder.path().join("missing")).unwrap().is_none());
}

#[test]
fn a_medium_whose_file_is_a_link_a_pipe_a_folder_or_endless_names_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bootstrap.yaml");
    let refused = |said: &str| {
        let error = medium::find(folder.path()).unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
    };
    std::fs::write(folder.path().join("other"), "url: https://boot.example.org\n").unwrap();
    std::os::unix::fs::symlink("other", &path).unwrap();
    refused("cannot read");
    std::fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    refused("it is no file");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    refused("it is no file");
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, format!("url: https://boot.example.org\n{}", "#".repeat(5000))).unwrap();
    refused("more than 4096 bytes");
    std::fs::write(&path, [0xff; 10]).unwrap();
    refused("cannot read");
}

#[tokio::test]
async fn the_kernels_argument_goes_before_the_image_and_the_image_before_what_a_medium_said() {
    let folder = tempfile::tempdir().unwrap();
    let (image, kept) = (folder.path().join("image"), folder.path().join("kept"));
    let write = |folder: &std::path::Path, host: &str| {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("bootstrap.yaml"), format!("url: http://{host}\n")).unwrap();
    };
    let named = |told: Option<&str>| {
        let told = told.map(|told| told.parse().unwrap());
        let named = medium::named(told, &image, &kept).borrow().clone();
        (named.server.map(|server| server.host().to_owned()), named.trouble.is_some())
    };
    write(&kept.join("medium"), "medium.example.org");
    assert_eq!(named(None), (Some("medium.example.org".into()), false));
    write(&image, "image.example.org");
    assert_eq!(named(None), (Some("image.example.org".into()), false));
    assert_eq!(named(Some("http://told.example.org")), (Some("told.example.org".into()), false));
    // An image that should name one, and does not: no stick may take its place.
    write(&image, "no host");
    assert_eq!(named(None), (None, true));
}
