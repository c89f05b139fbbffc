use std::time::Duration;

use super::*;
use crate::sys::namespace::in_new_network;
use crate::sys::tool::Tool;

fn rule(port: u16, interface: &str, net: &str) -> Rule {
    let interface = (!interface.is_empty()).then(|| interface.parse().unwrap());
    Rule { port, interface, subnet: (!net.is_empty()).then(|| subnet(net).unwrap()) }
}

#[test]
fn ports_are_opened_listed_and_dropped() {
    in_new_network(|| async {
        let firewall = Firewall::default();
        assert_eq!(firewall.rules().await.unwrap(), []);
        let mut all = [
            rule(22, "", ""),
            rule(22, "eth0", ""),
            rule(80, "", "10.1.2.3/8"),
            rule(80, "eth0", "10.0.0.0/8"),
            rule(80, "", "192.168.0.1"),
            rule(80, "", "fd00::/8"),
            rule(80, "eth0", "fd00::1"),
            rule(443, "", "0.0.0.0/0"),
        ];
        for rule in &all {
            firewall.open_port(rule.clone()).await.unwrap();
        }
        all.sort();
        assert_eq!(firewall.rules().await.unwrap(), all);
        for rule in &all {
            let twice = firewall.open_port(rule.clone()).await.unwrap_err();
            assert!(matches!(twice, NftError::Exists(_)), "{twice:?}");
        }
        let overlap = firewall.open_port(rule(80, "", "10.9.0.0/16")).await.unwrap_err();
        assert!(matches!(overlap, NftError::Overlaps { .. }), "{overlap:?}");
        for rule in &all {
            firewall.drop_port(rule.clone()).await.unwrap();
            let twice = firewall.drop_port(rule.clone()).await.unwrap_err();
            assert!(matches!(twice, NftError::Missing(_)), "{twice:?}");
        }
        assert_eq!(firewall.rules().await.unwrap(), []);
    });
}

#[test]
fn other_tables_are_left_alone_and_the_own_one_mends_itself() {
    in_new_network(|| async {
        nft::apply("add table inet theirs\nadd chain inet theirs c\n".to_owned()).await.unwrap();
        let firewall = Firewall::default();
        firewall.open_port(rule(22, "", "")).await.unwrap();
        nft::apply("flush chain inet core0 input\nadd rule inet core0 forward drop\n".to_owned())
            .await
            .unwrap();
        firewall.open_port(rule(23, "", "")).await.unwrap();
        let ruleset = Tool::new("nft").args(["list", "ruleset"]).run().await.unwrap();
        assert!(ruleset.contains("table inet theirs"), "{ruleset}");
        assert_eq!(ruleset.matches("tcp dport @open accept").count(), 1, "{ruleset}");
        assert!(!ruleset.lines().any(|line| line.trim() == "drop"), "{ruleset}");
        assert_eq!(firewall.rules().await.unwrap(), [rule(22, "", ""), rule(23, "", "")]);
    });
}

#[test]
fn with_policy_drop_only_an_open_port_is_reached() {
    in_new_network(|| async {
        // A packet to an own address comes in by lo, which is always open: somebody else must knock.
        let netns = Neighbour::new().await;
        let firewall = Firewall::new(InputPolicy::Drop);
        firewall.install().await.unwrap();
        let listener = tokio::net::TcpListener::bind("10.66.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!netns.reaches(port).await, "a closed port is reached");
        for open in [
            rule(port, "", ""),
            rule(port, "near", ""),
            rule(port, "", "10.66.0.0/24"),
            rule(port, "near", "10.66.0.2"),
        ] {
            firewall.open_port(open.clone()).await.unwrap();
            assert!(netns.reaches(port).await, "{open} is not reached");
            firewall.drop_port(open.clone()).await.unwrap();
        }
        for wrong in [rule(port, "other", ""), rule(port, "", "10.66.0.3"), rule(port ^ 1, "", "")] {
            firewall.open_port(wrong.clone()).await.unwrap();
            assert!(!netns.reaches(port).await, "{wrong} lets others in");
            firewall.drop_port(wrong).await.unwrap();
        }
    });
}

/// A second network namespace, at the other end of a veth: the process that holds it ends with the test.
struct Neighbour {
    holder: tokio::process::Child,
}

impl Neighbour {
    async fn new() -> Self {
        let mut holder = crate::sys::tool::command("unshare");
        holder.args(["-n", "sh", "-c", "echo up; exec sleep 600"]).stdout(std::process::Stdio::piped());
        let mut holder = holder.spawn().unwrap();
        let mut up = [0; 3];
        tokio::io::AsyncReadExt::read_exact(holder.stdout.as_mut().unwrap(), &mut up).await.unwrap();
        let pid = holder.id().unwrap().to_string();
        let ip = |line: String| async move { Tool::new("ip").args(line.split(' ')).run().await.unwrap() };
        ip(format!("link add near type veth peer name far netns {pid}")).await;
        ip("addr add 10.66.0.1/24 dev near".to_owned()).await;
        ip("link set near up".to_owned()).await;
        let neighbour = Neighbour { holder };
        neighbour.run("ip addr add 10.66.0.2/24 dev far && ip link set far up").await.unwrap();
        neighbour
    }

    async fn run(&self, script: &str) -> Result<String, ToolError> {
        let pid = self.holder.id().unwrap().to_string();
        Tool::new("nsenter").args(["-n", "-t", &pid, "sh", "-c", script]).run().await
    }

    async fn reaches(&self, port: u16) -> bool {
        let script = format!("timeout 1 bash -c 'exec 3<>/dev/tcp/10.66.0.1/{port}'");
        match tokio::time::timeout(Duration::from_secs(30), self.run(&script)).await.unwrap() {
            Ok(_) => true,
            Err(ToolError::Failed { .. }) => false,
            Err(other) => panic!("{other}"),
        }
    }
}
