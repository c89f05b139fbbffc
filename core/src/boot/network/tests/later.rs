//! Links that come, go and change after the links were set up.

use super::*;

/// Whether a network has exactly these links.
fn is_on(up: &Up, links: &[&str]) -> bool {
    let mut names: Vec<&str> = up.links.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names == links && up.trouble.is_none()
}

/// The driver of the NIC for storage took 5 s, a lease on another 1 s: the former was never set up.
#[test]
fn a_nic_that_appears_while_there_is_a_network_is_set_up_as_configured_with_what_lies_on_it() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        let _server = far.dnsmasq("eth0", 0, 50);
        let plan = r#"
            [link.storage]
            mac = "02:00:00:00:00:07"
            address = "10.0.0.9/24"
            [link.vx0]
            vxlan = { id = 42, on = "storage", remote = "239.1.1.1" }
            address = "10.7.0.9/24"
        "#;
        Node::plan(folder.path(), plan);
        let mut node = Node::new(folder.path()).await;
        // DHCP was tried on eth0: it differs from the plan, and has to stay so.
        let first = node.until_up().await;
        let trouble = first.trouble.unwrap();
        assert!(trouble.contains("link storage: no link"), "{trouble}");
        for _ in ["new", "back, with another index"] {
            // Nothing is plugged into it yet, and nobody waits for that.
            far.cable_of("eth1", "02:00:00:00:00:07").await;
            node.until_it_has(|up| is_on(up, &["eth0", "eth1", "vx0"])).await;
            let shown = sh("ip -d addr show eth1; ip -d addr show vx0").await;
            for words in ["inet 10.0.0.9/24", "inet 10.7.0.9/24", "vxlan id 42"] {
                assert!(shown.contains(words), "{words}: {shown}");
            }
            sh("ip link delete eth1").await;
            let gone = |up: &Up| up.links.len() == 1 && up.trouble.as_deref() == Some(trouble.as_str());
            let State::Up(last) = node.until_it_has(gone).await else { unreachable!("that was waited for") };
            assert_eq!(last.links, first.links);
        }
        assert!(sh("ip route").await.contains("default via 10.77.0.1 dev eth0"));
    });
}

#[test]
fn a_second_nic_that_is_answered_later_joins_the_network_and_one_is_enough_when_the_other_is_gone() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        for (nic, net) in [("eth0", 0), ("eth1", 1)] {
            far.cable(nic).await;
            far.plug(nic, net).await;
        }
        let _first = far.dnsmasq("eth0", 0, 50);
        Node::plan(folder.path(), "[link.eth0]\naddress = \"dhcp\"\n[link.eth1]\naddress = \"dhcp\"\n");
        let mut node = Node::new(folder.path()).await;
        assert!(is_on(&node.until_up().await, &["eth0"]));
        let _second = far.dnsmasq("eth1", 1, 50);
        node.until_it_has(|up| is_on(up, &["eth0", "eth1"])).await;
        // The better way out is gone, with its NIC.
        sh("ip link delete eth0").await;
        let State::Up(up) = node.until_it_has(|up| up.links.len() == 1).await else { unreachable!() };
        assert_eq!((up.links[0].0.as_str(), up.gateway), ("eth1", Some([10, 77, 1, 1].into())));
        // And with the last one all of it.
        sh("ip link delete eth1").await;
        node.until_it_waits_for("no NIC").await;
    });
}

#[test]
fn a_nic_that_appears_after_the_look_ends_the_pause() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        let (state, _seen) =
            watch::channel(State::Searching { why: "its turn".into(), addresses: Vec::new() });
        let mut search = Search::new(setup(folder.path()), state);
        // Nobody tells of it any more when the pause begins.
        far.cable("eth0").await;
        let rested = tokio::time::timeout(PATIENCE, search.rest(2 * PATIENCE)).await;
        assert!(rested.is_ok(), "it pauses though there is a new NIC");
        // The links could not be set up meanwhile: that is no reason to search without a pause.
        let rested = tokio::time::timeout(Duration::from_secs(3), search.rest(2 * PATIENCE)).await;
        assert!(rested.is_err(), "it does not pause");
    });
}

#[test]
fn a_second_nic_that_is_answered_while_the_controller_is_away_takes_nothing_from_the_network() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        for (nic, net) in [("eth0", 0), ("eth1", 1)] {
            far.cable(nic).await;
            far.plug(nic, net).await;
        }
        let _first = far.dnsmasq("eth0", 0, 50);
        let controller = far.controller("10.77.0.1", 8443);
        let plan = "controllers = [\"http://10.77.0.1:8443\"]\n[link.eth1]\naddress = \"dhcp\"\n";
        Node::plan(folder.path(), plan);
        let mut node = Node::new(folder.path()).await;
        assert!(is_on(&node.until_up().await, &["eth0"]));
        drop(controller);
        let _second = far.dnsmasq("eth1", 1, 50);
        node.until_it_has(|up| is_on(up, &["eth0", "eth1"])).await;
        let lost = node.until(|state| matches!(state, State::Searching { .. }));
        assert!(
            tokio::time::timeout(Duration::from_secs(8), lost).await.is_err(),
            "a controller may go away"
        );
    });
}

/// Each link of a container ended the pause, and so a node without a controller searched all the time.
#[test]
fn links_of_others_do_not_end_a_pause_and_a_cable_does() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let (state, _seen) =
            watch::channel(State::Searching { why: "its turn".into(), addresses: Vec::new() });
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        let mut search = Search::new(setup(folder.path()), state);
        search.configure().await.unwrap();
        let others = tokio::spawn(async {
            loop {
                sh("ip link add br7 type bridge; ip link set br7 up; ip link delete br7").await;
                sh("ip tuntap add mode tap name t7; ip link set t7 up; ip link delete t7").await;
            }
        });
        let rested = tokio::time::timeout(Duration::from_secs(6), search.rest(2 * PATIENCE)).await;
        assert!(rested.is_err(), "the links of others end its pause");
        let pull = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            far.run("ip link set far-eth0 down").await;
        };
        let rested = tokio::time::timeout(PATIENCE, async { tokio::join!(search.rest(2 * PATIENCE), pull) });
        assert!(rested.await.is_ok(), "it pauses though a cable is pulled");
        others.abort();
        // What happened before it paused ends it too.
        far.run("ip link set far-eth0 up").await;
        let rested = tokio::time::timeout(PATIENCE, search.rest(2 * PATIENCE)).await;
        assert!(rested.is_ok(), "it pauses though a cable was plugged in");
    });
}

/// The address and the default route of the NIC were set on what others made on it, too.
#[test]
fn what_others_make_on_a_nic_inherits_its_hardware_address_and_nothing_of_the_plan() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable_of("eth0", "02:00:00:00:00:07").await;
        far.plug("eth0", 0).await;
        // Of the same address, and first in the order of their numbers or names.
        sh("ip link add a0 address 02:00:00:00:00:07 type bridge; ip link set a0 up").await;
        sh("ip tuntap add mode tap name z0; ip link set z0 address 02:00:00:00:00:07 up").await;
        let plan =
            "[link.wan]\nmac = \"02:00:00:00:00:07\"\naddress = \"10.77.0.9/24\"\ngateway = \"10.77.0.1\"\n";
        Node::plan(folder.path(), plan);
        let up = Node::new(folder.path()).await.until_up().await;
        assert!(is_on(&up, &["eth0"]), "{up}");
        assert_eq!(sh("ip -4 addr show a0; ip -4 addr show z0").await, "");
        assert_eq!(sh("ip route show default").await.lines().count(), 1);
    });
}
