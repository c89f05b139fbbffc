use std::time::Duration;

use serde_json::json;

use super::*;

async fn refused(node: &Arc<Networks>, id: Id, arguments: serde_json::Value) -> String {
    let error = Container::new().attach(node, id, plan(arguments)).await.unwrap_err();
    error.to_string()
}

#[test]
fn what_is_not_there_or_taken_is_refused_and_named() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = node_that_waits(dir.path(), LINGER);
        run("ip link set lo up; ip link add plain type bridge; ip link add v0 type veth peer name v1").await;
        let mode = bridge::Mode::Dnsmasq {
            network: "10.5.0.1/24".parse().unwrap(),
            start: [10, 5, 0, 10].into(),
            end: [10, 5, 0, 13].into(),
        };
        let br0 = bridge::Plan::new("br0".parse().unwrap(), None, mode, false).unwrap();
        node.bridges.create(&br0).await.unwrap();
        let container = Container::new();
        container
            .attach(
                &node,
                1,
                plan(json!({"network": {"bridge": [["br0", "10.5.0.2/24"]]}, "port": {"8080": 80}})),
            )
            .await
            .unwrap();
        let before = traces(dir.path()).await;
        let on = |bridge: &str, setup: &str| json!({"network": {"bridge": [[bridge, setup]]}});
        let hardware = |address: &str| json!({"nics": [{"type": "bridge", "id": "br0", "hwaddr": address}]});
        let own = node.get(1).unwrap().nics[1].hardware.map(|byte| format!("{byte:02x}")).join(":");
        let lan = run("ip -o link show br0 | grep -o 'ether [^ ]*'").await;
        let lan = lan.trim().trim_start_matches("ether ");
        for (arguments, said) in [
            (on("br9", ""), "no bridge br9".to_owned()),
            (on("v0", ""), "no bridge v0".to_owned()),
            (
                on("plain", "dhcp"),
                "bridge plain gives no addresses: make it with the network dnsmasq, or give the NIC a cidr"
                    .to_owned(),
            ),
            (
                on("br0", "10.5.0.2/24"),
                "10.5.0.2 on bridge br0 belongs to container 1 (\"test1\")".to_owned(),
            ),
            (on("br0", "10.5.0.1/24"), "10.5.0.1 on bridge br0 belongs to the node".to_owned()),
            (
                on("br0", "10.5.0.13/24"),
                "10.5.0.13 on bridge br0 belongs to DHCP, which gives 10.5.0.12 to 10.5.0.13: choose another"
                    .to_owned(),
            ),
            (on("core0", "172.18.0.1/16"), "172.18.0.1 on bridge core0 belongs to the node".to_owned()),
            (hardware(&own), format!("{own} on bridge br0 belongs to container 1 (\"test1\")")),
            (hardware(lan), format!("{lan} on bridge br0 belongs to the bridge")),
            (
                json!({"port": {"8080": 81}}),
                "port 8080/tcp of the node is taken by container 1 (\"test1\")".to_owned(),
            ),
            (
                json!({"nics": [{"type": "bridge", "id": "plain", "config": {"cidr": "10.6.0.2/24"}}], "port": {"81": 81}}),
                "ports cannot lead to 10.6.0.2/24: the node has no address in its network on bridge plain"
                    .to_owned(),
            ),
        ] {
            assert_eq!(refused(&node, 2, arguments).await, said);
            assert_eq!(difference(&before, &traces(dir.path()).await), Vec::<String>::new(), "after {said}");
        }
        let twice = container.attach(&node, 1, default_plan()).await.unwrap_err();
        assert_eq!(twice.to_string(), "container 1 has a network already");
        // The two addresses that br0 has for containers are given, and no more.
        let (two, three) = (Container::new(), Container::new());
        two.attach(&node, 2, plan(on("br0", "dhcp"))).await.unwrap();
        three.attach(&node, 3, plan(on("br0", "dhcp"))).await.unwrap();
        assert_eq!(
            refused(&node, 4, on("br0", "dhcp")).await,
            "bridge br0 has no address left for a container"
        );
        node.release(2).await.unwrap();
        two.attach(&node, 4, plan(on("br0", "dhcp"))).await.unwrap();
        for id in [1, 3, 4] {
            node.release(id).await.unwrap();
        }
        node.stop().await.unwrap();
        node.bridges.delete("br0").await.unwrap();
    });
}

