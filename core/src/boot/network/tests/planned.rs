//! `net.toml` and controllers.

use tokio::sync::watch;

use super::*;
use crate::boot::bootstrap::medium::Named;

#[test]
fn all_kinds_of_links_are_set_up_as_planned_and_a_controller_by_them_is_enough() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        for (nic, net) in [("eth0", 0), ("eth1", 1), ("eth2", 2)] {
            far.cable(nic).await;
            far.plug(nic, net).await;
        }
        let _servers = [far.dnsmasq("eth1", 1, 50), far.controller("10.77.0.1", 8443)];
        sh("ip link set eth2 address 02:00:00:00:00:07").await;
        let plan = r#"
            controllers = ["https://10.77.3.1:9", "https://10.77.0.1:8443"]
            dns = ["10.77.0.1"]
            search = ["first.example.org"]
            [link.eth0]
            address = "10.77.0.9/24"
            gateway = "10.77.0.1"
            mtu = 1400
            [link.eth1]
            address = "dhcp"
            [link.third]
            mac = "02:00:00:00:00:07"
            [link.br0]
            bridge = { ports = ["third", "tap0"] }
            address = "10.77.2.9/24"
            [link.tap0]
            tap = {}
            [link.vx0]
            vxlan = { id = 42, on = "eth0", remote = "10.77.0.1" }
            address = "10.99.0.9/24"
        "#;
        Node::plan(folder.path(), plan);
        let mut node = Node::new(folder.path()).await;
        let up = node.until_up().await;
        assert_eq!(up.controller.as_deref(), Some("https://10.77.0.1:8443"));
        assert_eq!((up.links[0].0.as_str(), up.links.len(), up.trouble), ("eth0", 4, None));
        let shown = sh("ip -d addr").await;
        for words in
            ["10.77.0.9/24", "mtu 1400", "10.77.2.9/24", "10.99.0.9/24", "vxlan id 42", "tun type tap"]
        {
            assert!(shown.contains(words), "{words}: {shown}");
        }
        assert!(shown.contains("10.77.1.5"), "eth1 has its lease: {shown}");
        assert_eq!(sh("ip link show master br0").await.matches("mtu").count(), 2);
        let resolver = std::fs::read_to_string(folder.path().join("resolv.conf")).unwrap();
        assert_eq!(
            resolver,
            "search first.example.org example.org\nnameserver 10.77.1.1\nnameserver 10.77.0.1\noptions timeout:1 attempts:2\n"
        );
        // The best way out is the configured router; a link that loses its carrier is no way at all.
        let default = sh("ip route show default").await;
        assert!(default.starts_with("default via 10.77.0.1 dev eth0 proto static metric 1"), "{default}");
        assert_eq!(sh("cat /proc/sys/net/ipv4/conf/eth0/ignore_routes_with_linkdown").await, "1\n");
        // Once more from the start, all of it is there already.
        node.kill().await;
        Node::new(folder.path()).await.until_up().await;
        assert_eq!(sh("ip -4 addr").await.matches("inet ").count(), 5);
    });
}

#[test]
fn a_controller_behind_another_nic_is_found_by_dhcp_and_the_others_are_as_configured() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        for (nic, net) in [("eth0", 0), ("eth1", 1), ("eth2", 2)] {
            far.cable(nic).await;
            far.plug(nic, net).await;
        }
        // eth0 gives leases too, and leads nowhere: it has to be put back.
        let _servers =
            [far.dnsmasq("eth0", 0, 50), far.dnsmasq("eth1", 1, 50), far.controller("10.77.1.1", 8443)];
        let plan = "controllers = [\"http://10.77.1.1:8443\"]\n[link.eth0]\naddress = \"10.0.0.9/24\"\ngateway = \"10.0.0.1\"\n";
        Node::plan(folder.path(), plan);
        // The other end lets nothing through from one network to the other.
        let drop = "iifname != far-eth1 ip daddr 10.77.1.1 drop";
        far.run(&format!(
            "nft 'table inet f {{ chain i {{ type filter hook input priority 0; {drop}; }}; }}'"
        ))
        .await;
        let mut node = Node::new(folder.path()).await;
        let up = node.until_up().await;
        assert_eq!(up.controller.as_deref(), Some("http://10.77.1.1:8443"));
        assert_eq!(up.links[0].0, "eth1");
        let shown = sh("ip -4 addr show eth0").await;
        assert!(shown.contains("10.0.0.9/24") && !shown.contains("10.77."), "{shown}");
        let default = sh("ip route show default").await;
        assert!(default.starts_with("default via 10.77.1.1 dev eth1 proto static metric 10"), "{default}");
    });
}

