use serde_json::json;

use super::*;

#[test]
fn a_container_has_an_address_a_way_out_and_nothing_more() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path());
        let before = traces(dir.path()).await;
        let container = Container::new();
        let attached = container.attach(&node, 7, default_plan()).await.unwrap();
        assert_eq!(attached.address(), Some([172, 18, 0, 2].into()));
        assert_eq!(attached.resolv_conf, "nameserver 172.18.0.1\n");
        assert_eq!(node.get(7), Some(attached.clone()));
        assert_eq!(node.users(DEFAULT_BRIDGE), [7]);
        let seen = container.run("ip -o link; ip -o -4 addr; ip route").await.unwrap();
        let hardware = attached.nics[0].hardware.map(|byte| format!("{byte:02x}")).join(":");
        for expected in [
            "lo: <LOOPBACK,UP",
            "inet 127.0.0.1/8",
            ": eth0@",
            &hardware,
            "inet 172.18.0.2/16",
            "default via 172.18.0.1 dev eth0",
        ] {
            assert!(seen.contains(expected), "{expected} is missing: {seen}");
        }
        assert_eq!(seen.lines().filter(|line| line.contains("mtu")).count(), 2, "{seen}");
        node.release(7).await.unwrap();
        node.release(7).await.unwrap();
        assert_eq!((node.get(7), node.users(DEFAULT_BRIDGE)), (None, vec![]));
        assert!(!container.run("ip -o link").await.unwrap().contains("eth0"));
        until_without_default_bridge(&node).await;
        assert_eq!(difference(&before, &traces(dir.path()).await), Vec::<String>::new());
    });
}

#[test]
fn nics_on_named_bridges_have_what_was_asked_for() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path());
        run("ip link add plain type bridge && ip link set plain mtu 1400 up").await;
        let mode = bridge::Mode::Dnsmasq {
            network: "10.5.0.1/24".parse().unwrap(),
            start: [10, 5, 0, 10].into(),
            end: [10, 5, 0, 19].into(),
        };
        node.bridges
            .create(&bridge::Plan::new("br0".parse().unwrap(), None, mode, false).unwrap())
            .await
            .unwrap();
        let container = Container::new();
        let attached = container
            .attach(
                &node,
                1,
                plan(json!({"nics": [
                    {"type": "bridge", "id": "plain", "name": "mute"},
                    {"type": "bridge", "id": "br0", "config": {"dhcp": true}},
                    {"type": "bridge", "id": "plain", "hwaddr": "02:00:00:00:00:07",
                     "config": {"cidr": "fd00::2/64", "gateway": "fd00::1", "dns": ["fd00::1", "9.9.9.9"]}},
                ]})),
            )
            .await
            .unwrap();
        assert_eq!(attached.resolv_conf, "nameserver 10.5.0.1\nnameserver fd00::1\nnameserver 9.9.9.9\n");
        let seen = container.run("ip -o link; ip -o addr; ip route; ip -6 route").await.unwrap();
        for expected in [
            "mute@",
            "mtu 1400",
            "eth1",
            "inet 10.5.0.10/24",
            "default via 10.5.0.1 dev eth1",
            "link/ether 02:00:00:00:00:07",
            "inet6 fd00::2/64",
        ] {
            assert!(seen.contains(expected), "{expected} is missing: {seen}");
        }
        assert!(!seen.contains("default via fd00::1"), "one way out is enough: {seen}");
        // A bridge keeps the address it has, whoever comes and goes.
        let address = "ip -o link show br0 | grep -o 'ether [^ ]*'";
        let with = run(address).await;
        node.release(1).await.unwrap();
        assert_eq!(with, run(address).await);
        assert!(!run("ip -o link").await.contains("c1n"));
    });
}

#[test]
fn an_address_rests_before_it_is_given_again_and_keeps_its_hardware_address() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = node_that_waits(dir.path(), LINGER);
        let container = Container::new();
        let first = container.attach(&node, 1, default_plan()).await.unwrap();
        node.release(1).await.unwrap();
        let second = container.attach(&node, 1, default_plan()).await.unwrap();
        assert_ne!(first.nics[0].address, second.nics[0].address);
        node.release(1).await.unwrap();
        node.state.lock().last.clear();
        let again = container.attach(&node, 9, default_plan()).await.unwrap();
        assert_eq!(first.nics, again.nics);
        node.release(9).await.unwrap();
        node.stop().await.unwrap();
    });
}

