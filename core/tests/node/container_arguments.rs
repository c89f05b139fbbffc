//! What can be asked of a container that no other theme has: how its flist is named and found, what it is shown, what it may use,
//! and how fast its end is answered.

use std::fs;
use std::path::Path;
use std::process::Command;

use g8_fs::pack::PackOptions;
use serde_json::{Value, json};

use crate::flists::flist_program;
use crate::harness::{Node, runs, until, with_own_network};
use crate::image::pack_with;
use crate::place::{Place, data, names};

#[test]
fn an_flist_is_found_by_whatever_names_it_and_wherever_it_is() {
    with_own_network(|| {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home").display().to_string();
        let mut place = Place::on(Node::start_with(folder.path(), &[("XDG_DATA_HOME", &home)]));
        let tag = |name: &str, cid: &str| {
            let mut flist = Command::new(flist_program());
            flist.args(["tag", name, cid]).env("XDG_DATA_HOME", &home);
            assert!(flist.status().unwrap().success());
        };
        tag("our/web", &place.cid);
        let (cid, storage) = (place.cid.clone(), place.storage.clone());
        // Nobody listens at the first. It is what the mount is made with.
        let several = format!("http://127.0.0.1:9, {storage}");
        let made = [
            json!({"storage": several}),
            json!({"root": format!("ipfs://{cid}")}),
            json!({"root": format!("/ipfs/{cid}")}),
            json!({"root": "our/web"}),
            // A hint is asked after the sources, and not at all when they have it.
            json!({"root": format!("{cid}?gw=https%3A%2F%2Fgateway.invalid")}),
        ]
        .map(|mut arguments| {
            arguments["nics"] = json!([]);
            place.created(arguments)
        });
        for id in made {
            assert_eq!(place.sh(id, "echo here"), "here\n");
        }
        assert_eq!(
            names(&folder.path().join("flists")),
            std::slice::from_ref(&cid),
            "all of them have one mount"
        );
        for (arguments, code, expected) in [
            (json!({"root": "our/unknown"}), 404, "our/unknown"),
            (json!({"root": format!("{cid}?color=red")}), 400, "unknown hint"),
            (
                json!({"root": format!("{cid}?gw=http%3A%2F%2Fme%3Asecret%40gateway.invalid")}),
                400,
                "credentials",
            ),
        ] {
            let (found, said) = place.refused(arguments.clone());
            assert!(found == code && said.contains(expected), "{arguments}: {found} {said}");
            assert!(!said.contains("secret"), "{said}");
        }
        // What a name leads to is looked up for each container.
        fs::write(place.tree().join("etc/release"), "second").unwrap();
        let second = place.pack(&PackOptions::default());
        tag("our/web", &second);
        let newer = place.created(json!({"root": "our/web", "nics": []}));
        assert_eq!(place.sh(newer, "cat /etc/release"), "second\n");
        for id in made.into_iter().chain([newer]) {
            place.terminate(id);
        }
        place.until_nothing_is_left();
        place.node.stop();
    });
}

#[test]
fn folders_of_the_host_are_shown_for_writing_flists_for_reading_and_images_are_nobodys_to_change() {
    with_own_network(|| {
        let place = Place::new();
        let other = place.node.dir.join("other");
        fs::create_dir_all(other.join("deep")).unwrap();
        fs::write(other.join("deep/file"), "of another flist").unwrap();
        let other = pack_with(&other, &place.node.dir.join("store"), &PackOptions::default());
        let shown = place.node.dir.join("shown");
        fs::create_dir(&shown).unwrap();
        fs::write(shown.join("file"), "of the host").unwrap();
        let mounts = json!({shown.to_str().unwrap(): "/srv/host", (&other): "/srv/flist"});
        let [first, second] =
            [json!({"mount": mounts, "nics": []}), json!({"nics": []})].map(|m| place.created(m));
        assert_eq!(
            place.sh(first, "cat /srv/host/file /srv/flist/deep/file"),
            "of the hostof another flist\n"
        );
        assert_eq!(
            place.sh(first, "echo x 2>&1 > /srv/flist/deep/file || echo no"),
            "sh: can't create /srv/flist/deep/file: Read-only file system\nno\n"
        );
        assert_eq!(place.sh(first, "echo written > /srv/host/new && echo yes"), "yes\n");
        assert_eq!(fs::read_to_string(shown.join("new")).unwrap(), "written\n");
        // What one writes to its image nobody else sees, nor does the next.
        assert_eq!(place.sh(first, "echo changed > /etc/plain; cat /etc/plain"), "changed\n");
        let third = place.created(json!({"nics": []}));
        for id in [second, third] {
            assert_eq!(place.sh(id, "cat /etc/plain"), "no program\n");
        }
        for id in [first, second, third] {
            place.terminate(id);
        }
        place.until_nothing_is_left();
        assert_eq!(fs::read_to_string(place.tree().join("etc/plain")).unwrap(), "no program");
    });
}

