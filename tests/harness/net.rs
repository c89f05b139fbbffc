//! A local network of its own: network namespaces on one bridge, with nothing of this machine in reach.
//!
//! A node is a namespace with one interface, `eth0`. Whatever a node does, it does on a thread in it; processes and threads
//! begun there stay there. Files and mounts are those of the machine, so a node is a machine by its network alone.

use std::ffi::OsString;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{args, process};

/// Begins the name of every namespace of ours; the process that made it is next.
const PREFIX: &str = "g8t";
/// Networks made by this process.
static MADE: AtomicU32 = AtomicU32::new(0);

/// The network. Dropping it ends what runs in it and takes it away.
pub struct Lan {
    name: String,
    nodes: AtomicU8,
}

/// A machine on it.
pub struct Node {
    lan: String,
    namespace: String,
    inside: File,
    address: Ipv4Addr,
}

impl Lan {
    /// A bridge without anything plugged in.
    #[track_caller]
    pub fn new() -> Self {
        sweep();
        let name = format!("{PREFIX}-{}-{}", std::process::id(), MADE.fetch_add(1, Relaxed));
        let lan = Self { name, nodes: AtomicU8::new(0) };
        ip(&["netns", "add", &lan.name]);
        ip(&["-n", &lan.name, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"]);
        ip(&["-n", &lan.name, "link", "set", "br0", "up"]);
        lan
    }

    /// Plugs in one more machine.
    #[track_caller]
    pub fn node(&self) -> Node {
        let number = self.nodes.fetch_add(1, Relaxed) + 1;
        let (lan, port) = (&self.name, format!("p{number}"));
        let (namespace, address) = (format!("{lan}-{number}"), Ipv4Addr::new(10, 77, 0, number));
        ip(&["netns", "add", &namespace]);
        let inside = File::open(format!("/run/netns/{namespace}")).expect("it was just made");
        ip(&["-n", lan, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &namespace]);
        ip(&["-n", lan, "link", "set", &port, "master", "br0", "up"]);
        ip(&["-n", &namespace, "link", "set", "lo", "up"]);
        ip(&["-n", &namespace, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
        ip(&["-n", &namespace, "link", "set", "eth0", "up"]);
        Node { lan: lan.clone(), namespace, inside, address }
    }
}

impl Default for Lan {
    fn default() -> Self {
        Self::new()
    }
}

impl Node {
    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Does `work` on this machine.
    #[track_caller]
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.inside.as_fd(), network).expect("root may enter a namespace");
            work()
        };
        let done = std::thread::scope(|scope| scope.spawn(enter).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Takes its IPv4 address away: what is left is the link-local one of IPv6.
    pub fn forget_ipv4(&self) {
        ip(&["-n", &self.namespace, "-4", "addr", "flush", "dev", "eth0"]);
    }

    /// What it sends there from now on, it throws away and knows it.
    pub fn has_no_way_to(&self, to: Ipv4Addr) {
        ip(&["-n", &self.namespace, "route", "add", "blackhole", &to.to_string()]);
    }

    /// Undoes that.
    pub fn has_a_way_again_to(&self, to: Ipv4Addr) {
        ip(&["-n", &self.namespace, "route", "del", "blackhole", &to.to_string()]);
    }

    /// What it sends there goes onto the network, to nobody.
    pub fn loses_all_for(&self, to: Ipv4Addr) {
        let to = to.to_string();
        ip(&["-n", &self.namespace, "neigh", "add", &to, "lladdr", "02:00:00:00:00:77", "dev", "eth0"]);
    }

    /// Pulls its cable: nothing arrives any more, and nobody is told.
    pub fn unplug(&self) {
        let port = self.namespace.rsplit('-').next().expect("the number is last");
        ip(&["-n", &self.lan, "link", "set", &format!("p{port}"), "nomaster"]);
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let node = |number| format!("{}-{number}", self.name);
        for number in 1..=self.nodes.load(Relaxed) {
            remove(&node(number));
        }
        remove(&self.name);
    }
}

#[track_caller]
fn ip(words: &[&str]) {
    process::tool("ip", words.iter().map(OsString::from));
}

/// Ends what runs in a namespace, and forgets its name. Never panics: it is for the end of a test.
fn remove(namespace: &str) {
    let pids = Command::new("ip").args(args!["netns", "pids", namespace]).output();
    let pids = pids.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    for pid in pids.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
        // A thread of this process may be in it still, and ends by itself.
        if pid != rustix::process::getpid() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let _ = Command::new("ip").args(args!["netns", "del", namespace]).output();
}

/// Takes away what test runs left that were killed.
fn sweep() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let mut parts = name.split('-');
        if parts.next() != Some(PREFIX) {
            continue;
        }
        let maker = parts.next().and_then(|pid| pid.parse::<u32>().ok());
        if maker.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&name);
        }
    }
}