#[test]
fn a_controller_that_appears_later_is_found_and_until_then_the_node_says_which_it_waits_for() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        Node::plan(
            folder.path(),
            "controllers = [\"http://10.77.0.1:8443\"]\n[link.eth0]\naddress = \"10.77.0.9/24\"\n",
        );
        let mut node = Node::new(folder.path()).await;
        let rests = node.until_it_waits_for("no controller: http://10.77.0.1:8443").await;
        // It can be reached meanwhile, as configured.
        assert_eq!(rests.addresses(), [std::net::IpAddr::from([10, 77, 0, 9])]);
        let _controller = far.controller("10.77.0.1", 8443);
        let up = node.until_up().await;
        assert_eq!(up.links, [("eth0".to_owned(), "10.77.0.9/24".parse().unwrap())]);
    });
}

#[test]
fn without_controllers_the_server_of_the_bootstrap_file_has_to_be_reached() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        let _server = far.dnsmasq("eth0", 0, 50);
        let server = Some("http://10.77.0.1:8080/g8os".parse().unwrap());
        let named = watch::channel(Named { server, trouble: None }).1;
        let mut node = Node::with(folder.path(), |setup| setup.bootstrap = named).await;
        node.until_it_waits_for("no bootstrap file: http://10.77.0.1:8080").await;
        let _server = far.controller("10.77.0.1", 8080);
        node.until_up().await;
    });
}

#[test]
fn of_a_plan_that_became_nonsense_the_last_good_one_holds_and_the_error_is_told() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        let good = "[link.eth0]\naddress = \"10.77.0.9/24\"\ngateway = \"10.77.0.1\"\n";
        Node::plan(folder.path(), good);
        let mut node = Node::new(folder.path()).await;
        assert_eq!(node.until_up().await.trouble, None);
        node.kill().await;
        // Another process, which has never seen the good one.
        Node::plan(folder.path(), &format!("{good}gate = 1\n"));
        let mut node = Node::new(folder.path()).await;
        let up = node.until_up().await;
        node.kill().await;
        assert_eq!(up.links, [("eth0".to_owned(), "10.77.0.9/24".parse().unwrap())]);
        let trouble = up.trouble.as_deref().unwrap();
        assert!(trouble.contains("line 4: unknown field `gate`"), "{trouble}");
        assert!(up.to_string().ends_with("(the last one that made sense holds)"), "{up}");
        // Without any that made sense, the node searches as if there were none.
        std::fs::remove_file(folder.path().join("kept.toml")).unwrap();
        let _server = far.dnsmasq("eth0", 0, 50);
        let mut node = Node::new(folder.path()).await;
        let up = node.until_up().await;
        assert!(up.trouble.is_some() && up.links[0].1.to_string().starts_with("10.77.0.5"), "{up}");
        assert_eq!(
            sh("ip -4 addr show eth0").await.matches("inet ").count(),
            1,
            "what was left is taken back"
        );
    });
}

#[test]
fn a_link_that_is_missing_is_told_and_the_others_work() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        let plan = "[link.eth0]\naddress = \"10.77.0.9/24\"\ngateway = \"10.77.0.1\"\n[link.eth7]\naddress = \"dhcp\"\n";
        Node::plan(folder.path(), plan);
        let up = Node::new(folder.path()).await.until_up().await;
        assert_eq!(up.trouble.as_deref(), Some("link eth7: no link eth7"));
    });
}
