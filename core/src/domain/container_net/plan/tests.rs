use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn wanted(arguments: Value) -> Result<Wanted, PlanError> {
    serde_json::from_value::<NetworkArguments>(arguments).unwrap().plan()
}

fn own(arguments: Value) -> Plan {
    match wanted(arguments).unwrap() {
        Wanted::Own(plan) => plan,
        Wanted::Host => panic!("the network of the node"),
    }
}

fn refused(arguments: Value) -> String {
    wanted(arguments.clone()).expect_err(&arguments.to_string()).to_string()
}

fn nic(name: &str, bridge: Option<&str>, addressing: Addressing) -> Nic {
    let bridge = bridge.map(|name| name.parse().unwrap());
    Nic { name: name.parse().unwrap(), bridge, addressing, hardware: None, dns: Vec::new() }
}

fn fixed(address: &str, gateway: Option<&str>) -> Addressing {
    Addressing::Fixed {
        address: address.parse().unwrap(),
        gateway: gateway.map(|text| text.parse().unwrap()),
    }
}

#[test]
fn what_the_client_of_2017_sends_is_understood() {
    let nothing = json!({"host_network": false, "network": {"zerotier": null, "bridge": null}, "port": null});
    assert_eq!(own(nothing), Plan { nics: vec![nic("eth0", None, Addressing::Pool)], ports: vec![] });
    let all = own(json!({
        "network": {"zerotier": null, "bridge": [["br0", ""], ["br0", "none"], ["br1", "dhcp"], ["br2", "127.0.0.100/24"]]},
        "port": {"8080": 80, "7000": 7000},
    }));
    let nics = [
        nic("eth0", None, Addressing::Pool),
        nic("eth1", Some("br0"), Addressing::None),
        nic("eth2", Some("br0"), Addressing::None),
        nic("eth3", Some("br1"), Addressing::Pool),
        nic("eth4", Some("br2"), fixed("127.0.0.100/24", None)),
    ];
    assert_eq!(all.nics, nics);
    let ports: Vec<_> = all.ports.iter().map(|p| (p.protocol, p.host, p.container)).collect();
    assert!(ports.len() == 2 && ports.contains(&(Protocol::Tcp, 8080, 80)), "{ports:?}");
}

#[test]
fn what_later_clients_send_is_understood() {
    assert_eq!(own(json!({})).nics, [nic("eth0", None, Addressing::Pool)]);
    assert_eq!(own(json!({"nics": []})), Plan::default());
    let plan = own(json!({
        "network": {"zerotier": ""},
        "nics": [
            {"type": "default", "name": "", "id": "", "hwaddr": "", "config": {"dhcp": false, "cidr": "", "gateway": "", "dns": null}},
            {"type": "bridge", "id": "br0", "name": "lan", "hwaddr": "02:00:00:00:00:01",
             "config": {"cidr": "10.0.0.2/24", "gateway": "10.0.0.1", "dns": ["10.0.0.1", "fd00::1"]}},
        ],
        "port": {"53|tcp+udp": 53},
    }));
    let mut lan = nic("lan", Some("br0"), fixed("10.0.0.2/24", Some("10.0.0.1")));
    lan.hardware = Some([2, 0, 0, 0, 0, 1]);
    lan.dns = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    assert_eq!(plan.nics, [nic("eth0", None, Addressing::Pool), lan]);
    assert_eq!(plan.ports.iter().map(|p| p.protocol).collect::<Vec<_>>(), [Protocol::Tcp, Protocol::Udp]);
}

#[test]
fn the_network_of_the_node_leaves_the_rest_aside() {
    let all =
        json!({"host_network": true, "network": {"zerotier": "x", "bridge": [["/", "/"]]}, "port": {"0": 0}});
    assert_eq!(wanted(all).unwrap(), Wanted::Host);
}

