//! Routes: of clouds that give each machine a network of its own, such as the kernel refuses, those that change, and those
//! that it takes away by itself.

use super::*;

use crate::boot::network::edge::Edge;
use crate::boot::network::plan::Plan;
use crate::sys::netlink::Netlink;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use tokio::sync::mpsc;

/// A cable to a server that gives what it is told to.
async fn served(far: &Far, options: &str) -> tokio::process::Child {
    far.cable("eth0").await;
    far.plug("eth0", 0).await;
    far.dnsmasq_with("eth0", 0, 50, "2m", options)
}

#[test]
fn a_machine_that_is_alone_in_its_network_finds_its_router_by_a_classless_route() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        let routes = "172.31.1.1/32,0.0.0.0,0.0.0.0/0,172.31.1.1";
        let _server =
            served(&far, &format!("--dhcp-option=1,255.255.255.255 --dhcp-option=121,{routes}")).await;
        far.run("ip addr add 172.31.1.1/32 dev lo").await;
        let up = Node::new(folder.path()).await.until_up().await;
        assert_eq!((up.links[0].1.prefix, up.gateway), (32, Some([172, 31, 1, 1].into())));
        assert_eq!(up.trouble, None);
        assert!(sh("ip route").await.contains("default via 172.31.1.1 dev eth0"));
        // And it answers.
        sh("busybox ping -c 1 -W 10 172.31.1.1").await;
    });
}

#[test]
fn a_router_outside_of_the_network_is_reached_by_the_link() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        let _server = served(&far, "--dhcp-option=3,172.31.1.1").await;
        let up = Node::new(folder.path()).await.until_up().await;
        assert_eq!((up.gateway, up.trouble), (Some([172, 31, 1, 1].into()), None));
        let routes = sh("ip route").await;
        assert!(
            routes.contains("172.31.1.1 dev eth0") && routes.contains("default via 172.31.1.1"),
            "{routes}"
        );
    });
}

#[test]
fn a_route_that_is_refused_is_told_and_spoils_neither_the_others_nor_the_lease() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        // The second router is all of the network.
        let routes = "10.8.0.0/16,10.77.0.1,10.9.0.0/16,10.77.0.255,0.0.0.0/0,10.77.0.1";
        let _server = served(&far, &format!("--dhcp-option=121,{routes}")).await;
        let up = Node::new(folder.path()).await.until_up().await;
        assert_eq!(up.gateway, Some([10, 77, 0, 1].into()));
        let trouble = up.trouble.unwrap();
        assert!(
            trouble.starts_with("eth0: the kernel refuses the route to 10.9.0.0/16 by 10.77.0.255"),
            "{trouble}"
        );
        let routes = sh("ip route").await;
        assert!(
            routes.contains("10.8.0.0/16 via 10.77.0.1") && routes.contains("default via 10.77.0.1"),
            "{routes}"
        );
    });
}

#[test]
fn a_router_that_the_kernel_refuses_is_not_shown_as_one() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        let _server = served(&far, "--dhcp-option=3,10.77.0.255").await;
        let _controller = far.controller("10.77.0.1", 8443);
        let plan = "controllers = [\"http://10.77.0.1:8443\"]\n[link.eth0]\naddress = \"dhcp\"\n";
        Node::plan(folder.path(), plan);
        let up = Node::new(folder.path()).await.until_up().await;
        assert_eq!((up.links[0].0.as_str(), up.gateway), ("eth0", None));
        assert!(up.trouble.unwrap().contains("the route to everywhere by 10.77.0.255"));
        // Without a controller there has to be a way out, and why there is none is still known when all is over.
        Node::plan(folder.path(), "");
        let mut node = Node::new(folder.path()).await;
        let words = ["no default route", "the route to everywhere by 10.77.0.255", "again in"];
        let rests = |state: &State| match state {
            State::Searching { why, .. } => words.iter().all(|words| why.contains(words)),
            State::Up(_) => false,
        };
        node.until(rests).await;
    });
}

