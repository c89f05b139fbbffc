use std::path::Path;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::*;
use crate::sys::namespace::in_new_network;
use crate::sys::tool::{Tool, ToolError};

fn bridges(folder: &Path) -> Arc<Bridges> {
    Arc::new(Bridges::new(folder.join("bridges"), Arc::default()))
}

fn plan(name: &str, mode: Mode, nat: bool) -> Plan {
    Plan::new(name.parse().unwrap(), None, mode, nat).unwrap()
}

fn fixed(network: &str) -> Mode {
    Mode::Static { network: network.parse().unwrap() }
}

fn served() -> Mode {
    let network = "10.77.0.1/24".parse().unwrap();
    Mode::Dnsmasq { network, start: [10, 77, 0, 50].into(), end: [10, 77, 0, 60].into() }
}

async fn run(line: &str) -> Result<String, ToolError> {
    Tool::new("sh").args(["-c", line]).run().await
}

/// Everything of a bridge that outlives it by mistake.
async fn left_over(folder: &Path, name: &str) -> Vec<String> {
    let mut left = Vec::new();
    if run(&format!("ip link show {name}")).await.is_ok() {
        left.push("the link".to_owned());
    }
    let table = run("nft list table inet core0").await.unwrap_or_default();
    if table.contains(&format!("\"{name}\"")) || table.contains("10.77.") {
        left.push(table);
    }
    left.extend(processes(folder).into_iter().map(|pid| format!("dnsmasq {pid}")));
    let files = std::fs::read_dir(folder.join("bridges")).into_iter().flatten().flatten();
    left.extend(files.map(|file| file.path().display().to_string()));
    left
}

/// The dnsmasq processes whose files lie in the folder.
fn processes(folder: &Path) -> Vec<u32> {
    let mark = format!("--pid-file={}", folder.display());
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        cmdline.split(|b| *b == 0).any(|word| word.starts_with(mark.as_bytes()))
    })
    .collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "{what} does not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_bridge_without_a_network_is_a_link() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let bridges = bridges(dir.path());
        let address = Some([2, 0, 0, 0, 0, 9]);
        let plan = Plan::new("br0".parse().unwrap(), address, Mode::None, false).unwrap();
        bridges.create(&plan).await.unwrap();
        let shown = run("ip link show br0").await.unwrap();
        assert!(shown.contains("link/ether 02:00:00:00:00:09") && shown.contains(",UP"), "{shown}");
        assert_eq!(bridges.list().await.unwrap(), ["br0"]);
        let twice = bridges.create(&plan).await.unwrap_err();
        assert!(matches!(twice, BridgeError::Exists(_)), "{twice:?}");
        bridges.delete("br0").await.unwrap();
        assert_eq!(left_over(dir.path(), "br0").await, Vec::<String>::new());
        let gone = bridges.delete("br0").await.unwrap_err();
        assert!(matches!(gone, BridgeError::Missing(_)), "{gone:?}");
    });
}

#[test]
fn networks_that_overlap_are_refused() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let bridges = bridges(dir.path());
        bridges.create(&plan("br0", fixed("10.77.0.1/24"), false)).await.unwrap();
        let error = bridges.create(&plan("br1", fixed("10.77.0.9/16"), false)).await.unwrap_err();
        assert_eq!(error.to_string(), "network 10.77.0.9/16 overlaps with 10.77.0.1/24 on br0");
        assert_eq!(bridges.list().await.unwrap(), ["br0"]);
        bridges.delete("br0").await.unwrap();
    });
}

