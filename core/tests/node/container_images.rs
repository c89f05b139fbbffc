//! What containers have of their images: what to run, and what happens when an image is wrong, or its source goes away.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use g8_fs::format::RunConfig;
use g8_fs::pack::PackOptions;
use serde_json::json;

use crate::harness::{until, with_own_network};
use crate::place::Place;

fn configured(config: RunConfig) -> PackOptions {
    PackOptions { config, ..PackOptions::default() }
}

#[test]
fn what_to_run_is_as_the_image_says_unless_it_is_asked_for() {
    with_own_network(|| {
        let place = Place::new();
        let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let script = "echo $A $B; id -u; pwd; echo $HOME; sleep 600";
        let cid = place.pack(&configured(RunConfig {
            entrypoint: strings(&["sh", "-c", script]),
            env: strings(&["A=image", "B=image too"]),
            user: Some("web".into()),
            workdir: Some("/tmp".into()),
            ..RunConfig::default()
        }));
        let log = || {
            let files = fs::read_dir(place.node.dir.join("log")).unwrap().flatten();
            files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect::<String>()
        };
        let said = |id: u64, line: &str| {
            let (source, line) = (format!("container {id}"), line.to_owned());
            until(&format!("container {id} says {line}"), || {
                log().lines().any(|entry| entry.contains(&source) && entry.contains(&format!("\"{line}\"")))
            });
        };
        let plain = place.created(json!({"root": cid, "nics": []}));
        for line in ["image image too", "33", "/tmp", "/srv"] {
            said(plain, line);
        }
        // What runs beside it has the variables and the folder, and is the container's root.
        assert_eq!(place.sh(plain, "echo $B; id -u; pwd"), "image too\n0\n/tmp\n");
        let told = json!({"name": "sh", "args": ["-c", "pwd"], "dir": "/etc"});
        assert_eq!(place.run(plain, "core.system", told)["streams"][0], "/etc\n");
        assert_eq!(place.run(plain, "bash", json!({"script": "pwd"}))["streams"][0], "/tmp\n");
        // A folder that is not there is made.
        let made = place.created(json!({"workdir": "/made/for/it", "nics": []}));
        assert_eq!(place.sh(made, "pwd"), "/made/for/it\n");
        place.terminate(made);
        let asked = json!({"root": cid, "nics": [], "env": {"A": "mine"}, "user": "0", "workdir": "/etc"});
        let mixed = place.created(asked);
        for line in ["mine image too", "0", "/etc"] {
            said(mixed, line);
        }
        // Another program, and none.
        let other =
            place.created(json!({"root": cid, "nics": [], "entrypoint": ["sh", "-c", "id -u; sleep 600"]}));
        said(other, "0");
        let idle = place.created(json!({"root": cid, "nics": [], "entrypoint": []}));
        assert!(!place.sh(idle, "ps").contains("sleep 600"));
        // The next manager knows it, too.
        let mut place = place;
        place.node.kill_manager();
        place.node.restart();
        assert_eq!(place.sh(plain, "echo $A"), "image\n");
        for id in [plain, mixed, other, idle] {
            place.terminate(id);
        }
        place.until_nothing_is_left();
    });
}

#[test]
fn programs_that_cannot_run_are_told_and_leave_nothing() {
    with_own_network(|| {
        let place = Place::new();
        let foreign = place.pack(&PackOptions { arch: Some("riscv64".into()), ..PackOptions::default() });
        // An executable of another machine in an image for this one: its header says so (elf.h, EM_AARCH64 and EM_X86_64).
        let (here, other) = if cfg!(target_arch = "x86_64") { ("amd64", 183_u16) } else { ("arm64", 62) };
        let mut elf = fs::read(place.tree().join("bin/busybox")).unwrap();
        elf[18..20].copy_from_slice(&other.to_le_bytes());
        for (name, content) in [("bin/foreign", elf.as_slice()), ("bin/script", b"#!/no/interpreter\n")] {
            fs::write(place.tree().join(name), content).unwrap();
            fs::set_permissions(place.tree().join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let config = RunConfig { entrypoint: vec!["/bin/gone".into()], ..RunConfig::default() };
        let cid = place.pack(&PackOptions { config, arch: Some(here.into()), ..PackOptions::default() });
        for (arguments, code, expected) in [
            (json!({"root": foreign}), 412, "are for riscv64, and this node is"),
            (json!({"root": cid}), 404, "/bin/gone"),
            (json!({"root": cid, "entrypoint": ["foreign"]}), 412, "Exec format error"),
            (json!({"root": cid, "entrypoint": ["/bin/script"]}), 404, "/bin/script"),
            (json!({"root": cid, "entrypoint": ["/etc/plain"]}), 412, "Permission denied"),
            (json!({"root": cid, "entrypoint": ["/etc"]}), 412, "/etc"),
            (json!({"root": cid, "entrypoint": [""]}), 400, "empty"),
        ] {
            let (found, said) = place.refused(arguments.clone());
            assert!(found == code && said.contains(expected), "{arguments}: {found} {said}");
        }
        let idle = place.created(json!({"root": cid, "entrypoint": [], "nics": []}));
        let result = place.run(idle, "core.system", json!({"name": "foreign"}));
        assert_eq!(result["state"], "ERROR", "{result}");
        place.terminate(idle);
        place.until_nothing_is_left();
    });
}

#[test]
fn a_source_that_is_lost_is_an_error_inside_until_it_is_back() {
    with_own_network(|| {
        let place = Place::new();
        let cid = place.pack_large_file();
        let id = place.created(json!({"root": cid, "nics": []}));
        assert_eq!(place.sh(id, "echo ready"), "ready\n");
        let (store, away) = (place.node.dir.join("store"), place.node.dir.join("away"));
        fs::rename(&store, &away).unwrap();
        let said = place.sh(id, "cat /large 2>&1 > /dev/null");
        assert!(said.contains("Input/output error"), "{said}");
        // What was read stays, and so do commands.
        assert_eq!(place.sh(id, "echo still here"), "still here\n");
        fs::rename(&away, &store).unwrap();
        until("it can be read again", || {
            let script = "cat /large > /dev/null 2>&1 && echo whole";
            place.sh(id, script) == "whole\n"
        });
        place.terminate(id);
        place.until_nothing_is_left();
    });
}