#[test]
fn routes_that_a_renewed_lease_has_no_more_are_taken_back() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        let often = "--dhcp-option=58,4 --dhcp-option=59,8";
        let options = |routes: &str| format!("{often} --dhcp-option=121,{routes}");
        let server = served(&far, &options("10.8.0.0/16,172.31.1.1,0.0.0.0/0,10.77.0.1")).await;
        let mut node = Node::new(folder.path()).await;
        let up = node.until_up().await;
        assert!(sh("ip route").await.contains("10.8.0.0/16 via 172.31.1.1"));
        drop(server);
        let _server =
            far.dnsmasq_with("eth0", 0, 50, "2m", &options("10.9.0.0/16,10.77.0.1,0.0.0.0/0,10.77.0.2"));
        let changed =
            node.until(|state| matches!(state, State::Up(up) if up.gateway == Some([10, 77, 0, 2].into())));
        let State::Up(now) = changed.await else { unreachable!("that was waited for") };
        assert_eq!(now.links, up.links);
        let mut routes: Vec<String> = sh("ip route").await.lines().map(str::to_owned).collect();
        routes.sort();
        let routes: Vec<&str> = routes.iter().filter_map(|route| route.split(" dev ").next()).collect();
        assert_eq!(routes, ["10.77.0.0/24", "10.9.0.0/16 via 10.77.0.1", "default via 10.77.0.2"]);
    });
}

#[test]
fn a_configured_router_is_there_again_when_its_link_was_down() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        Node::plan(folder.path(), "[link.eth0]\naddress = \"10.77.0.9/24\"\ngateway = \"10.77.0.1\"\n");
        let mut node = Node::new(folder.path()).await;
        node.until_up().await;
        let router = async || sh("ip route show default").await.contains("via 10.77.0.1 dev eth0");
        assert!(router().await);
        // Both for a moment, which is no loss, and for so long that the search begins anew.
        for pause in [1, 5] {
            sh("ip link set eth0 down").await;
            assert!(!router().await, "the kernel leaves it there");
            tokio::time::sleep(Duration::from_secs(pause)).await;
            sh("ip link set eth0 up").await;
            let again = async {
                while !router().await {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            assert!(tokio::time::timeout(PATIENCE, again).await.is_ok(), "nobody puts the route back");
            node.until_up().await;
        }
    });
}

#[test]
fn the_router_of_a_lease_that_a_killed_manager_had_does_not_go_before_the_configured_one() {
    let alone =
        "--dhcp-option=1,255.255.255.255 --dhcp-option=121,172.31.1.1/32,0.0.0.0,0.0.0.0/0,172.31.1.1";
    for options in ["--dhcp-option=3,10.77.0.1", alone] {
        in_new_network(move || async move {
            let folder = tempfile::tempdir().unwrap();
            let far = Far::new().await;
            let _server = served(&far, options).await;
            let mut node = Node::new(folder.path()).await;
            node.until_up().await;
            node.kill().await;
            let plan = "[link.eth0]\naddress = \"10.78.0.9/24\"\ngateway = \"10.78.0.1\"\n";
            Node::plan(folder.path(), plan);
            let up = Node::new(folder.path()).await.until_up().await;
            assert_eq!(up.to_string(), "eth0 10.78.0.9/24 by 10.78.0.1");
            let shown = sh("ip -4 addr show eth0; ip route").await;
            let left = ["10.77.", "172.31."].iter().any(|words| shown.contains(words));
            assert!(shown.contains("default via 10.78.0.1") && !left, "{shown}");
        });
    }
}