#[test]
fn a_port_on_which_somebody_listens_is_refused_and_stays_theirs() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path());
        run("ip link set lo up").await;
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let all = std::net::TcpListener::bind("[::]:0").unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = |address: std::net::SocketAddr| address.port();
        let (tcp, all, udp) = (
            port(tcp.local_addr().unwrap()),
            port(all.local_addr().unwrap()),
            port(udp.local_addr().unwrap()),
        );
        let _keep = (&tcp, &all, &udp);
        let before = traces(dir.path()).await;
        let me = std::fs::read_to_string("/proc/self/comm").unwrap();
        for (key, shown) in [
            (tcp.to_string(), format!("{tcp}/tcp")),
            (all.to_string(), format!("{all}/tcp")),
            (format!("{udp}|udp"), format!("{udp}/udp")),
        ] {
            let said = refused(&node, 1, json!({"port": {key: 80}})).await;
            let expected = format!(
                "port {shown} of the node is taken by process {} ({})",
                std::process::id(),
                me.trim()
            );
            assert_eq!(said, expected);
            until_without_default_bridge(&node).await;
            assert_eq!(difference(&before, &traces(dir.path()).await), Vec::<String>::new());
        }
    });
}

#[test]
fn nobody_listens_on_a_forwarded_port_until_it_is_released() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = node_that_waits(dir.path(), LINGER);
        run("ip link set lo up").await;
        Container::new().attach(&node, 1, plan(json!({"port": {"8080|tcp+udp": 80}}))).await.unwrap();
        for address in ["0.0.0.0:8080", "127.0.0.1:8080", "[::]:8080"] {
            std::net::TcpListener::bind(address).expect_err(address);
            std::net::UdpSocket::bind(address).expect_err(address);
        }
        node.release(1).await.unwrap();
        // What another test starts at this moment has the sockets, too, until it is a program.
        let end = tokio::time::Instant::now() + Duration::from_secs(30);
        while let Err(e) = std::net::TcpListener::bind("0.0.0.0:8080") {
            assert!(tokio::time::Instant::now() < end, "{e}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        node.stop().await.unwrap();
    });
}

#[test]
fn names_that_mean_something_else_elsewhere_stay_names() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path());
        let before = traces(dir.path()).await;
        let names = ["", "../../x", "a\nb", "\"}; flush ruleset", &"x".repeat(10_000), "$(id)", "\u{202e}x"];
        for (id, name) in (u32::MAX - 9..).zip(names) {
            let container = Container::new();
            let port = plan(json!({"port": {"8080": 80}}));
            node.reserve(id, name, port.clone()).await.unwrap();
            node.attach(id, container.netns()).await.unwrap();
            let taken = Container::new().attach(&node, 1, port).await.unwrap_err().to_string();
            assert!(taken.len() < 200 && !taken.contains(['\n', '\u{202e}']), "{taken:?}");
            node.release(id).await.unwrap();
        }
        // A name of a link that nobody may have, though it is well-formed.
        let container = Container::new();
        let odd = plan(json!({"nics": [{"type": "default", "name": "a@b"}]}));
        match container.attach(&node, 1, odd).await {
            Ok(_) => node.release(1).await.unwrap(),
            Err(NetworkError::Netlink(_)) => {}
            Err(other) => panic!("{other}"),
        }
        until_without_default_bridge(&node).await;
        assert_eq!(difference(&before, &traces(dir.path()).await), Vec::<String>::new());
    });
}

#[test]
fn a_link_of_somebody_else_is_in_the_way_and_stays() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path());
        run("ip link add c1n0 type bridge").await;
        let error = Container::new().attach(&node, 1, default_plan()).await.unwrap_err();
        assert!(matches!(error, NetworkError::Netlink(netlink::Error::Refused(_, Errno::EXIST))), "{error}");
        assert!(run("ip -o link").await.contains("c1n0"), "what is not ours is gone");
        // Nor is a bridge of the default one's name taken for ours.
        until_without_default_bridge(&node).await;
        run("ip link add core0 type bridge").await;
        let error = Container::new().attach(&node, 1, default_plan()).await.unwrap_err();
        assert_eq!(error.to_string(), "the default bridge core0: a link core0 is there already");
        node.stop().await.unwrap();
        assert!(run("ip -o link").await.contains("core0"), "what is not ours is gone");
    });
}
