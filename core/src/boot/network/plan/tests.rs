//! What a plan is, and what is none.

use proptest::prelude::*;

use super::*;

/// All that a plan can say.
pub const WHOLE: &str = r#"
controllers = ["https://controller.example.org:8443", "http://10.0.0.5", "https://[fd00::5]"]
dns = ["10.0.0.1", "fd00::1"]
search = ["example.org"]

[link.eth0]
address = "dhcp"

[link.eth1]
mac = "02:00:00:00:00:01"
address = "10.0.0.9/24"
gateway = "10.0.0.1"
mtu = 9000

[link."eth1.7"]
vlan = { on = "eth1", id = 7 }
address = "10.7.0.9/24"

[link.br0]
bridge = { ports = ["tap0", "eth2"] }
address = "fd00::9/64"

[link.eth2]

[link.tap0]
tap = {}

[link.vx0]
vxlan = { id = 42, on = "eth1.7", remote = "239.1.1.1" }
"#;

#[test]
fn all_of_a_plan_is_understood() {
    let plan = Plan::parse(WHOLE).unwrap();
    let hosts: Vec<(&str, u16)> = plan.controllers.iter().map(|c| (c.host(), c.port())).collect();
    assert_eq!(hosts, [("controller.example.org", 8443), ("10.0.0.5", 80), ("fd00::5", 443)]);
    assert_eq!(plan.controllers[2].to_string(), "https://[fd00::5]:443");
    assert_eq!(plan.links[&"eth0".parse().unwrap()].address, Some(Address::Dhcp));
    assert_eq!(plan.links[&"vx0".parse().unwrap()].vxlan.as_ref().unwrap().port, 4789);
    assert_eq!(plan.bridge_of("eth2").map(|name| &**name), Some("br0"));
    let order: Vec<&str> = plan.order().unwrap().iter().map(|name| &***name).collect();
    let at = |name: &str| order.iter().position(|other| *other == name).unwrap();
    assert!(at("eth1") < at("eth1.7") && at("eth1.7") < at("vx0"), "{order:?}");
    assert!(at("tap0") < at("br0") && at("eth2") < at("br0"), "{order:?}");
    assert_eq!(Plan::parse("").unwrap(), Plan::default());
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    let cases = [
        ("controllers = [", "line 1"),
        ("\n\ncontroller = []", "line 3: unknown field `controller`"),
        ("controllers = [\"ftp://x\"]", "http://HOST"),
        ("controllers = [\"https://u:p@x\"]", "a user"),
        ("controllers = [\"http://x:0\"]", "port 0"),
        (
            "controllers = [\"http://10.0.0.5\", \"http://127.0.0.1\"]",
            "http://127.0.0.1:80 is each node itself",
        ),
        ("dns = [\"0.0.0.0\"]", "resolves no names"),
        ("search = [\"a b\"]", "no domain"),
        ("[link.\"a b\"]", "no name of a link"),
        ("[link.eth0]\naddress = \"10.0.0.0/24\"", "no address that a node can have"),
        ("[link.eth0]\naddress = \"10.0.0.1\"", "no address with a prefix length"),
        ("[link.eth0]\naddress = \"10.0.0.9/24\"\ngateway = \"10.0.1.1\"", "not in the network"),
        ("[link.eth0]\naddress = \"10.0.0.9/24\"\ngateway = \"10.0.0.9\"", "own address"),
        ("[link.eth0]\naddress = \"dhcp\"\ngateway = \"10.0.0.9\"", "needs an address"),
        ("[link.eth0]\nmtu = 5", "mtu"),
        ("[link.v]\nvlan = { on = \"eth0\", id = 4095 }", "1 to 4094"),
        ("[link.v]\nvlan = { on = \"eth0\", id = 5 }\ntap = {}", "more than one kind"),
        ("[link.v]\nvxlan = { id = 16777216, remote = \"10.0.0.1\" }", "below 16777216"),
        ("[link.v]\nvxlan = { id = 1, remote = \"239.0.0.1\" }", "`on` is missing"),
        ("[link.t]\ntap = {}\nmac = \"02:00:00:00:00:01\"", "is made"),
        ("[link.b]\nbridge = { ports = [\"b\"] }", "no bridge itself"),
        ("[link.b]\nbridge = { ports = [\"a\"] }\n[link.a]\naddress = \"dhcp\"", "a port has no address"),
        ("[link.b]\nbridge = { ports = [\"a\"] }\n[link.c]\nbridge = { ports = [\"a\"] }", "a port already"),
        (
            "[link.a]\nvlan = { on = \"b\", id = 1 }\n[link.b]\nvlan = { on = \"a\", id = 1 }",
            "lie on each other: a, b",
        ),
    ];
    for (text, words) in cases {
        let error = Plan::parse(text).unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains('\n'), "{text}: {error}");
    }
    let links: String = (0..=LINKS).map(|number| format!("[link.e{number}]\n")).collect();
    assert!(Plan::parse(&links).unwrap_err().to_string().contains("128 links"));
    assert!(Plan::parse(&"#".repeat(FILE_MAX as usize + 1)).is_err());
}

#[test]
fn who_is_each_node_itself_is_no_controller_however_that_is_written() {
    let own = [
        "127.0.0.1",
        "127.1",
        "0x7f.9.9.9",
        "0.0.0.0",
        "0",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:0.0.0.0]",
        "localhost",
        "LocalHost.",
        "a.localhost",
    ];
    for host in own {
        let endpoint: Endpoint = format!("https://{host}:8443").parse().unwrap();
        assert!(judge_controllers(&[endpoint]).unwrap_err().contains("each node itself"), "{host}");
    }
    for host in ["10.0.0.1", "[fd00::1]", "[::ffff:10.0.0.1]", "localhost.example.org", "mylocalhost"] {
        let endpoint: Endpoint = format!("https://{host}:8443").parse().unwrap();
        assert_eq!(judge_controllers(&[endpoint]), Ok(()), "{host}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_plan_or_an_error_of_one_line(text in "\\PC{0,200}", cut in 0usize..600) {
        // And any beginning of a whole one.
        for text in [text.as_str(), WHOLE.get(..cut.min(WHOLE.len())).unwrap_or_default()] {
            if let Err(e) = Plan::parse(text) {
                prop_assert!(!e.to_string().contains('\n'), "{}", e);
            }
        }
    }
}