/// It stayed up for ever, with the link for storage alone.
#[test]
fn a_network_that_only_a_killed_manager_had_is_searched_again() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        for (nic, net) in [("eth0", 0), ("eth1", 1)] {
            far.cable(nic).await;
            far.plug(nic, net).await;
        }
        let _server = far.dnsmasq("eth1", 1, 50);
        let _controller = far.controller("10.77.1.1", 8443);
        let plan = "controllers = [\"http://10.77.1.1:8443\"]\n[link.eth0]\naddress = \"10.0.0.9/24\"\n";
        Node::plan(folder.path(), plan);
        let is_found =
            |state: &State| matches!(state, State::Up(up) if up.links.iter().any(|(nic, _)| nic == "eth1"));
        let mut node = Node::new(folder.path()).await;
        node.until(is_found).await;
        node.kill().await;
        let mut node = Node::new(folder.path()).await;
        node.until(is_found).await;
        let shown = sh("ip -4 addr show eth1; ip route").await;
        assert!(shown.contains("inet 10.77.1.5") && shown.contains("default via 10.77.1.1"), "{shown}");
    });
}

#[test]
fn what_could_not_be_taken_back_is_tried_again_before_something_else_is_set() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        sh("ip link set eth0 up").await;
        let setup = setup(folder.path());
        let mut edge = Edge::new(setup.nics, setup.files, setup.times, mpsc::channel(1).0);
        let link = Netlink::open().await.unwrap().link("eth0").await.unwrap();
        let plan = |address: &str| {
            let (host, router) = (format!("{address}.9/24"), format!("{address}.1"));
            Plan::parse(&format!("[link.eth0]\naddress = \"{host}\"\ngateway = \"{router}\"\n")).unwrap()
        };
        edge.configure(&plan("10.77.0"), &link).await.unwrap();
        // The kernel refuses all that this thread asks for.
        let all = capabilities(None).unwrap();
        let mut fewer = all;
        fewer.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, fewer).unwrap();
        let refused = edge.configure(&plan("10.78.0"), &link).await.unwrap_err();
        set_capabilities(None, all).unwrap();
        assert!(refused.to_string().contains("the kernel refuses"), "{refused}");
        // It is still there, and known to be.
        let set: Vec<String> = edge.set().iter().map(|(_, setting)| setting.address.to_string()).collect();
        assert_eq!(set, ["10.77.0.9/24"]);
        assert!(sh("ip -4 addr show eth0").await.contains("10.77.0.9/24"));
        edge.configure(&plan("10.78.0"), &link).await.unwrap();
        let shown = sh("ip -4 addr show eth0; ip route").await;
        assert!(shown.contains("10.78.0.9/24") && shown.contains("default via 10.78.0.1"), "{shown}");
        assert!(!shown.contains("10.77.0."), "{shown}");
    });
}

#[test]
fn what_could_not_be_set_again_is_tried_again_while_there_is_a_network() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        Node::plan(folder.path(), "[link.eth0]\naddress = \"10.77.0.9/24\"\ngateway = \"10.77.0.1\"\n");
        let mut node = Node::new(folder.path()).await;
        let up = node.until_up().await;
        let all = capabilities(None).unwrap();
        let mut fewer = all;
        fewer.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, fewer).unwrap();
        far.run("ip link set far-eth0 down; ip link set far-eth0 up").await;
        let refused = |up: &Up| up.trouble.as_ref().is_some_and(|why| why.contains("the kernel refuses"));
        node.until_it_has(refused).await;
        set_capabilities(None, all).unwrap();
        node.until_it_has(|now| *now == up).await;
        let shown = sh("ip -4 addr show eth0; ip route").await;
        assert!(shown.contains("10.77.0.9/24") && shown.contains("default via 10.77.0.1"), "{shown}");
    });
}

/// It was believed to be set, and was not.
#[test]
fn what_cannot_be_written_down_is_set_all_the_same() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        Node::plan(folder.path(), "[link.eth0]\naddress = \"10.77.0.9/24\"\ngateway = \"10.77.0.1\"\n");
        let nowhere = folder.path().join("absent/addresses");
        let mut node = Node::with(folder.path(), |setup| setup.files.addresses = nowhere).await;
        let up = node.until_up().await;
        assert_eq!(up.to_string(), "eth0 10.77.0.9/24 by 10.77.0.1");
        let shown = sh("ip -4 addr show eth0; ip route").await;
        assert!(shown.contains("10.77.0.9/24") && shown.contains("default via 10.77.0.1"), "{shown}");
    });
}