#[test]
fn a_neighbour_gets_an_address_by_dhcp() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let bridges = bridges(dir.path());
        bridges.create(&plan("br0", served(), true)).await.unwrap();
        assert_eq!(run("cat /proc/sys/net/ipv4/ip_forward").await.unwrap(), "1\n");
        // Another network namespace at a port of the bridge asks, as a container does.
        let script = dir.path().join("lease");
        std::fs::write(&script, "#!/bin/sh\n[ \"$1\" = bound ] && echo \"$ip $router $dns\"\nexit 0\n")
            .unwrap();
        run(&format!("chmod +x {}", script.display())).await.unwrap();
        let asked = format!(
            "ip link add p0 type veth peer name e0 && ip link set p0 master br0 up && \
             exec unshare -n sh -c 'echo $$ > {dir}/pid; until ip link show e0 >/dev/null 2>&1; do sleep 0.1; done; \
             ip link set lo up; ip link set e0 up; exec busybox udhcpc -f -q -n -t 10 -T 2 -i e0 -s {dir}/lease'",
            dir = dir.path().display()
        );
        let moved = format!(
            "until [ -s {dir}/pid ]; do sleep 0.1; done; sleep 0.3; ip link set e0 netns $(cat {dir}/pid)",
            dir = dir.path().display()
        );
        let (lease, moved) = tokio::join!(run(&asked), run(&moved));
        moved.unwrap();
        let lease = lease.unwrap();
        let line =
            lease.lines().find(|line| line.starts_with("10.77.0.")).unwrap_or_else(|| panic!("{lease}"));
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[1..], ["10.77.0.1", "10.77.0.1"]);
        let last: u8 = words[0].rsplit('.').next().unwrap().parse().unwrap();
        assert!((50..=60).contains(&last), "{line}");
        bridges.delete("br0").await.unwrap();
        assert_eq!(left_over(dir.path(), "br0").await, Vec::<String>::new());
    });
}

#[test]
fn a_killed_dnsmasq_is_started_again() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let bridges = bridges(dir.path());
        bridges.create(&plan("br0", served(), false)).await.unwrap();
        let first = processes(dir.path());
        assert_eq!(first.len(), 1);
        run(&format!("kill -9 {}", first[0])).await.unwrap();
        until("another dnsmasq", || processes(dir.path()).iter().any(|pid| *pid != first[0])).await;
        bridges.delete("br0").await.unwrap();
        assert_eq!(left_over(dir.path(), "br0").await, Vec::<String>::new());
    });
}

#[test]
fn what_was_made_of_a_bridge_that_fails_is_undone() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let bridges = bridges(dir.path());
        // dnsmasq cannot write its leases.
        std::fs::create_dir_all(dir.path().join("bridges/br0.leases/x")).unwrap();
        let error = bridges.create(&plan("br0", served(), true)).await.unwrap_err();
        assert!(matches!(error, BridgeError::Dnsmasq(..)), "{error:?}");
        assert!(error.to_string().contains("leases"), "{error}");
        std::fs::remove_dir_all(dir.path().join("bridges/br0.leases")).unwrap();
        bridges.recover().await.unwrap();
        assert_eq!(left_over(dir.path(), "br0").await, Vec::<String>::new());
    });
}

#[test]
fn the_next_manager_takes_up_what_a_killed_one_left() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let killed = bridges(dir.path());
        killed.create(&plan("br0", served(), true)).await.unwrap();
        killed.create(&plan("br1", fixed("10.78.0.1/24"), true)).await.unwrap();
        let stray = processes(dir.path());
        // A manager that is killed neither stops its children nor tidies up.
        std::mem::forget(killed);
        run("ip link del br1").await.unwrap();
        let next = bridges(dir.path());
        next.recover().await.unwrap();
        let serving = processes(dir.path());
        assert!(serving.len() == 1 && serving != stray, "{serving:?} after {stray:?}");
        let table = run("nft list table inet core0").await.unwrap();
        assert!(table.contains("10.77.0.0/24") && !table.contains("10.78."), "{table}");
        next.stop().await;
        assert_eq!(processes(dir.path()), Vec::<u32>::new());
        assert_eq!(next.list().await.unwrap(), ["br0"]);
        next.delete("br0").await.unwrap();
        assert_eq!(left_over(dir.path(), "br0").await, Vec::<String>::new());
    });
}

