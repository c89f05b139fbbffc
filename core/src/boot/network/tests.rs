//! In network namespaces, against a real dnsmasq. The NICs are of kind veth, as their cables end in another namespace.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;

use super::*;
use crate::sys::namespace::in_new_network;
use crate::sys::tool::{Tool, command};

/// How long anything may take before it is a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is at the other end of the cables: a namespace with a shell in it, which ends with this.
struct Far {
    shell: Child,
    folder: tempfile::TempDir,
}

impl Far {
    async fn new() -> Self {
        let mut shell = command("unshare")
            .args(["--net", "sh", "-c", "echo here; exec sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
        assert_eq!(line, "here\n");
        Self { shell, folder: tempfile::tempdir().unwrap() }
    }

    /// A NIC whose cable ends here.
    async fn cable(&self, nic: &str) {
        let pid = self.shell.id().unwrap();
        sh(&format!("ip link add {nic} type veth peer name far-{nic} netns {pid}")).await;
    }

    /// Has the shell do something.
    async fn run(&mut self, line: &str) {
        self.shell.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// Plugs a cable in.
    async fn plug(&mut self, nic: &str) {
        self.run(&format!("ip link set far-{nic} up; ip addr add 10.77.0.1/24 dev far-{nic}")).await;
    }

    /// Starts to give leases, instead of the shell.
    async fn serve(&mut self, nic: &str) {
        let leases = self.folder.path().join("leases");
        self.run(&format!(
            "exec dnsmasq --keep-in-foreground --port=0 --conf-file=/dev/null --interface=far-{nic} --bind-interfaces \
             --dhcp-authoritative --no-ping --dhcp-range=10.77.0.50,10.77.0.60,255.255.255.0,1h --dhcp-option=3,10.77.0.1 \
             --dhcp-option=6,10.77.0.1 --dhcp-option=15,example.org --dhcp-leasefile={} --pid-file= --user=root",
            leases.display()
        ))
        .await;
    }
}

async fn sh(line: &str) -> String {
    Tool::new("sh").args(["-c", line]).run().await.unwrap()
}

fn search(folder: &Path) -> (Search, watch::Receiver<State>) {
    let (state, seen) = watch::channel(State::Searching("its turn".into()));
    (Search { kind: "veth", resolver: folder.join("resolv.conf"), state }, seen)
}

/// Waits until the search says something, and searches meanwhile.
async fn until(
    search: &Search,
    seen: &mut watch::Receiver<State>,
    holds: impl FnMut(&State) -> bool,
) -> State {
    let seen = async { seen.wait_for(holds).await.unwrap().clone() };
    tokio::select! {
        state = tokio::time::timeout(PATIENCE, seen) => state.expect("it happens in time"),
        () = search.for_ever() => unreachable!("it searches for ever"),
    }
}

#[test]
fn what_is_missing_is_said() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let (search, _seen) = search(folder.path());
        let error = search.attempt().await.unwrap_err();
        assert!(matches!(error, NetworkError::NoNic), "{error}");
        let far = Far::new().await;
        far.cable("eth0").await;
        let error = search.attempt().await.unwrap_err();
        assert!(matches!(&error, NetworkError::NoCarrier(nics) if nics == "eth0"), "{error}");
    });
}

#[test]
fn the_one_nic_of_three_that_is_plugged_in_becomes_the_network() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let (search, mut seen) = search(folder.path());
        let mut far = Far::new().await;
        for nic in ["eth0", "eth1", "eth2"] {
            far.cable(nic).await;
        }
        far.plug("eth1").await;
        far.serve("eth1").await;
        let state = until(&search, &mut seen, |state| matches!(state, State::Up(_))).await;
        let State::Up(up) = state else { unreachable!("that was waited for") };
        assert_eq!((up.link.as_str(), up.address.prefix), ("eth1", 24));
        assert_eq!(up.gateway, Some(IpAddr::from([10, 77, 0, 1])));
        assert!(sh("ip -4 addr show eth1").await.contains(&up.address.to_string()));
        assert!(sh("ip route").await.contains("default via 10.77.0.1 dev eth1"));
        let resolver = std::fs::read_to_string(folder.path().join("resolv.conf")).unwrap();
        assert_eq!(resolver, "search example.org\nnameserver 10.77.0.1\n");
        assert_eq!(sh("ip -4 addr show eth0; ip -4 addr show eth2").await, "");
        // A manager that was started anew finds all that there, and takes it for its own.
        let (again, mut seen) = self::search(folder.path());
        until(&again, &mut seen, |state| matches!(state, State::Up(_))).await;
        assert_eq!(sh("ip -4 addr show eth1").await.matches("inet ").count(), 1);
    });
}

#[test]
fn a_server_and_a_cable_that_come_late_are_found() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let (search, mut seen) = search(folder.path());
        let mut far = Far::new().await;
        far.cable("eth0").await;
        let says = |word: &'static str| move |state: &State| matches!(state, State::Searching(why) if why.contains(word));
        until(&search, &mut seen, says("no carrier on eth0")).await;
        far.plug("eth0").await;
        until(&search, &mut seen, says("eth0: no lease")).await;
        far.serve("eth0").await;
        until(&search, &mut seen, |state| matches!(state, State::Up(_))).await;
    });
}