#[test]
fn mounts_lie_in_one_another_and_what_nobody_would_see_is_refused() {
    with_own_network(|| {
        let place = Place::new();
        // By name the inner ones come first.
        let [outer, inner] = ["z-outer", "a-inner"].map(|name| {
            let folder = place.node.dir.join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("file"), name).unwrap();
            folder.display().to_string()
        });
        let mounts = json!({&outer: "/data", &inner: "/data/x/", &place.cid: "/data/x/flist"});
        let id = place.created(json!({"mount": mounts, "nics": []}));
        let read = "cat /data/file /data/x/file /data/x/flist/etc/plain";
        assert_eq!(place.sh(id, read), "z-outera-innerno program\n");
        place.terminate(id);
        for (arguments, expected) in [
            (json!({"mount": {&outer: "/data", &inner: "/data"}}), "two mounts have the same place"),
            (json!({"mount": {&outer: "/data", &inner: "//data/./"}}), "two mounts have the same place"),
            (json!({"mount": {&outer: "/data", &inner: "/x/../data"}}), "no place in a container"),
            (json!({"mount": {&outer: "/proc/driver"}}), "are the kernel's"),
            (json!({"mount": {&outer: "/sys"}}), "are the kernel's"),
            (json!({"mount": {&outer: "/dev/shm"}}), "are the kernel's"),
            (json!({"config": {"/dev/x": ""}}), "are the kernel's"),
            (json!({"mount": {&outer: "/data"}, "config": {"/data/conf": ""}}), "would be covered"),
            (json!({"mount": {&outer: "/data/"}, "config": {"/data": ""}}), "would be covered"),
        ] {
            let (code, said) = place.refused(arguments.clone());
            assert!(code == 400 && said.contains(expected), "{arguments}: {code} {said}");
        }
        place.until_nothing_is_left();
    });
}

#[test]
fn a_bound_that_nobody_would_keep_is_refused_whatever_it_is_called() {
    with_own_network(|| {
        let place = Place::new();
        for (arguments, code, expected) in [
            (json!({"limits": {"mem": 64 << 20}}), 400, "expected one of `memory`, `cpu`, `processes`"),
            (json!({"nics": [{"type": "default", "vlan": 7}]}), 400, "unknown field `vlan`"),
            (
                json!({"nics": [{"type": "default", "config": {"adress": "10.0.0.2/24"}}]}),
                400,
                "unknown field `adress`",
            ),
            (json!({"network": {"bridges": [["br0", ""]]}}), 400, "unknown field `bridges`"),
            (json!({"cgroups": [["memory", "small"]]}), 406, "give limits instead"),
            (json!({"identity": "secret"}), 406, "identity: nothing on this node speaks ZeroTier"),
        ] {
            let (found, said) = place.refused(arguments.clone());
            assert!(found == code && said.contains(expected), "{arguments}: {found} {said}");
        }
        // As later clients send what they do not ask for, and what changes nothing here.
        let harmless = json!({"cgroups": null, "identity": "", "limits": {"memory": null}, "newer": 7});
        for more in [harmless, json!({"cgroups": [], "identity": null})] {
            let mut wanted = json!({"nics": []});
            wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            place.terminate(place.created(wanted));
        }
        place.until_nothing_is_left();
    });
}

/// The controllers of cgroup version 2 that there are here.
fn controllers() -> String {
    let roots =
        ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|root| Path::new(root).join("cgroup.controllers"));
    roots.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default()
}

#[test]
fn a_limit_is_kept_or_the_container_is_refused_with_the_name_of_what_is_missing() {
    with_own_network(|| {
        let place = Place::new();
        for (limits, controller, file, kept) in [
            (json!({"memory": 64 << 20}), "memory", "memory.max", "67108864"),
            (json!({"cpu": 0.5}), "cpu", "cpu.max", "50000 100000"),
            (json!({"processes": 50}), "pids", "pids.max", "50"),
        ] {
            let wanted = json!({"limits": limits, "nics": []});
            if controllers().split_whitespace().any(|has| has == controller) {
                let id = place.created(wanted);
                let pid = &place.list()[id.to_string()]["container"]["pid"];
                let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
                let cgroup = cgroup.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
                let value = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
                    .iter()
                    .find_map(|root| fs::read_to_string(Path::new(root).join(cgroup).join(file)).ok());
                assert_eq!(value.unwrap().trim(), kept, "{limits}");
                place.terminate(id);
            } else {
                let (code, said) = place.refused(wanted);
                let expected = format!("no {controller} controller here");
                assert!(code == 412 && said.contains(&expected), "{limits}: {code} {said}");
            }
        }
        place.until_nothing_is_left();
    });
}

