//! Leases: one NIC of three, late servers, lost and changed leases, cables that move.

use super::*;

#[test]
fn what_is_missing_is_said() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let mut node = Node::new(folder.path()).await;
        node.until_it_waits_for("no NIC").await;
        let far = Far::new().await;
        far.cable("eth0").await;
        node.until_it_waits_for("no carrier on eth0").await;
    });
}

#[test]
fn the_one_nic_of_three_that_is_plugged_in_becomes_the_network() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        for nic in ["eth0", "eth1", "eth2"] {
            far.cable(nic).await;
        }
        far.plug("eth1", 0).await;
        let _server = far.dnsmasq("eth1", 0, 50);
        let mut node = Node::new(folder.path()).await;
        let up = node.until_up().await;
        let (link, address) = &up.links[0];
        assert_eq!((up.links.len(), link.as_str(), address.prefix), (1, "eth1", 24));
        assert_eq!(up.gateway, Some([10, 77, 0, 1].into()));
        assert_eq!(up.to_string(), format!("eth1 {address} by 10.77.0.1"));
        assert!(sh("ip -4 addr show eth1").await.contains(&address.to_string()));
        assert!(sh("ip route").await.contains("default via 10.77.0.1 dev eth1"));
        let resolver = std::fs::read_to_string(folder.path().join("resolv.conf")).unwrap();
        assert_eq!(resolver, "search example.org\nnameserver 10.77.0.1\noptions timeout:1 attempts:2\n");
        assert_eq!(sh("ip -4 addr show eth0; ip -4 addr show eth2").await, "");
        // A manager that was started anew finds all that there, and takes it for its own.
        node.kill().await;
        Node::new(folder.path()).await.until_up().await;
        assert_eq!(sh("ip -4 addr show eth1").await.matches("inet ").count(), 1);
    });
}

#[test]
fn a_server_and_a_cable_that_come_late_are_found() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable("eth0").await;
        let mut node = Node::new(folder.path()).await;
        node.until_it_waits_for("no carrier on eth0").await;
        far.plug("eth0", 0).await;
        node.until_it_waits_for("eth0: no lease").await;
        let _server = far.dnsmasq("eth0", 0, 50);
        node.until_up().await;
    });
}

#[test]
fn a_lease_is_renewed_and_a_network_whose_server_is_gone_is_lost_and_found_again() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        let server = far.udhcpd("eth0", 0, 16);
        let mut node = Node::new(folder.path()).await;
        node.until_up().await;
        // Longer than the lease: it was renewed, or it would be lost.
        let lost = node.until(|state| matches!(state, State::Searching { .. }));
        assert!(tokio::time::timeout(Duration::from_secs(24), lost).await.is_err(), "nobody renewed it");
        drop(server);
        node.until_it_waits_for("nobody renewed it in time").await;
        assert_eq!(sh("ip -4 addr show eth0").await, "");
        let _server = far.udhcpd("eth0", 0, 16);
        node.until_up().await;
    });
}

#[test]
fn a_lease_is_good_to_its_end_though_its_server_is_gone_when_half_of_it_is_over() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        let server = far.udhcpd("eth0", 0, 60);
        let mut node = Node::new(folder.path()).await;
        let up = node.until_up().await;
        drop(server);
        // Half of it, and much longer than a server may take to give a first one.
        let lost = node.until(|state| *state != State::Up(up.clone()));
        assert!(tokio::time::timeout(Duration::from_secs(46), lost).await.is_err(), "it ends too early");
        assert!(sh("ip -4 addr show eth0").await.contains(&up.links[0].1.to_string()));
        assert!(sh("ip route").await.contains("default via 10.77.0.1 dev eth0"));
        node.until_it_waits_for("nobody renewed it in time").await;
        assert_eq!(sh("ip -4 addr show eth0; ip route").await, "");
    });
}

#[test]
fn a_server_that_comes_back_before_the_lease_ends_renews_it() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        // It is to be renewed after 6 s, and by whoever it may be after 24.
        let options = "--dhcp-option=3,10.77.0.1 --dhcp-option=58,6 --dhcp-option=59,24";
        let server = far.dnsmasq_with("eth0", 0, 50, "2m", options);
        let mut node = Node::new(folder.path()).await;
        let up = node.until_up().await;
        drop(server);
        let given = far.said("eth0").matches("DHCPACK").count();
        assert_eq!(given, 1, "{}", far.said("eth0"));
        let changed = node.until(|state| *state != State::Up(up.clone()));
        let renewed = async {
            tokio::time::sleep(Duration::from_secs(14)).await;
            let _server = far.dnsmasq_with("eth0", 0, 50, "2m", options);
            while far.said("eth0").matches("DHCPACK").count() == given {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::select! {
            state = changed => panic!("it is still good, and yet {state:?}"),
            () = renewed => {}
        }
        assert!(sh("ip -4 addr show eth0").await.contains(&up.links[0].1.to_string()));
    });
}

