use g8_cache::Codec;
use proptest::prelude::*;

use super::*;
use crate::source::Spec;

const PEER: &str = "/ip4/1.1.1.1/tcp/4001/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC";

fn id() -> BlockId {
    BlockId::of(Codec::DagCbor, b"root")
}

fn parse(text: &str) -> Reference {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn every_spelling_of_an_address_is_the_same_reference() {
    let cid = id().to_string();
    for text in [cid.clone(), format!("ipfs://{cid}"), format!("/ipfs/{cid}"), format!("{cid}?")] {
        assert_eq!(parse(&text), id().into());
    }
    assert_eq!(Reference::from(id()).to_string(), cid);
    for text in ["ipns://example.org", "/ipns/example.org"] {
        assert_eq!(parse(text).target, Target::Name("example.org".into()));
    }
    assert_eq!(parse("debian/12").target, Target::Tag("debian/12".parse().unwrap()));
}

#[test]
fn hints_are_read_in_order_and_printed_back() {
    let text = format!("{}?gw=https://a.example/x%26y&peer={PEER}&gw=http://b.example:81", id());
    let reference = parse(&text);
    let gateways = reference.hints.gateways(Reach::Public).unwrap();
    assert!(matches!(&gateways[..], [Spec::Hint(_), Spec::Hint(_)]));
    let anywhere = reference.hints.gateways(Reach::Anywhere).unwrap();
    let names: Vec<String> = anywhere.iter().map(Spec::to_string).collect();
    assert_eq!(names, ["https://a.example/x&y", "http://b.example:81"]);
    assert_eq!(reference.peers(Reach::Public).unwrap()[0].to_string(), PEER);
    let printed = reference.to_string();
    assert_eq!(parse(&printed), reference, "{printed}");
}

#[test]
fn what_is_no_reference_says_why() {
    let cid = id().to_string();
    let nine = |hint: &str| [hint; 9].join("&");
    let bad = [
        (String::new(), "neither the address"),
        ("Debian".into(), "neither the address"),
        (cid.to_uppercase(), "not the address"),
        (cid.replace("bafyrei", "bafyre1"), "not the address"),
        ("QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC".into(), "not the address"),
        ("ipfs://debian".into(), "not the address"),
        (format!("ipfs://{cid}/etc"), "not the address"),
        ("ipns://".into(), "is no name"),
        ("/ipns/a/b".into(), "is no name"),
        (format!("ipns://{}", "x".repeat(254)), "is no name"),
        (format!("{cid}?x=y"), "unknown hint"),
        (format!("{cid}?profile=x"), "no address of one"),
        (format!("{cid}?profile={}", BlockId::of(Codec::Raw, b"data")), "no address of one"),
        (format!("{cid}?profile={cid}&profile={cid}"), "one profile, not two"),
        (format!("{cid}?gw"), "not the URL of a gateway"),
        (format!("{cid}?gw=ftp://a"), "not the URL of a gateway"),
        (format!("{cid}?gw=http://a?b"), "not the URL of a gateway"),
        (format!("{cid}?gw=http://me:secret@a"), "has credentials"),
        (format!("{cid}?gw=%ff"), "not UTF-8"),
        (format!("{cid}?{}", nine("gw=http://a.example")), "more than 8 gw hints"),
        (format!("{cid}?{}", nine(&format!("peer={PEER}"))), "more than 8 peer hints"),
        (format!("{cid}?peer=/ip4/1.1.1.1/tcp/4001"), "no address of a node"),
        (
            format!("{cid}?peer=/unix/run/x/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC"),
            "no address of a node",
        ),
        (format!("{cid}?peer=1.1.1.1"), "no address of a node"),
        (format!("{cid}?gw=http://{}", "a".repeat(2000)), "longer than"),
        (format!("{cid}?gw=http://{}", "a".repeat(9000)), "more than 8192"),
    ];
    for (text, words) in bad {
        let error = text.parse::<Reference>().expect_err(&text);
        assert!(error.to_string().contains(words), "{text}: {error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
}

#[test]
fn hints_lead_to_public_addresses_unless_the_user_says_otherwise() {
    let cid = id();
    let at = |address: &str| PEER.replace("/ip4/1.1.1.1", address);
    let private = [
        "gw=http://127.0.0.1:8080".into(),
        "gw=http://127.1".into(),
        "gw=http://0x7f000001".into(),
        "gw=http://2130706433".into(),
        "gw=https://169.254.169.254".into(),
        "gw=http://[::1]:80".into(),
        "gw=http://[::ffff:10.0.0.1]".into(),
        "gw=http://10.0.0.1&gw=https://example.org".into(),
        format!("peer={}", at("/ip4/192.168.1.1")),
        format!("peer={}", at("/ip6/fe80::1")),
        format!("peer={}", at("/dns4/example.org")),
        format!("peer={}", at("/dnsaddr/example.org")),
        format!("peer={PEER}/p2p-circuit/ip4/10.0.0.1/tcp/1{}", &PEER[PEER.find("/p2p").unwrap()..]),
    ];
    for hint in private {
        let hints = parse(&format!("{cid}?{hint}")).hints;
        let refused = hints.gateways(Reach::Public).err().or(hints.peers(Reach::Public).err());
        let refused = refused.unwrap_or_else(|| panic!("{hint} is followed"));
        assert!(refused.to_string().contains("--allow-private-hints"), "{hint}: {refused}");
        hints.gateways(Reach::Anywhere).unwrap();
        hints.peers(Reach::Anywhere).unwrap();
    }
}

#[test]
fn a_profile_is_printed_back_and_that_of_the_reference_comes_before_that_of_its_name() {
    let (one, two) = (BlockId::of(Codec::DagCbor, b"one"), BlockId::of(Codec::DagCbor, b"two"));
    let reference = parse(&format!("{}?profile={one}&gw=https://a.example", id()));
    assert_eq!(reference.hints.profile(), Some(one));
    assert_eq!(reference.to_string(), format!("{}?gw=https://a.example&profile={one}", id()));
    let mut hints = Hints::default();
    hints.extend(&reference.hints);
    assert_eq!(hints.profile(), Some(one));
    let mut hints = hints.with_profile(two);
    hints.extend(&reference.hints);
    assert_eq!(hints.profile(), Some(two));
    assert!(!Hints::default().with_profile(two).is_empty());
}

#[test]
fn names_become_addresses_in_one_place() {
    use crate::names::{Entry, Kind, Names};
    let dir = tempfile::tempdir().unwrap();
    let names = Names::new(dir.path());
    let hints: Hints = "gw=https://kept.example".parse().unwrap();
    names.set(Kind::Tag, "mine", &Entry::now(id(), hints)).unwrap();
    let resolved = resolve(&parse("mine?gw=https://given.example"), Some(&names)).unwrap();
    assert_eq!((resolved.id, resolved.name.as_deref()), (id(), Some("mine")));
    assert_eq!(resolved.hints.to_string(), "gw=https://given.example&gw=https://kept.example");
    assert_eq!(resolve(&id().into(), None).unwrap().name, None);
    assert!(matches!(resolve(&parse("other"), Some(&names)), Err(ResolveError::NoTag(_))));
    assert!(matches!(resolve(&parse("other"), None), Err(ResolveError::NoPlace(_))));
    assert!(matches!(resolve(&parse("ipns://x"), Some(&names)), Err(ResolveError::NoResolver(_))));
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,9}\\.example", "(1[0-9]{2}|[1-9]?[0-9])(\\.[0-9]{1,2}){3}"]
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,300}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn no_hints_panic_and_what_is_printed_reads_back(text in "(gw|peer|profile)=(https?://|/ip4/|/dns/)\\PC{0,60}(&gw=http://[a-z%&#+?/.0-9]{1,20}){0,3}") {
        if let Ok(hints) = text.parse::<Hints>() {
            prop_assert_eq!(hints.to_string().parse::<Hints>().unwrap(), hints);
        }
    }

    #[test]
    fn printing_parses_back(digest: [u8; 32], hosts in prop::collection::vec((host(), "[ -~]{0,20}"), 0..=8), kind in 0..3) {
        let target = match kind {
            0 => BlockId::new(Codec::DagCbor, digest).to_string(),
            1 => "ipns://k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8".into(),
            _ => "a/tag.1".into(),
        };
        let mut text = format!("{target}?profile={}&peer={PEER}", BlockId::new(Codec::DagCbor, digest));
        for (host, path) in hosts {
            let path: String = path.bytes().filter(|b| !matches!(b, b'?' | b'#')).map(|b| format!("%{b:02x}")).collect();
            text.push_str(&format!("&gw=http://{host}/{path}"));
        }
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
    }
}
