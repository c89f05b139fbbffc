//! The network of a container: attached and released, beside the same with the tool `ip` and a link that is moved.
//!
//! `cargo bench -p core0 --bench network`, as root. All in a network namespace of its own.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use core0::domain::bridge::Bridges;
use core0::domain::container_net::{Networks, Plan, Wanted};
use core0::domain::nft::Firewall;
use rustix::thread::UnshareFlags;
use serde_json::json;

const CONTAINERS: u32 = 50;
const ROUNDS: usize = 3;

fn new_namespace() {
    // SAFETY: a network namespace changes no memory and no descriptor of this thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("root makes network namespaces");
}

fn container() -> OwnedFd {
    let make = || {
        new_namespace();
        File::open("/proc/thread-self/ns/net").expect("a thread has a network").into()
    };
    thread::spawn(make).join().expect("a thread ends")
}

fn plan(arguments: serde_json::Value) -> Plan {
    let arguments: core0::domain::container_net::NetworkArguments =
        serde_json::from_value(arguments).expect("arguments");
    match arguments.plan().expect("a plan") {
        Wanted::Own(plan) => plan,
        Wanted::Host => unreachable!("nobody asked for the network of the node"),
    }
}

/// Times of one way, shown as least and median.
struct Times(&'static str, Vec<Duration>);

impl Times {
    fn show(mut self) {
        self.1.sort();
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        println!("{:<64} {:>8.2} {:>8.2}", self.0, ms(self.1[0]), ms(self.1[self.1.len() / 2]));
    }
}

/// One after the other, each released before the next.
async fn in_turn(networks: &Arc<Networks>, plan: &Plan, into: [&mut Times; 2]) {
    let [attach, release] = into;
    for id in 1..=CONTAINERS {
        let netns = container();
        let began = Instant::now();
        networks.reserve(id, "bench", plan.clone()).await.expect("it is reserved");
        networks.attach(id, netns).await.expect("it is attached");
        attach.1.push(began.elapsed());
        let began = Instant::now();
        networks.release(id).await.expect("it is released");
        release.1.push(began.elapsed());
    }
}

/// As a node does: nobody waits for a container to be taken apart.
async fn in_the_background(networks: &Arc<Networks>, plan: &Plan, into: &mut Times) {
    let mut releases = Vec::new();
    for id in 1..=CONTAINERS {
        let netns = container();
        let began = Instant::now();
        networks.reserve(id, "bench", plan.clone()).await.expect("it is reserved");
        networks.attach(id, netns).await.expect("it is attached");
        into.1.push(began.elapsed());
        let networks = networks.clone();
        releases.push(tokio::spawn(async move { networks.release(id).await.expect("it is released") }));
    }
    for release in releases {
        release.await.expect("no release panics");
    }
}

/// What scripts and CNI plugins do, in as few processes as can be.
fn with_ip(times: [&mut Times; 2]) {
    let [attach, release] = times;
    let pid = std::process::id();
    let run = |script: &str| {
        let mut ip = Command::new("ip");
        ip.args(["-batch", "-"]).stdin(std::process::Stdio::piped());
        let mut child = ip.spawn().expect("ip starts");
        std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), script.as_bytes())
            .expect("ip reads");
        assert!(child.wait().expect("ip ends").success());
    };
    for _ in 0..CONTAINERS {
        let netns = container();
        let began = Instant::now();
        run(&format!(
            "link add b0 type veth peer name b1\nlink set b0 master core0 up\nlink set b1 netns /proc/{pid}/fd/{}\n",
            netns.as_raw_fd()
        ));
        let inside = "ip link set lo up; ip link set b1 up; ip addr add 172.18.9.9/16 dev b1; ip route add default via 172.18.0.1";
        let inside = Command::new("nsenter")
            .args([&format!("--net=/proc/{pid}/fd/{}", netns.as_raw_fd()), "sh", "-c", inside])
            .status();
        assert!(inside.expect("nsenter starts").success());
        attach.1.push(began.elapsed());
        let began = Instant::now();
        run("link del b0\n");
        release.1.push(began.elapsed());
    }
}

async fn compare(folder: &Path) {
    let firewall = Arc::new(Firewall::default());
    let bridges = Arc::new(Bridges::new(folder.join("bridges"), firewall.clone()));
    let network = "172.18.0.1/16".parse().expect("a network");
    let networks = Networks::new(folder.join("networks"), network, bridges, firewall).expect("a network");
    let networks = Arc::new(networks);
    let bridge = plan(json!({}));
    let ports = plan(json!({"port": {"8080": 80}}));
    // One stays, and the default bridge with it.
    let stays = container();
    let began = Instant::now();
    networks.reserve(0, "stays", bridge.clone()).await.expect("a bridge");
    networks.attach(0, stays.try_clone().expect("a descriptor")).await.expect("it is attached");
    println!("the first container, for which the default bridge is made: {:?}", began.elapsed());
    let mut attach = Times("attach", Vec::new());
    let mut release = Times("release", Vec::new());
    let mut attach_meanwhile = Times("attach while the ones before are released", Vec::new());
    let mut attach_ports = Times("attach with a port", Vec::new());
    let mut release_ports = Times("release with a port", Vec::new());
    let mut attach_ip = Times("ip: a link that is moved, and `ip` inside", Vec::new());
    let mut release_ip = Times("ip: link del", Vec::new());
    for _ in 0..ROUNDS {
        in_turn(&networks, &bridge, [&mut attach, &mut release]).await;
        in_the_background(&networks, &bridge, &mut attach_meanwhile).await;
        in_turn(&networks, &ports, [&mut attach_ports, &mut release_ports]).await;
        with_ip([&mut attach_ip, &mut release_ip]);
    }
    println!("{:<64} {:>8} {:>8}", "", "min ms", "med ms");
    for times in [attach, release, attach_meanwhile, attach_ports, release_ports, attach_ip, release_ip] {
        times.show();
    }
    networks.release(0).await.expect("it is released");
    networks.stop().await.expect("the bridge goes");
}

fn main() {
    new_namespace();
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(compare(folder.path()));
}