#[test]
fn nat_hides_a_network_and_nobody_comes_in() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let bridges = bridges(dir.path());
        bridges.create(&plan("br0", fixed("10.77.0.1/24"), true)).await.unwrap();
        // inside -- br0 -- this namespace -- out0 -- outside
        let script = format!(
            "set -e; cd {dir}
             hold() {{ unshare -n sh -c \"echo \\$\\$ > $1; exec sleep 120\" >/dev/null 2>&1 & while [ ! -s $1 ]; do sleep 0.05; done; }}
             hold inside; hold outside
             trap 'kill $(cat inside) $(cat outside)' EXIT
             inside_of() {{ pid=$(cat $1); shift; nsenter -n -t $pid \"$@\"; }}
             ip link add p0 type veth peer name e0 netns $(cat inside); ip link set p0 master br0 up
             ip link add out0 type veth peer name e1 netns $(cat outside)
             ip addr add 192.168.9.1/24 dev out0; ip link set out0 up
             inside_of inside ip addr add 10.77.0.2/24 dev e0; inside_of inside ip link set e0 up
             inside_of inside ip route add default via 10.77.0.1
             inside_of outside ip addr add 192.168.9.2/24 dev e1; inside_of outside ip link set e1 up
             inside_of outside ip route add 10.77.0.0/24 via 192.168.9.1
             inside_of outside timeout 60 python3 -c '
import socket
s = socket.create_server((\"192.168.9.2\", 7000)); print(s.accept()[1][0], flush=True)' > seen &
             server=$!
             for i in $(seq 100); do inside_of inside timeout 5 bash -c 'exec 3<>/dev/tcp/192.168.9.2/7000' 2>/dev/null && break; sleep 0.1; done
             wait $server; cat seen
             inside_of inside busybox ping -c 1 -W 5 192.168.9.2 >/dev/null && echo out
             inside_of outside busybox ping -c 1 -W 1 10.77.0.2 >/dev/null && echo in || true",
            dir = dir.path().display()
        );
        let said =
            Tool::new("bash").args(["-c", &script]).deadline(Duration::from_secs(120)).run().await.unwrap();
        assert_eq!(said, "192.168.9.1\nout\n");
        bridges.delete("br0").await.unwrap();
    });
}

/// Polls a future so many times; `None` when it has not ended then.
async fn polled<T>(mut future: Pin<&mut impl Future<Output = T>>, times: usize) -> Option<T> {
    let mut left = times;
    std::future::poll_fn(|context| {
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Pending if left == 0 => Poll::Ready(None),
            polled => polled.map(Some),
        }
    })
    .await
}

/// Ready at the n-th time that somebody asks.
fn at_poll(n: usize) -> impl Future<Output = ()> {
    let mut left = n;
    std::future::poll_fn(move |_| {
        left = left.saturating_sub(1);
        if left == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
}

#[test]
fn a_creation_that_is_cancelled_at_any_step_leaves_nothing() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let bridges = bridges(dir.path());
        let plan = plan("br0", served(), true);
        let mut steps = 0;
        loop {
            steps += 1;
            match bridges.create_unless(&plan, at_poll(steps)).await {
                Ok(()) => break,
                Err(BridgeError::GivenUp(_)) => {}
                Err(error) => panic!("step {steps}: {error:?}"),
            }
            assert_eq!(left_over(dir.path(), "br0").await, Vec::<String>::new(), "after step {steps}");
            assert!(steps < 1000);
        }
        assert!(steps > 8, "{steps} steps");
        assert_eq!(processes(dir.path()).len(), 1);
        bridges.delete("br0").await.unwrap();
        assert_eq!(left_over(dir.path(), "br0").await, Vec::<String>::new());
    });
}

#[test]
fn a_manager_that_is_killed_at_any_step_of_a_creation_leaves_a_whole_bridge_or_nothing() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan("br0", served(), true);
        for steps in 1.. {
            assert!(steps < 1000);
            let killed = bridges(dir.path());
            let mut creation = Box::pin(killed.create_unless(&plan, std::future::pending()));
            let ended = polled(creation.as_mut(), steps).await;
            // Whoever is killed drops nothing.
            std::mem::forget(creation);
            let next = bridges(dir.path());
            next.recover().await.unwrap();
            if let Some(made) = ended {
                made.unwrap();
                assert_eq!(next.list().await.unwrap(), ["br0"]);
                until("one dnsmasq serves", || processes(dir.path()).len() == 1).await;
                next.delete("br0").await.unwrap();
                assert_eq!(left_over(dir.path(), "br0").await, Vec::<String>::new());
                return;
            }
            assert_eq!(left_over(dir.path(), "br0").await, Vec::<String>::new(), "after step {steps}");
        }
    });
}