#[test]
fn what_this_node_cannot_do_is_said() {
    for arguments in [
        json!({"network": {"zerotier": "8056c2e21c000001"}}),
        json!({"nics": [{"type": "zerotier", "id": "8056c2e21c000001"}]}),
        json!({"nics": [{"type": "vxlan", "id": "7"}]}),
        json!({"nics": [{"type": "default", "monitor": true}]}),
        json!({"port": {"10.0.0.1:80": 80}}),
        json!({"port": {"eth*:80": 80}}),
    ] {
        let said = refused(arguments);
        assert!(said.contains("are not supported by this node"), "{said}");
    }
}

#[test]
fn what_contradicts_itself_or_means_nothing_is_refused() {
    let bridge = |id: &str, config: Value| json!({"nics": [{"type": "bridge", "id": id, "config": config}]});
    let many: Vec<Value> = (0..17).map(|_| json!({"type": "default"})).collect();
    let many_old: Vec<Value> = (0..16).map(|_| json!(["br0", ""])).collect();
    for (arguments, why) in [
        (json!({"nics": [{"type": "loopback"}]}), "none of default and bridge"),
        (json!({"nics": [{"type": "default", "id": "br0"}]}), "has no id"),
        (json!({"nics": [{"type": "bridge"}]}), "needs the name"),
        (json!({"network": {"bridge": [["-br0", ""]]}}), "no name of a link"),
        (json!({"network": {"bridge": [["", ""]]}}), "needs the name"),
        (json!({"network": {"bridge": [["../../x", "dhcp"]]}}), "no name of a link"),
        (json!({"network": {"bridge": [["br0", "DHCP"]]}}), "no address with a prefix"),
        (json!({"network": {"bridge": [["br0", "10.0.0.2"]]}}), "no address with a prefix"),
        (json!({"network": {"bridge": [["br0", "10.0.0.0/24"]]}}), "no address of a host"),
        (json!({"network": {"bridge": [["br0", "10.0.0.255/24"]]}}), "no address of a host"),
        (json!({"network": {"bridge": []}, "nics": []}), "use one of them"),
        (bridge("br0", json!({"cidr": "10.0.0.2/24", "dhcp": true})), "not both"),
        (bridge("br0", json!({"gateway": "10.0.0.1"})), "needs an address"),
        (bridge("br0", json!({"cidr": "10.0.0.2/24", "gateway": "10.0.1.1"})), "no neighbour"),
        (bridge("br0", json!({"cidr": "10.0.0.2/24", "gateway": "10.0.0.2"})), "no neighbour"),
        (bridge("br0", json!({"cidr": "10.0.0.2/24", "gateway": "fd00::1"})), "no neighbour"),
        (bridge("br0", json!({"dns": ["dns.example"]})), "DNS server"),
        (bridge("br0", json!({"dns": ["1.1.1.1", "1.1.1.1", "1.1.1.1", "1.1.1.1"]})), "more than the 3"),
        (json!({"nics": [{"type": "default", "hwaddr": "01:00:00:00:00:01"}]}), "no hardware address"),
        (json!({"nics": [{"type": "default", "name": "lo"}]}), "cannot have the name lo"),
        (json!({"nics": [{"type": "default", "name": "a b"}]}), "no name of a link"),
        (json!({"nics": [{"type": "default"}, {"type": "default", "name": "eth0"}]}), "two NICs"),
        (json!({ "nics": many }), "more than the 16"),
        (json!({"network": {"bridge": many_old}}), "more than the 16"),
        (json!({"port": {"0": 80}}), "no port of the node"),
        (json!({"port": {"65536": 80}}), "no port of the node"),
        (json!({"port": {"+80": 80}}), "no port of the node"),
        (json!({"port": {"": 80}}), "no port of the node"),
        (json!({"port": {"80 drop": 80}}), "no port of the node"),
        (json!({"port": {"80": 0}}), "no port of the container"),
        (json!({"port": {"80": -1}}), "no port of the container"),
        (json!({"port": {"80": 65536}}), "no port of the container"),
        (json!({"port": {"80|sctp": 80}}), "none of tcp and udp"),
        (json!({"port": {"80|": 80}}), "none of tcp and udp"),
        (json!({"port": {"80": 80, "080": 81}}), "given twice"),
        (json!({"port": {"80|tcp+tcp": 80}}), "given twice"),
        (json!({"nics": [], "port": {"80": 80}}), "none of its NICs has one"),
        (
            json!({"nics": [{"type": "bridge", "id": "b", "config": {"cidr": "fd00::2/64"}}], "port": {"80": 80}}),
            "none",
        ),
    ] {
        let said = refused(arguments);
        assert!(said.contains(why), "{said:?} does not say {why:?}");
    }
}