#[test]
fn a_container_is_fenced_in_unless_it_is_privileged() {
    with_own_network(|| {
        let place = Place::new();
        let [plain, privileged] =
            [false, true].map(|privileged| place.created(json!({"privileged": privileged, "nics": []})));
        let shown = |id: u64| place.list()[id.to_string()]["container"]["arguments"]["privileged"].clone();
        assert_eq!([plain, privileged].map(shown), [json!(false), json!(true)]);
        let status = |id: u64, field: &str| {
            let said = place.sh(id, &format!("grep -E '^{field}:' /proc/self/status"));
            said.split_whitespace().nth(1).unwrap_or_else(|| panic!("{said}")).to_owned()
        };
        // What is started by a command has what the container has, and no more.
        assert_eq!(
            ["CapEff", "CapBnd", "NoNewPrivs", "Seccomp"].map(|field| status(plain, field)),
            ["00000000a80425fb", "00000000a80425fb", "1", "2"]
        );
        let own = fs::read_to_string("/proc/self/status").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
        assert_eq!([status(privileged, "CapEff"), status(privileged, "NoNewPrivs")], [own, "0"]);
        let users = |id: u64| {
            let map = place.sh(id, "cat /proc/self/uid_map");
            map.split_whitespace().map(|number| number.parse::<u64>().unwrap()).collect::<Vec<_>>()
        };
        assert!(matches!(users(plain)[..], [0, first, 65_536] if first >= 65_536), "{:?}", users(plain));
        assert_eq!(users(privileged)[..2], [0, 0]);
        let mount = "mount -t tmpfs none /tmp 2>/dev/null && echo mounted || echo refused";
        assert_eq!([plain, privileged].map(|id| place.sh(id, mount)), ["refused\n", "mounted\n"]);
        // Nothing of ours comes along: standard streams, and what ls itself has open.
        for id in [plain, privileged] {
            assert_eq!(place.sh(id, "ls /proc/self/fd"), "0\n1\n2\n3\n");
            assert_eq!(place.sh(id, "cat /proc/self/cgroup | grep ^0:"), "0::/\n");
        }
        for id in [plain, privileged] {
            place.terminate(id);
        }
        place.until_nothing_is_left();
    });
}

#[test]
fn the_network_of_the_node_is_lent_without_its_low_ports_unless_privileged() {
    with_own_network(|| {
        let place = Place::new();
        let [plain, privileged] = [false, true]
            .map(|privileged| place.created(json!({"host_network": true, "privileged": privileged})));
        let serve = |id: u64, port: u16| place.sh(id, &format!("httpd -p {port} 2>&1 && echo serves"));
        let refused = serve(plain, 80);
        assert!(refused.contains("Permission denied") && !refused.contains("serves"), "{refused}");
        assert_eq!([serve(plain, 8080), serve(privileged, 80)], ["serves\n", "serves\n"]);
        for id in [plain, privileged] {
            place.terminate(id);
        }
        place.until_nothing_is_left();
    });
}

#[test]
fn the_end_of_a_container_is_answered_before_it_has_ended() {
    with_own_network(|| {
        let place = Place::new();
        // It ends by force, two seconds after it was asked to: of three machines one is that fast.
        let is_early = || {
            let id = place.created(
                json!({"nics": [], "entrypoint": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]}),
            );
            let pid = place.list()[id.to_string()]["container"]["pid"].as_i64().unwrap() as i32;
            until("it ignores the signal", || place.sh(id, "ps").contains("sleep 1"));
            place.terminate(id);
            let early = runs(pid);
            assert_eq!(
                place.list()[id.to_string()],
                Value::Null,
                "who is told that it ends does not find it"
            );
            assert_eq!(place.node.call("corex.terminate", json!({"container": id}))["code"], 404);
            until("it has ended", || !runs(pid));
            early
        };
        assert!((0..3).any(|_| is_early()), "it is answered when all is gone");
        place.until_nothing_is_left();
        assert_eq!(data(&place.node.call("corex.list", json!({}))), json!({}));
    });
}
