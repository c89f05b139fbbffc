//! The spawner between two managers: what the first had asked for and was told counts for the next.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command};

use core0::process::Process;
use core0::spawner::Spawner;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recv, sendmsg, socket_with,
};
use serde_json::{Value, json};

use crate::harness::{signal, until};

/// A spawner without a node.
struct Alone {
    process: Child,
    folder: tempfile::TempDir,
}

impl Alone {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("spawner.sock");
        let spawner =
            Command::new(env!("CARGO_BIN_EXE_core0")).arg("spawner").arg("--socket").arg(&socket).spawn();
        let alone = Self { process: spawner.unwrap(), folder };
        until("it listens", || attempt(&socket).is_some());
        alone
    }

    /// As a manager connects.
    fn connect(&self) -> OwnedFd {
        attempt(&self.folder.path().join("spawner.sock")).unwrap()
    }

    /// Has it do nothing until it is told to continue.
    fn stand_still(&self) {
        signal(self.process.id() as i32, libc::SIGSTOP);
        until("it stands still", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
            stat.contains(") T ")
        });
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        signal(self.process.id() as i32, libc::SIGTERM);
        let _ = self.process.wait();
    }
}

fn attempt(socket: &Path) -> Option<OwnedFd> {
    let fd = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    connect(&fd, &SocketAddrUnix::new(socket).unwrap()).ok().map(|()| fd)
}

/// Sends a request as a manager does.
fn ask(socket: &OwnedFd, request: &Value, fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let bytes = request.to_string();
    sendmsg(socket, &[IoSlice::new(bytes.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
}

/// Takes one event; its descriptors are closed by the kernel.
fn hear(socket: &OwnedFd) -> Value {
    let mut bytes = vec![0; 8192];
    let (count, _) = recv(socket, &mut bytes[..], RecvFlags::empty()).unwrap();
    serde_json::from_slice(&bytes[..count]).unwrap()
}

/// Runs what a manager does on a runtime that is gone afterwards.
fn manager<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

/// The names of what a manager takes over through a socket that others had before it, in order.
fn taken_over(socket: &OwnedFd, spawner: &Alone) -> Vec<String> {
    let (socket, pid) = (socket.try_clone().unwrap(), spawner.process.id() as i32);
    manager(async move {
        let (_, held) = Spawner::inside(socket, pid).unwrap();
        let held = held.await.unwrap().unwrap();
        let mut names: Vec<String> = held.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        // A manager that is killed forgets nothing.
        std::mem::forget(held);
        names
    })
}

#[test]
fn a_manager_that_is_killed_while_it_is_told_what_is_held_costs_the_next_one_nothing() {
    let spawner = Alone::start();
    // The socket into a container goes from one manager to the next, with what lies in it.
    let socket = spawner.connect();
    let (own, pid) = (socket.try_clone().unwrap(), spawner.process.id() as i32);
    manager(async move {
        let (first, held) = Spawner::inside(own, pid).unwrap();
        // Whoever asks for something waits until it is known what is there.
        for name in ["job a", "job b", "job c"] {
            let argv = vec!["sleep".into(), "6020".into()];
            let child = first.spawn(&Process { argv, ..Process::default() }, name).await.unwrap();
            std::mem::forget(child);
        }
        assert!(held.await.unwrap().unwrap().is_empty());
    });
    let all = ["job a", "job b", "job c"];
    assert_eq!(taken_over(&socket, &spawner), all);
    // Killed when it has heard of so many; the rest lies in the socket, with the word that it is all.
    for heard in 0..=3 {
        ask(&socket, &json!({"Hello": {"hello": heard}}), &[]);
        for _ in 0..heard {
            assert_eq!(hear(&socket)["Held"]["hello"], heard);
        }
        assert_eq!(taken_over(&socket, &spawner), all, "when {heard} were heard of");
    }
}

#[test]
fn what_a_manager_had_sent_before_it_was_killed_is_done_before_the_next_one_is_told() {
    let spawner = Alone::start();
    let first = spawner.connect();
    let process = json!({"argv": ["sleep", "6021"], "env": {}, "dir": ""});
    ask(&first, &json!({"Spawn": {"slot": 7, "tag": "job kept", "process": process}}), &[]);
    assert_eq!(hear(&first)["Spawned"]["slot"], 7);
    // Too busy to hear of it, until the next manager is there.
    spawner.stand_still();
    let memory = std::fs::File::open("/dev/null").unwrap();
    ask(&first, &json!({"Keep": {"slot": 7}}), &[memory.as_fd(), memory.as_fd(), memory.as_fd()]);
    ask(&first, &json!("Finish"), &[]);
    drop(first);
    let next = spawner.connect();
    ask(&next, &json!({"Hello": {"hello": 1}}), &[]);
    signal(spawner.process.id() as i32, libc::SIGCONT);
    let held = hear(&next);
    assert_eq!((&held["Held"]["tag"], &held["Held"]["kept"]), (&json!("job kept"), &json!(true)), "{held}");
    assert_eq!(hear(&next)["Ready"]["hello"], 1);
}

#[test]
fn what_is_killed_before_its_turn_to_be_started_is_never_started() {
    let spawner = Alone::start();
    let manager = spawner.connect();
    // As it is while another one is slow to start.
    spawner.stand_still();
    for slot in 1..=3 {
        let argv = ["touch".into(), spawner.folder.path().join(format!("ran {slot}")).display().to_string()];
        let process = json!({"argv": argv, "env": {}, "dir": ""});
        ask(&manager, &json!({"Spawn": {"slot": slot, "tag": "job x", "process": process}}), &[]);
    }
    // Behind the next one, too.
    ask(&manager, &json!({"Signal": {"slot": 2, "signal": libc::SIGKILL}}), &[]);
    ask(&manager, &json!({"Signal": {"slot": 3, "signal": libc::SIGTERM}}), &[]);
    ask(&manager, &json!({"Forget": {"slot": 2}}), &[]);
    signal(spawner.process.id() as i32, libc::SIGCONT);
    let mut told = std::collections::BTreeMap::new();
    while told.len() < 5 {
        let event = hear(&manager);
        let (kind, what) = event.as_object().unwrap().iter().next().unwrap();
        told.insert((what["slot"].as_u64().unwrap(), kind.clone()), event);
    }
    let told: Vec<_> = told.keys().map(|(slot, kind)| (*slot, kind.as_str())).collect();
    assert_eq!(
        told,
        [(1, "Exited"), (1, "Spawned"), (2, "Failed"), (3, "Exited"), (3, "Spawned")],
        "each start has its answer"
    );
    assert!(spawner.folder.path().join("ran 1").exists() && !spawner.folder.path().join("ran 2").exists());
}