#[test]
fn a_manager_that_is_killed_at_any_step_of_a_removal_leaves_nothing() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan("br0", served(), true);
        for steps in 1.. {
            assert!(steps < 1000);
            let killed = bridges(dir.path());
            killed.create(&plan).await.unwrap();
            let mut removal = Box::pin(killed.remove("br0"));
            let ended = polled(removal.as_mut(), steps).await;
            let begun = killed.records.read("br0").unwrap().is_none_or(|(_, stage)| stage == Stage::Removing);
            std::mem::forget(removal);
            std::mem::forget(killed);
            let next = bridges(dir.path());
            next.recover().await.unwrap();
            if begun {
                assert_eq!(left_over(dir.path(), "br0").await, Vec::<String>::new(), "after step {steps}");
            } else {
                assert_eq!(next.list().await.unwrap(), ["br0"], "after step {steps}");
                next.delete("br0").await.unwrap();
            }
            if let Some(removed) = ended {
                return removed.unwrap();
            }
        }
    });
}

#[test]
fn a_caller_that_goes_away_has_its_creation_undone_and_its_removal_done() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let bridges = bridges(dir.path());
        let plan = plan("br0", served(), true);
        let nothing_is_left = async || {
            let end = Instant::now() + Duration::from_secs(60);
            while !left_over(dir.path(), "br0").await.is_empty() {
                assert!(Instant::now() < end, "{:?}", left_over(dir.path(), "br0").await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        for millis in [0, 1, 5, 20, 50, 100] {
            match tokio::time::timeout(Duration::from_millis(millis), bridges.create(&plan)).await {
                Ok(made) => made.unwrap(),
                Err(_) => {
                    nothing_is_left().await;
                    bridges.create(&plan).await.unwrap();
                }
            }
            let mut removal = Box::pin(bridges.delete("br0"));
            assert!(polled(removal.as_mut(), 1).await.is_none());
            drop(removal);
            nothing_is_left().await;
        }
    });
}

#[test]
fn of_a_bridge_that_was_removed_by_hand_the_rest_goes_too() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let bridges = bridges(dir.path());
        // When somebody looks.
        bridges.create(&plan("br0", served(), true)).await.unwrap();
        run("ip link del br0").await.unwrap();
        assert_eq!(bridges.list().await.unwrap(), Vec::<String>::new());
        assert_eq!(left_over(dir.path(), "br0").await, Vec::<String>::new());
        // When one of the same name is made: nothing of the old one is in the new one.
        bridges.create(&plan("br0", served(), true)).await.unwrap();
        run("ip link del br0").await.unwrap();
        bridges.create(&plan("br0", fixed("10.78.0.1/24"), false)).await.unwrap();
        assert_eq!(processes(dir.path()), Vec::<u32>::new());
        let table = run("nft list table inet core0").await.unwrap();
        assert!(!table.contains("10.77.") && table.contains("\"br0\""), "{table}");
        // When it is removed.
        run("ip link del br0").await.unwrap();
        bridges.delete("br0").await.unwrap();
        assert_eq!(left_over(dir.path(), "br0").await, Vec::<String>::new());
    });
}

#[test]
fn what_somebody_took_from_a_bridge_is_put_back_by_the_next_manager() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let killed = bridges(dir.path());
        killed.create(&plan("br0", served(), true)).await.unwrap();
        std::mem::forget(killed);
        run("ip addr flush dev br0; ip link set br0 down; nft flush ruleset").await.unwrap();
        let next = bridges(dir.path());
        next.recover().await.unwrap();
        let shown = run("ip addr show br0").await.unwrap();
        assert!(shown.contains("10.77.0.1/24") && shown.contains(",UP"), "{shown}");
        let table = run("nft list table inet core0").await.unwrap();
        assert!(table.contains("10.77.0.0/24"), "{table}");
        assert_eq!(processes(dir.path()).len(), 1);
        next.delete("br0").await.unwrap();
        assert_eq!(left_over(dir.path(), "br0").await, Vec::<String>::new());
    });
}
