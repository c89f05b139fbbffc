use g8_cache::Codec;
use proptest::prelude::*;

use super::*;

fn entry(byte: u8) -> Entry {
    let hints = "gw=https://gw.example.org&peer=/ip4/1.1.1.1/tcp/4001/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC";
    Entry::now(BlockId::of(Codec::DagCbor, &[byte]), hints.parse().unwrap())
}

#[test]
fn a_name_leads_where_it_was_last_set_until_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let names = Names::new(&dir.path().join("names"));
    assert_eq!(names.get(Kind::Tag, "a").unwrap(), None);
    assert!(names.list(Kind::Tag).unwrap().is_empty());
    for (name, byte) in [("a/b.c", 1), ("a", 2), ("a/b.c", 3)] {
        names.set(Kind::Tag, name, &entry(byte)).unwrap();
        assert_eq!(names.get(Kind::Tag, name).unwrap().unwrap(), entry(byte));
    }
    assert_eq!(names.get(Kind::Ipns, "a").unwrap(), None, "kinds are apart");
    names.set(Kind::Ipns, "Example.org", &entry(4)).unwrap();
    let listed: Vec<_> =
        names.list(Kind::Tag).unwrap().into_iter().map(|(n, e)| (n, e.unwrap().id)).collect();
    assert_eq!(listed, [("a".into(), entry(2).id), ("a/b.c".into(), entry(3).id)]);
    assert!(names.remove(Kind::Tag, "a/b.c").unwrap());
    assert!(!names.remove(Kind::Tag, "a/b.c").unwrap());
    assert_eq!(names.get(Kind::Tag, "a/b.c").unwrap(), None);
}

#[test]
fn a_damaged_file_is_an_error_that_names_it_and_hides_no_other_name() {
    let dir = tempfile::tempdir().unwrap();
    let names = Names::new(dir.path());
    names.set(Kind::Tag, "good", &entry(1)).unwrap();
    names.set(Kind::Tag, "bad", &entry(2)).unwrap();
    let path = dir.path().join("tag/bad");
    let right = fs::read(&path).unwrap();
    let other = String::from_utf8(right.clone()).unwrap();
    let (other_name, other_version) = (other.replace("bad", "bax"), other.replace("\"v\":1", "\"v\":2"));
    let long = format!("{}{other}", " ".repeat(MAX_FILE as usize));
    for bytes in [
        &b""[..],
        b"{}",
        b"\xff\xff",
        &right[..right.len() / 2],
        other_name.as_bytes(),
        other_version.as_bytes(),
        long.as_bytes(),
        &[0; 100],
    ] {
        fs::write(&path, bytes).unwrap();
        let error = names.get(Kind::Tag, "bad").unwrap_err();
        assert!(matches!(error, NamesError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        let list = names.list(Kind::Tag).unwrap();
        assert!(list[0].1.is_err() && list[1].1.is_ok(), "{list:?}");
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    names.get(Kind::Tag, "bad").unwrap_err();
    fs::remove_dir(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    names.get(Kind::Tag, "bad").unwrap_err();
    names.remove(Kind::Tag, "bad").unwrap();
    names.set(Kind::Tag, "bad", &entry(3)).unwrap();
    assert_eq!(names.get(Kind::Tag, "bad").unwrap().unwrap(), entry(3));
}

#[test]
fn whoever_reads_while_others_write_finds_one_address_or_another() {
    let dir = tempfile::tempdir().unwrap();
    let names = Names::new(dir.path());
    names.set(Kind::Tag, "busy", &entry(0)).unwrap();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3u8)
            .map(|byte| {
                scope.spawn({
                    let names = &names;
                    move || (0..30).for_each(|_| names.set(Kind::Tag, "busy", &entry(byte)).unwrap())
                })
            })
            .collect();
        while !writers.iter().all(|writer| writer.is_finished()) {
            let id = names.get(Kind::Tag, "busy").unwrap().expect("it never goes").id;
            assert!((0..3).any(|byte| entry(byte).id == id));
        }
    });
    assert_eq!(fs::read_dir(dir.path().join("tag")).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn no_name_leaves_its_folder() {
    let names = Names::new(Path::new("/nowhere"));
    for name in ["", ".", "..", "../x", "a\0b", "a+b", "a b", "é", &"x".repeat(254)] {
        assert!(matches!(names.get(Kind::Ipns, name), Err(NamesError::Unfit(_))), "{name:?}");
    }
}

#[test]
fn a_tag_is_no_path_and_no_cid() {
    for good in ["a", "0", "debian/12", "a.b-c_d/e..f", "ipfs", &"x".repeat(MAX_TAG)] {
        assert_eq!(good.parse::<Tag>().unwrap().as_str(), good);
    }
    let cid = entry(1).id.to_string();
    let typo = cid.replace("bafyrei", "bafyre1");
    for bad in [
        "",
        "A",
        "/a",
        "a/",
        "a//b",
        "a/../b",
        ".a",
        "-a",
        "a b",
        "a+b",
        "a?b",
        "é",
        "a\n",
        &"x".repeat(MAX_TAG + 1),
        &cid,
        &typo,
        &format!("x/ipfs/{cid}"),
    ] {
        bad.parse::<Tag>().unwrap_err();
    }
}

proptest! {
    #[test]
    fn every_tag_can_be_kept(text in "[a-z0-9][a-z0-9._/-]{0,40}") {
        if let Ok(tag) = text.parse::<Tag>() {
            prop_assert!(Names::new(Path::new("/n")).path(Kind::Tag, tag.as_str()).is_ok());
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = text.parse::<Tag>();
        let _ = Names::new(Path::new("/n")).path(Kind::Ipns, &text);
    }
}