#[test]
fn many_at_once_get_addresses_of_their_own() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path());
        let before = traces(dir.path()).await;
        let containers: Vec<Container> = (0..20).map(|_| Container::new()).collect();
        let attached = containers.iter().zip(0..).map(|(container, id)| {
            container.attach(&node, id, plan(json!({"port": {(9000 + id).to_string(): 80}})))
        });
        let attached = futures::future::join_all(attached).await;
        let addresses: BTreeSet<IpAddr> =
            attached.iter().map(|attached| attached.as_ref().unwrap().address().unwrap()).collect();
        assert_eq!(addresses.len(), 20);
        let elements = run("nft list map inet core0 forwards").await;
        assert_eq!(elements.matches("tcp . 90").count(), 20, "{elements}");
        let released = futures::future::join_all((0..20).map(|id| node.release(id))).await;
        released.into_iter().for_each(Result::unwrap);
        until_without_default_bridge(&node).await;
        assert_eq!(difference(&before, &traces(dir.path()).await), Vec::<String>::new());
    });
}

#[test]
fn a_hundred_leave_the_node_and_the_rules_of_others_as_they_were() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = node_that_waits(dir.path(), LINGER);
        run("nft 'add table ip theirs; add chain ip theirs c { type filter hook forward priority 0; }; add rule ip theirs c counter; add set ip theirs s { type inet_service; elements = { 80, 8080 } }'").await;
        let theirs = "nft list table ip theirs | sed 's/packets [0-9]* bytes [0-9]*//'";
        let rules = run(theirs).await;
        let stays = Container::new();
        stays.attach(&node, 0, default_plan()).await.unwrap();
        let before = traces(dir.path()).await;
        for id in 1..=100 {
            let ports = if id % 10 == 0 { json!({"8080": 80}) } else { json!({}) };
            Container::new().attach(&node, id, plan(json!({ "port": ports }))).await.unwrap();
            node.release(id).await.unwrap();
        }
        assert_eq!(difference(&before, &traces(dir.path()).await), Vec::<String>::new());
        assert_eq!(run(theirs).await, rules);
        node.release(0).await.unwrap();
        node.stop().await.unwrap();
        assert_eq!(node.bridges.list().await.unwrap(), Vec::<String>::new());
    });
}

#[test]
fn the_default_bridge_goes_a_while_after_its_last_container() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = node_that_waits(dir.path(), Duration::from_millis(1500));
        let (one, two) = (Container::new(), Container::new());
        one.attach(&node, 1, default_plan()).await.unwrap();
        node.release(1).await.unwrap();
        two.attach(&node, 2, default_plan()).await.unwrap();
        // The first one's time is up, and the second one is there.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(node.bridges.list().await.unwrap(), [DEFAULT_BRIDGE]);
        node.release(2).await.unwrap();
        until_without_default_bridge(&node).await;
    });
}

#[test]
fn a_container_that_is_gone_is_released_all_the_same() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path());
        let before = traces(dir.path()).await;
        let container = Container::new();
        container.attach(&node, 1, plan(json!({"port": {"8080": 80}}))).await.unwrap();
        // The links go with the namespace, in the kernel's own time.
        drop(container);
        run("ip link del core0").await;
        node.release(1).await.unwrap();
        until_without_default_bridge(&node).await;
        assert_eq!(difference(&before, &traces(dir.path()).await), Vec::<String>::new());
    });
}

#[test]
fn a_port_is_waited_for_until_the_last_of_its_network_is_gone() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path());
        let ports = || plan(json!({"port": {"8080": 80}}));
        let (one, other) = (Container::new(), Container::new());
        one.attach(&node, 1, ports()).await.unwrap();
        // One that lives has it.
        let refused = node.reserve(2, "other", ports()).await.unwrap_err().to_string();
        assert!(refused.contains("is taken by container 1") && !refused.contains("ending"), "{refused}");
        // Its link is waited for, as its namespace is still there.
        let (released, attached) = tokio::join!(node.release(1), async {
            let leads_there =
                || node.state.lock().entries.get(&1).is_some_and(|e| !e.record.ports.is_empty());
            while leads_there() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(node.state.lock().entries.contains_key(&1));
            other.attach(&node, 2, ports()).await
        });
        released.unwrap();
        attached.unwrap();
        node.release(2).await.unwrap();
    });
}
