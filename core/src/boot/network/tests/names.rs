//! Controllers that have names, and resolvers that are gone.

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;

use super::*;
use crate::boot::network::reach;

/// Names are resolved by the file of the node, as on a machine: for this thread and those that it starts.
fn resolve_by(folder: &Path) {
    let etc = folder.join("etc");
    std::fs::create_dir(&etc).unwrap();
    std::os::unix::fs::symlink(folder.join("resolv.conf"), etc.join("resolv.conf")).unwrap();
    // SAFETY: a mount namespace changes no memory and no descriptor of this thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let lower = std::ffi::CString::new(format!("lowerdir={}:/etc", etc.display())).unwrap();
    mount("overlay", "/etc", "overlay", MountFlags::empty(), Some(lower.as_c_str())).unwrap();
}

/// A node whose only NIC is `eth0`, with these resolvers.
fn plan(folder: &Path, resolvers: &str) {
    let controllers = "controllers = [\"http://controller.example.org:8443\"]";
    let link = "[link.eth0]\naddress = \"10.77.0.9/24\"\ngateway = \"10.77.0.1\"";
    Node::plan(folder, &format!("{controllers}\ndns = {resolvers}\n{link}\n"));
}

/// The C library waits 5 s for the first resolver when nobody tells it otherwise, and nobody waits so long for a name.
#[test]
fn a_controller_is_found_by_its_name_though_the_first_two_resolvers_are_silent() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        resolve_by(folder.path());
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        far.run("ip addr add 10.77.0.2/24 dev far-eth0; ip addr add 10.77.0.3/24 dev far-eth0").await;
        let drop = "ip daddr { 10.77.0.2, 10.77.0.3 } udp dport 53 drop";
        far.run(&format!(
            "nft 'table inet f {{ chain i {{ type filter hook input priority 0; {drop}; }}; }}'"
        ))
        .await;
        let _servers = [far.resolver("10.77.0.1", "10.77.0.1"), far.controller("10.77.0.1", 8443)];
        plan(folder.path(), "[\"10.77.0.2\", \"10.77.0.3\", \"10.77.0.1\"]");
        let up = Node::new(folder.path()).await.until_up().await;
        assert_eq!(up.controller.as_deref(), Some("http://controller.example.org:8443"));
        assert_eq!(up.links[0].0, "eth0");
    });
}

#[test]
fn while_all_resolvers_are_gone_the_node_says_that_the_name_does_not_resolve_and_when_one_is_back_it_goes_on()
{
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        resolve_by(folder.path());
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        let _controller = far.controller("10.77.0.1", 8443);
        plan(folder.path(), "[\"10.77.0.1\"]");
        let mut node = Node::new(folder.path()).await;
        let gone = "no controller: http://controller.example.org:8443: its name does not resolve: ";
        for pause in [1, 2] {
            let again = format!("again in {pause} s");
            let rests = |state: &State| matches!(state, State::Searching { why, .. } if why.contains(gone) && why.ends_with(&again));
            let state = node.until(rests).await;
            assert_eq!(
                state.addresses(),
                [std::net::IpAddr::from([10, 77, 0, 9])],
                "it can be reached meanwhile"
            );
        }
        let _resolver = far.resolver("10.77.0.1", "10.77.0.1");
        let up = node.until_up().await;
        assert_eq!(up.controller.as_deref(), Some("http://controller.example.org:8443"));
    });
}

#[test]
fn of_many_names_that_nobody_resolves_few_are_asked_for_at_once_and_nobody_waits_for_them_long() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        resolve_by(folder.path());
        let far = Far::new().await;
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        far.run("nft 'table inet f { chain i { type filter hook input priority 0; udp dport 53 drop; }; }'")
            .await;
        sh("ip link set eth0 up; ip addr add 10.77.0.9/24 dev eth0").await;
        std::fs::write(folder.path().join("resolv.conf"), "nameserver 10.77.0.1\n").unwrap();
        let names = (0..17).map(|n| format!("http://c{n}.example.org").parse().unwrap());
        let names: Vec<_> = names.collect();
        let mut asked = std::pin::pin!(reach::any(&names));
        let mut most = 0;
        let why = loop {
            tokio::select! {
                found = &mut asked => break found.unwrap_err(),
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
            // Each thread that resolves a name has a socket of its own.
            most = most.max(sh("ss -Hun dst 10.77.0.1").await.lines().count());
        };
        assert!((1..=8).contains(&most), "{most}");
        assert_eq!(why.matches("its name does not resolve: ").count(), names.len(), "{why}");
    });
}
