//! The old client from PyPI, `g8core` 1.0.0, unmodified, sends every command that there is, also those that came after it.
//! The disks are loop devices, and the node lives in a network namespace of its own.

use std::process::Command;
use std::thread;

use crate::harness::{Node, said};
use crate::image::pack_busybox;
use crate::old_client::python;

/// Runs a test on a thread in a new network namespace, where what it starts lives too.
fn in_new_network(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        // SAFETY: a network namespace changes no memory and no descriptor of this thread.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
            .expect("root makes network namespaces");
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        test();
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn every_command_of_a_node_works_for_the_old_client() {
    // It may have to be installed, from a network that is not there inside.
    let python = python();
    in_new_network(move || {
        let node = Node::start();
        let (flist, store) = pack_busybox(&node.dir);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/domains.py");
        let done = Command::new(python)
            .args([script, &node.port.to_string(), &node.password])
            .args([node.dir.as_os_str(), flist.as_ref(), store.as_os_str()])
            .output()
            .unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert_eq!(stdout, "passed\n", "{stderr}\n{}", said(&node.dir));
    });
}
