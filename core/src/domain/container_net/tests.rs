//! In network namespaces of their own: one is the node, the others are containers and neighbours.

mod faults;
mod lifecycle;
mod refusals;
mod traffic;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::thread::UnshareFlags;
use tokio::sync::Notify;

use super::*;
use crate::sys::namespace::in_new_network;
use crate::sys::tool::{Tool, ToolError};

/// What happens at the n-th step of attaching, which are counted from one.
#[derive(Debug, Default)]
pub struct Faults {
    steps: AtomicUsize,
    fail: AtomicUsize,
    die: AtomicUsize,
    dead: Notify,
}

impl Faults {
    pub async fn step(&self) -> Result<(), NetworkError> {
        let n = self.steps.fetch_add(1, Ordering::SeqCst) + 1;
        if n == self.die.load(Ordering::SeqCst) {
            self.dead.notify_one();
            std::future::pending::<()>().await;
        }
        if n == self.fail.load(Ordering::SeqCst) { Err(NetworkError::Injected(n)) } else { Ok(()) }
    }
}

/// A node whose files lie in a folder. Its default bridge goes at once, for tests that look at what is left.
fn node(folder: &Path) -> Arc<Networks> {
    node_that_waits(folder, Duration::ZERO)
}

fn node_that_waits(folder: &Path, linger: Duration) -> Arc<Networks> {
    let firewall = Arc::new(Firewall::default());
    let bridges = Arc::new(Bridges::new(folder.join("bridges"), firewall.clone()));
    let network = "172.18.0.1/16".parse().unwrap();
    let mut networks = Networks::new(folder.join("networks"), network, bridges, firewall).unwrap();
    networks.linger = linger;
    Arc::new(networks)
}

/// The network namespace of a container. It lives as long as somebody has it open.
struct Container {
    netns: OwnedFd,
}

impl Container {
    fn new() -> Self {
        let make = || {
            // SAFETY: a network namespace changes no memory and no descriptor of this thread.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            File::open("/proc/thread-self/ns/net").unwrap().into()
        };
        Container { netns: thread::spawn(make).join().unwrap() }
    }

    fn netns(&self) -> OwnedFd {
        self.netns.try_clone().unwrap()
    }

    /// A command in the network namespace, which has no other sign of a container.
    fn tool(&self, script: &str) -> Tool {
        let netns = format!("--net=/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd());
        Tool::new("nsenter").args([&netns, "bash", "-c", script])
    }

    async fn run(&self, script: &str) -> Result<String, ToolError> {
        self.tool(script).run().await
    }

    async fn attach(&self, node: &Arc<Networks>, id: Id, plan: Plan) -> Result<Attached, NetworkError> {
        let reserved = node.reserve(id, &format!("test{id}"), plan).await?;
        let attached = node.attach(id, self.netns()).await?;
        assert_eq!(attached, reserved);
        Ok(attached)
    }
}

async fn run(line: &str) -> String {
    Tool::new("bash").args(["-c", line]).run().await.unwrap()
}

/// A plan in the words of callers.
fn plan(arguments: serde_json::Value) -> Plan {
    let arguments: NetworkArguments = serde_json::from_value(arguments).unwrap();
    match arguments.plan().unwrap() {
        Wanted::Own(plan) => plan,
        Wanted::Host => panic!("the network of the node"),
    }
}

fn default_plan() -> Plan {
    plan(serde_json::json!({}))
}

/// A plan with something of everything: every step has something to do.
fn full_plan() -> Plan {
    plan(serde_json::json!({
        "network": {"bridge": [["br0", "10.5.0.2/24"], ["br0", "none"]]},
        "port": {"8080": 80, "5353|udp": 53},
    }))
}

/// Everything in the node that a container may leave behind: links, elements of the firewall, settings, files, sockets.
async fn traces(folder: &Path) -> BTreeSet<String> {
    let mut traces = BTreeSet::new();
    let script = "ip -o link | sed 's/^[0-9]*: \\([^:@]*\\).*/link \\1/'
        ss -Htuln4 | awk '{print \"socket\", $1, $2, $5}'
        for f in /proc/sys/net/ipv4/conf/*/route_localnet; do echo $f $(cat $f); done";
    traces.extend(run(script).await.lines().map(str::to_owned));
    for object in crate::sys::nft::list_table("inet", "core0").await.unwrap().unwrap_or_default() {
        for set in [&object["set"], &object["map"]] {
            let elements = set["elem"].as_array().into_iter().flatten();
            traces.extend(elements.map(|element| format!("{} of {}", element, set["name"])));
        }
    }
    for kind in ["networks", "bridges"] {
        let files = std::fs::read_dir(folder.join(kind)).into_iter().flatten().flatten();
        traces.extend(
            files.map(|file| file.path().display().to_string()).filter(|path| !path.ends_with("salt")),
        );
    }
    traces
}

/// What is there now and was not, and the other way round.
fn difference(before: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    before.symmetric_difference(now).cloned().collect()
}

/// The default bridge goes after its last container, by itself.
async fn until_without_default_bridge(node: &Networks) {
    let gone = async {
        while node.bridges.list().await.unwrap().iter().any(|name| name == DEFAULT_BRIDGE)
            || node.bridges.find(DEFAULT_BRIDGE).unwrap().is_some()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the default bridge stays");
    // Who removes it has this until nothing of it is left.
    drop(node.bridge_use.write().await);
}