#[test]
fn a_cable_that_is_plugged_into_another_network_gets_another_lease_since_the_server_there_refuses_the_old_one()
 {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        let server = far.dnsmasq("eth0", 0, 50);
        let mut node = Node::new(folder.path()).await;
        let first = node.until_up().await;
        drop(server);
        far.run("ip link set far-eth0 down; ip addr flush dev far-eth0").await;
        far.plug("eth0", 9).await;
        let _server = far.dnsmasq("eth0", 9, 80);
        let moved = |state: &State| matches!(state, State::Up(up) if up.links[0].1 != first.links[0].1);
        let State::Up(second) = node.until(moved).await else { unreachable!("that was waited for") };
        assert_eq!(second.gateway, Some([10, 77, 9, 1].into()));
        let shown = sh("ip -4 addr show eth0").await;
        assert!(shown.contains("inet 10.77.9.") && shown.matches("inet ").count() == 1, "{shown}");
    });
}

#[test]
fn a_link_that_flaps_keeps_its_lease_and_one_that_stays_pulled_gives_way_to_another() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        for (nic, net) in [("eth0", 0), ("eth1", 1)] {
            far.cable(nic).await;
            far.plug(nic, net).await;
        }
        let _servers = [far.dnsmasq("eth0", 0, 50), far.dnsmasq("eth1", 1, 50)];
        let mut node = Node::new(folder.path()).await;
        let first = node.until_up().await;
        let (used, other) = if first.links[0].0 == "eth0" { ("eth0", "eth1") } else { ("eth1", "eth0") };
        far.run(&format!("ip link set far-{used} down; ip link set far-{used} up")).await;
        let lost = node.until(|state| *state != State::Up(first.clone()));
        assert!(tokio::time::timeout(Duration::from_secs(8), lost).await.is_err(), "a flap is no loss");
        far.run(&format!("ip link set far-{used} down")).await;
        let up = node.until(|state| matches!(state, State::Up(up) if up.links[0].0 == other)).await;
        assert_eq!(up.addresses().len(), 1);
        assert_eq!(sh(&format!("ip -4 addr show {used}")).await, "");
    });
}

/// A port that begins to forward anew stays dark for half a minute.
#[test]
fn a_lease_that_nobody_confirms_after_a_flap_is_good_to_its_end() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        let server = far.udhcpd("eth0", 0, 40);
        let mut node = Node::new(folder.path()).await;
        let up = node.until_up().await;
        drop(server);
        far.run("ip link set far-eth0 down; ip link set far-eth0 up").await;
        let lost = node.until(|state| *state != State::Up(up.clone()));
        assert!(tokio::time::timeout(Duration::from_secs(20), lost).await.is_err(), "it ends too early");
        assert!(sh("ip -4 addr show eth0").await.contains(&up.links[0].1.to_string()));
        node.until_it_waits_for("nobody renewed it in time").await;
        assert_eq!(sh("ip -4 addr show eth0; ip route").await, "");
    });
}

#[test]
fn a_link_that_flaps_while_the_controller_is_away_keeps_the_network() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        let _server = far.dnsmasq("eth0", 0, 50);
        let controller = far.controller("10.77.0.1", 8443);
        Node::plan(folder.path(), "controllers = [\"http://10.77.0.1:8443\"]\n");
        let mut node = Node::new(folder.path()).await;
        let up = node.until_up().await;
        drop(controller);
        let given = far.said("eth0").matches("DHCPACK").count();
        far.run("ip link set far-eth0 down; ip link set far-eth0 up").await;
        let lost = node.until(|state| *state != State::Up(up.clone()));
        let confirmed = async {
            while far.said("eth0").matches("DHCPACK").count() == given {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            // A controller is not waited for longer.
            tokio::time::sleep(Duration::from_secs(6)).await;
        };
        tokio::select! {
            state = lost => panic!("a controller may go away, and yet {state:?}"),
            () = confirmed => {}
        }
    });
}
