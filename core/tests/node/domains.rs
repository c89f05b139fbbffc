//! The old client from PyPI, `g8core` 1.0.0, unmodified, sends every command that there is, also those that came after it.
//! The disks are loop devices, and the node lives in a network namespace of its own.

use std::process::Command;

use crate::harness::{Node, said, with_own_network};
use crate::image::pack_busybox;
use crate::old_client::python;

#[test]
fn every_command_of_a_node_works_for_the_old_client() {
    // It may have to be installed, from a network that is not there inside.
    let python = python();
    with_own_network(move || {
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
