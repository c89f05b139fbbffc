//! Addresses of last resort: conflicts, and several nodes at once.

use std::sync::mpsc;
use std::thread;

use super::*;
use crate::boot::network::last_resort::random_number;
use crate::sys::netlink::Cidr;

/// Numbers in this order, and random ones afterwards.
fn numbers(first: &'static [u8]) -> Box<dyn FnMut() -> u8 + Send + Sync> {
    let mut first = first.iter();
    Box::new(move || first.next().copied().unwrap_or_else(random_number))
}

fn cidr(last: u8) -> Cidr {
    Cidr { address: [10, 254, 254, last].into(), prefix: 24 }
}

#[test]
fn without_any_server_an_address_that_somebody_has_is_left_alone_and_a_free_one_leads_to_the_controller() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable("eth0").await;
        let addresses =
            "ip addr add 10.254.254.254/24 dev far-eth0; ip addr add 10.254.254.7/24 dev far-eth0";
        far.run(&format!("ip link set far-eth0 up; {addresses}")).await;
        let _controller = far.controller("10.254.254.254", 8443);
        Node::plan(folder.path(), "controllers = [\"https://nowhere.invalid:8443\"]\n");
        let mut node = Node::with(folder.path(), |setup| setup.number = numbers(&[7, 9])).await;
        let up = node.until_up().await;
        assert_eq!(up.links, [("eth0".to_owned(), cidr(9))]);
        assert_eq!(up.controller.as_deref(), Some("https://10.254.254.254:8443"));
        // Somebody takes it all the same, and insists.
        far.run("ip addr add 10.254.254.9/24 dev far-eth0").await;
        let _insists = far.serve("busybox arping -U -c 20 -I far-eth0 10.254.254.9");
        node.until_it_waits_for("somebody else insists on 10.254.254.9").await;
        let again = node.until_up().await;
        assert!(![cidr(7), cidr(9)].contains(&again.links[0].1), "{again}");
    });
}

/// It was dropped for what happens on any other NIC, and there was none for the half minute that the search takes.
#[test]
fn a_lease_and_a_pulled_cable_that_lead_nowhere_are_no_reason_to_leave_a_network_of_last_resort_that_works() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        for nic in ["eth0", "eth1", "eth2"] {
            far.cable(nic).await;
        }
        far.run("ip link set far-eth0 up; ip addr add 10.254.254.254/24 dev far-eth0").await;
        for (nic, net) in [("eth1", 1), ("eth2", 2)] {
            far.plug(nic, net).await;
        }
        let _controller = far.controller("10.254.254.254", 8443);
        let plan = "controllers = [\"https://10.77.9.9:8443\"]\n[link.eth1]\naddress = \"dhcp\"\n\
                    [link.eth2]\naddress = \"10.77.2.9/24\"\n";
        Node::plan(folder.path(), plan);
        let mut node = Node::new(folder.path()).await;
        let is_last_resort =
            |up: &Up| up.controller.as_deref() == Some("https://10.254.254.254:8443") && up.trouble.is_none();
        assert!(is_last_resort(&node.until_up().await));
        let has = |up: &Up, nic: &str| up.links.iter().any(|(name, _)| name == nic);
        let _server = far.dnsmasq("eth1", 1, 50);
        node.until_it_has(|up| is_last_resort(up) && has(up, "eth0") && has(up, "eth1")).await;
        far.run("ip link set far-eth2 down").await;
        let lost = node.until(|state| !matches!(state, State::Up(up) if has(up, "eth0")));
        assert!(
            tokio::time::timeout(Duration::from_secs(10), lost).await.is_err(),
            "it left a network that works"
        );
    });
}

#[test]
fn two_nodes_in_the_fallback_at_once_that_choose_the_same_number_get_two() {
    let (sender, receiver) = mpsc::channel();
    let (done, ended) = mpsc::channel();
    let mut nodes = Vec::new();
    for name in ["one", "two"] {
        let (sender, done) = (sender.clone(), done.clone());
        let (tell, told) = mpsc::channel::<u32>();
        nodes.push((name, tell));
        let told = std::sync::Mutex::new(told);
        thread::spawn(move || {
            in_new_network(move || async move {
                sender.send(()).unwrap();
                let far = told.lock().unwrap().recv().unwrap();
                sh(&format!("ip link add eth0 type veth peer name {name} netns {far}")).await;
                sh(&format!("nsenter --net=/proc/{far}/ns/net ip link set {name} master br0 up")).await;
                let folder = tempfile::tempdir().unwrap();
                let mut node = Node::with(folder.path(), |setup| setup.number = numbers(&[7, 7])).await;
                let up = node.until_up().await;
                done.send(up.links[0].1).unwrap();
                // It keeps its address until the other one has found one, too.
                let _ =
                    tokio::time::timeout(Duration::from_secs(20), node.until_it_waits_for("insists")).await;
            });
        });
    }
    in_new_network(move || async move {
        let far = Far::new().await;
        far.run("ip link add br0 type bridge; ip link set br0 up; ip addr add 10.254.254.254/24 dev br0")
            .await;
        let _controller = far.controller("10.254.254.254", 443);
        for _ in &nodes {
            receiver.recv().unwrap();
        }
        for (_, tell) in &nodes {
            tell.send(far.pid()).unwrap();
        }
        let found =
            tokio::task::spawn_blocking(move || [ended.recv_timeout(PATIENCE), ended.recv_timeout(PATIENCE)]);
        let [first, second] = found.await.unwrap().map(|address| address.expect("both get one"));
        assert_ne!(first, second);
        assert!(
            [first, second].iter().all(|own| own.contains([10, 254, 254, 254].into())),
            "{first} {second}"
        );
    });
}
