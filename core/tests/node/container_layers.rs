//! Containers that write to a disk of the node: what is there meanwhile, what is left, and where it cannot be.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::{until, with_own_mounts, with_own_network};
use crate::place::{Place, data, names};

/// A place whose containers write below `disk`.
fn with_disk(dir: &Path, disk: &Path) -> Place {
    Place::configured(dir, &format!("[containers]\ndisk = {disk:?}\n"))
}

fn mount(arguments: &[&str]) {
    assert!(Command::new("mount").args(arguments).status().unwrap().success(), "mount {arguments:?}");
}

#[test]
fn what_a_container_writes_to_the_disk_is_there_until_it_ends_also_for_the_next_manager() {
    with_own_network(|| {
        let mut place = Place::new();
        let layers = place.node.dir.join("layers");
        let ids: Vec<u64> = [false, true]
            .map(|privileged| place.created(json!({"upper": "disk", "privileged": privileged, "nics": []})))
            .into();
        let script = "echo written > /file; echo changed > /etc/plain; rm -r /tmp; mkdir /tmp; touch /tmp/a; ls -a /tmp";
        for &id in &ids {
            assert_eq!(place.sh(id, script), ".\n..\na\n", "a folder of the image is made anew");
            let written = layers.join(id.to_string()).join("upper/file");
            assert_eq!(fs::read_to_string(&written).unwrap(), "written\n");
            // On the disk it is root's, whoever that is in there: so nobody else may come near it.
            assert_eq!(fs::metadata(&written).unwrap().uid(), 0);
            let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
            assert_eq!((mode(&layers), mode(&layers.join(id.to_string()))), (0o700, 0o700));
        }
        let listed = data(&place.node.call("corex.get", json!({"query": ids[0]})));
        assert_eq!(listed["container"]["arguments"]["upper"], "disk");
        place.node.kill_manager();
        place.node.restart();
        for &id in &ids {
            assert_eq!(place.sh(id, "cat /file /etc/plain; echo more >> /file"), "written\nchanged\n");
            place.terminate(id);
        }
        place.until_nothing_is_left();
        until("the layers are removed", || names(&layers).is_empty());
        // The flist is as it was.
        let id = place.created(json!({"upper": "disk", "nics": []}));
        assert_eq!(place.sh(id, "cat /etc/plain; test -e /file || echo , gone"), "no program, gone\n");
        place.terminate(id);
        place.until_nothing_is_left();
        until("the layers are removed", || names(&layers).is_empty());
    });
}

#[test]
fn a_layer_of_a_container_that_died_with_its_spawner_is_removed_by_the_next_manager() {
    with_own_network(|| {
        let mut place = Place::new();
        let layers = place.node.dir.join("layers");
        let id = place.created(json!({"upper": "disk", "nics": []}));
        // Deeper than any path.
        place
            .sh(id, "i=0; while [ $i -lt 1500 ]; do mkdir folder; cd folder; i=$((i + 1)); done; touch file");
        let spawner = place.node.pid_of("spawner");
        place.node.kill_manager();
        crate::harness::signal(spawner, libc::SIGKILL);
        until("the spawner is gone", || !crate::harness::runs(spawner));
        assert_eq!(names(&layers), [id.to_string()]);
        place.node.restart();
        until("the layer is removed", || names(&layers).is_empty());
        place.until_nothing_is_left();
    });
}

#[test]
fn a_place_that_cannot_hold_layers_is_told_with_why_and_leaves_nothing() {
    with_own_mounts(|| {
        let folder = tempfile::tempdir().unwrap();
        let [overlay, bare] = ["overlay", "bare"].map(|name| folder.path().join(name));
        let below = folder.path().join("below");
        for path in [&overlay, &bare, &below.join("lower"), &below.join("upper"), &below.join("work")] {
            fs::create_dir_all(path).unwrap();
        }
        let layers_of = |name: &str| format!("{name}dir={}", below.join(name).display());
        let options = ["lower", "upper", "work"].map(layers_of).join(",");
        mount(&["-t", "overlay", "overlay", "-o", &options, overlay.to_str().unwrap()]);
        // It keeps no attributes.
        mount(&["-t", "ramfs", "ramfs", bare.to_str().unwrap()]);
        for (name, disk, expected) in
            [("a", &overlay, "on an overlay itself"), ("b", &bare, "keeps no extended attributes")]
        {
            let dir = folder.path().join(name);
            fs::create_dir(&dir).unwrap();
            let place = with_disk(&dir, disk);
            for privileged in [false, true] {
                let (code, said) =
                    place.refused(json!({"upper": "disk", "privileged": privileged, "nics": []}));
                let named = said.contains("cannot have the upper layer in") && said.contains(expected);
                assert!(code == 412 && named, "{code} {said}");
            }
            until("nothing is left there", || names(disk).is_empty());
            place.until_nothing_is_left();
            // Memory is no matter of it.
            let id = place.created(json!({"nics": []}));
            assert_eq!(place.sh(id, "echo here > /file; cat /file"), "here\n");
            place.terminate(id);
            place.until_nothing_is_left();
        }
    });
}

#[test]
fn a_size_that_nobody_keeps_and_a_folder_of_another_node_are_refused() {
    with_own_network(|| {
        let folder = tempfile::tempdir().unwrap();
        let (disk, [a, b]) = (folder.path().join("disk"), ["a", "b"].map(|name| folder.path().join(name)));
        for dir in [&a, &b] {
            fs::create_dir(dir).unwrap();
        }
        let first = with_disk(&a, &disk);
        let (code, said) = first.refused(json!({"upper": "disk", "upper_size": 1 << 20, "nics": []}));
        assert!(code == 400 && said.contains("upper_size cannot be kept on a disk"), "{code} {said}");
        let id = first.created(json!({"upper": "disk", "nics": []}));
        let second = with_disk(&b, &disk);
        let (code, said) = second.refused(json!({"upper": "disk", "nics": []}));
        assert!(code == 412 && said.contains("another node has it"), "{code} {said}");
        // It has not swept away what it does not have.
        assert_eq!(first.sh(id, "echo here > /file; cat /file"), "here\n");
        first.terminate(id);
        for place in [first, second] {
            place.until_nothing_is_left();
        }
        until("the layers are removed", || names(&disk).is_empty());
    });
}