#[test]
fn a_port_twice_in_one_object_is_not_lost() {
    let twice = r#"{"port": {"80": 80, "80": 81}}"#;
    let error = serde_json::from_str::<NetworkArguments>(twice).unwrap().plan().unwrap_err();
    assert_eq!(error.to_string(), "port 80/tcp is given twice");
    let many: serde_json::Map<String, Value> = (1..=129).map(|port| (port.to_string(), json!(1))).collect();
    let error = serde_json::from_value::<NetworkArguments>(json!({ "port": many })).unwrap_err();
    assert!(error.to_string().contains("more than 128"), "{error}");
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,20}",
        "(eth|br|lo|-)?[0-9a-z._/ \"{};-]{0,18}",
        "[0-9]{1,3}(\\.[0-9]{1,3}){3}(/[0-9]{1,3})?",
        Just("dhcp".to_owned()),
        Just("none".to_owned()),
        Just(String::new()),
    ]
}

prop_compose! {
    fn nics()(nics in prop::collection::vec((prop_oneof![Just("default".to_owned()), Just("bridge".to_owned()), text()],
                                             text(), text(), text(), any::<bool>(), text(), text()), 0..4)) -> Vec<Value> {
        let one = |(kind, id, name, hwaddr, dhcp, cidr, gateway)| json!({"type": kind, "id": id, "name": name, "hwaddr": hwaddr,
            "config": {"dhcp": dhcp, "cidr": cidr, "gateway": gateway}});
        nics.into_iter().map(one).collect()
    }
}

prop_compose! {
    fn arguments()(nics in nics(), old in prop::collection::vec((text(), text()), 0..4), old_form in any::<bool>(),
                   ports in prop::collection::vec((prop_oneof!["[0-9]{1,6}(\\|(tcp|udp|tcp\\+udp))?", text()], any::<i32>()), 0..4)) -> Value {
        let ports: serde_json::Map<String, Value> = ports.into_iter().map(|(host, to)| (host, json!(to))).collect();
        if old_form { json!({"network": {"bridge": old}, "port": ports}) } else { json!({"nics": nics, "port": ports}) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is sent, it is refused in words that a line can hold, or it is a plan that can be carried out.
    #[test]
    fn a_plan_never_contradicts_itself(arguments in arguments()) {
        match wanted(arguments) {
            Err(error) => prop_assert!(error.to_string().len() < 1000),
            Ok(Wanted::Host) => prop_assert!(false, "nobody asked for the network of the node"),
            Ok(Wanted::Own(plan)) => {
                let names: HashSet<_> = plan.nics.iter().map(|nic| nic.name.to_string()).collect();
                prop_assert_eq!(names.len(), plan.nics.len());
                prop_assert!(plan.nics.len() <= MAX_NICS);
                let ports: HashSet<_> = plan.ports.iter().map(|port| (port.protocol, port.host)).collect();
                prop_assert_eq!(ports.len(), plan.ports.len());
                prop_assert!(plan.ports.iter().all(|port| port.host > 0 && port.container > 0));
                for nic in &plan.nics {
                    if let Addressing::Fixed { address, gateway } = nic.addressing {
                        prop_assert!(address.is_host());
                        prop_assert!(gateway.is_none_or(|gateway| address.contains(gateway) && gateway != address.address));
                    }
                }
            }
        }
    }
}
