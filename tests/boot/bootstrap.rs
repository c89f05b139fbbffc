//! A machine follows the bootstrap file that the host serves, which a stick names: signed, with a wanted image, the system's
//! flist and another one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::guest::{Guest, Own};
use harness::{Flist, Operator, Place, process, wait};
use serde_json::json;

use crate::PATIENCE;
use crate::boot::containers::fill;

/// The host: one server of the file and of the flist in it.
pub struct Host {
    operator: Operator,
    stick: PathBuf,
    flist: Flist,
    cid: String,
}

impl Host {
    pub fn new(place: &Place) -> Self {
        let (flist, cid) = Flist::with_image();
        let operator = Operator::new(place, flist.store());
        let (named, stick) = (place.join("bootstrap_0.yaml"), place.join("stick"));
        operator.names_itself(&named);
        fat(&stick, &named);
        let host = Self { operator, stick, flist, cid };
        host.says(7, "");
        host
    }

    /// Gives another file, with something more in it.
    fn says(&self, sequence: u64, more: &str) {
        let (cid, url) = (&self.cid, self.operator.url());
        self.operator.publish(&format!(
            "sequence: {sequence}\narch: i64\nexpires: 2100-01-01T00:00:00Z\n\
             image: {{build_id: {}, image_cid: {cid}, sequence: 3}}\nsystem: {cid}\n\
             mounts: [{{flist: {cid}, path: /var/lib/told}}]\nsources: ['{url}']\ncontrollers: ['{url}']\n\
             overlay: {{zerotier: 8056c2e21c000001}}\n{more}",
            "ab".repeat(32)
        ));
    }

    /// What its machines have of their own: the key in the image, and a stick that names the server.
    pub fn own(&self) -> Own {
        // As iPXE passes it.
        let arguments = "zerotier=8056c2e21c000001".into();
        Own { media: vec![self.stick.clone()], arguments, ..self.operator.own() }
    }

    /// A container and a mount for which nobody names a source come from that of the file, which alone has them.
    pub fn is_the_source(&self, guest: &Guest) {
        let root = self.flist.home().dir("by-cid");
        fill(&root, "of the file's source");
        let cid = self.flist.pack(&root);
        let container = guest.call("corex.create", json!({"root": cid}));
        let inner = json!({"command": "bash", "arguments": {"script": "cat /etc/motd"}});
        let id = guest.call("corex.dispatch", json!({"container": container, "command": inner}));
        let result = guest.result_of(id.as_str().expect("the id of a command"));
        assert_eq!(result["streams"][0], "of the file's source\n", "{result}");
        guest.call("corex.terminate", json!({"container": container}));
        guest.bash("mkdir /var/by-cid");
        guest.call("flist.mount", json!({"ref": cid, "mountpoint": "/var/by-cid"}));
        assert_eq!(guest.bash("cat /var/by-cid/etc/motd"), "of the file's source");
        guest.call("flist.umount", json!({"mountpoint": "/var/by-cid"}));
    }

    /// A machine that was given no password has that of the file, in plain or as its SHA-256; and a network is one by which the
    /// controllers of the file are reached.
    pub fn lets_in(&self, guest: &Guest) {
        const PLAIN: &str = "of the file";
        // The next manager is told nothing of a password by the kernel.
        guest.bash(
            "sed 's/redis.sha256=[0-9a-f]*//' /proc/cmdline > /run/cmdline; mount --bind /run/cmdline /proc/cmdline",
        );
        let says_pong = |password: &str| {
            let ping = |mut connection| redis::cmd("PING").query::<String>(&mut connection);
            guest.connect(Some(password)).and_then(ping).is_ok()
        };
        let replaced = |by: &str, before: &str| {
            wait::until("the password of the file opens redis", PATIENCE, || says_pong(by));
            wait::until("the one before does not any more", PATIENCE, || !says_pong(before));
        };
        self.says(8, &format!("redis: {{password: '{PLAIN}'}}\n"));
        guest.bash_or_interrupted(KILL);
        replaced(PLAIN, guest.password());
        let at = format!("controller {}", self.operator.url());
        guest.until_it_says(&at);
        let hash = process::run(
            Command::new("sh").args(["-c", &format!("printf '{}' | sha256sum", guest.password())]),
            PATIENCE,
        );
        let hash = hash.ok().text();
        self.says(9, &format!("redis: {{password_sha256: {}}}\n", &hash[..64]));
        // Whoever has that password is the administrator. The network may just be looked for again.
        let command =
            json!({"id": "by-the-file", "command": "bash", "arguments": {"script": KILL}}).to_string();
        wait::until("a command is taken from who has the password of the file", PATIENCE, || {
            let send =
                |mut connection| redis::cmd("RPUSH").arg("core:default").arg(&command).exec(&mut connection);
            guest.connect(Some(PLAIN)).and_then(send).is_ok()
        });
        replaced(guest.password(), PLAIN);
        // Who came in with the one before may be cut off just now.
        let mut asked = 0;
        wait::until("the file is followed", PATIENCE, || {
            asked += 1;
            let id = format!("followed-{asked}");
            let command = json!({"id": id, "command": "core.state"}).to_string();
            let ask = |mut connection| {
                redis::cmd("RPUSH").arg("core:default").arg(command).exec(&mut connection)?;
                redis::cmd("BLPOP")
                    .arg(format!("result:{id}"))
                    .arg(5)
                    .query::<(String, String)>(&mut connection)
            };
            let (_, result) = guest.connect(Some(guest.password())).and_then(ask).unwrap_or_default();
            result.contains(r#"\"sequence\":9"#)
        });
    }
}

/// Kills the manager.
const KILL: &str = "for p in /proc/[0-9]*; do if tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q '^[^ ]*core0 run'; then kill -9 ${p#/proc/}; fi; done & true";

/// A FAT file system with one file in it.
fn fat(image: &Path, file: &Path) {
    fs::File::create(image).and_then(|file| file.set_len(16 << 20)).unwrap();
    let mut format = Command::new("mformat");
    process::run(format.arg("-i").arg(image).args(["-T", "32768", "-h", "255", "-s", "63", "::"]), PATIENCE)
        .ok();
    let mut copy = Command::new("mcopy");
    process::run(copy.arg("-i").arg(image).args(["-m".as_ref(), file.as_os_str(), "::".as_ref()]), PATIENCE)
        .ok();
}

pub fn is_followed(guest: &Guest) {
    let known = || guest.call("core.state", json!({}))["bootstrap"].clone();
    wait::until("both flists are mounted", PATIENCE, || {
        let mounts = known()["mounts"].clone();
        mounts == json!({"/system": "mounted", "/var/lib/told": "mounted"})
    });
    let known = known();
    assert_eq!((&known["sequence"], &known["update_wanted"]["sequence"]), (&json!(7), &json!(3)), "{known}");
    let services = guest.call("service.list", json!({}));
    for name in ["mount:/system", "mount:/var/lib/told"] {
        assert_eq!(services[name]["state"], "ready", "{services}");
    }
    let own = guest.bash("sha256sum /etc/g8os/manifest | cut -c 1-64");
    assert_eq!(known["build_id"], own);
    assert_eq!(known["trouble"].as_array().map(Vec::len), Some(1), "{known}");
    for place in ["/system", "/var/lib/told"] {
        assert_eq!(guest.bash(&format!("cat {place}/hello")), "hello, world");
        assert_eq!(guest.bash(&format!("touch {place}/x 2>/dev/null && echo written || true")), "");
    }
    // The mount of the stick is nowhere, and gone.
    assert_eq!(guest.bash("grep -c vfat /proc/mounts || true"), "0");
    let told = guest.bash("cat /run/core0/bootstrap/medium/bootstrap.yaml /proc/cmdline");
    assert!(told.starts_with("url: http://10.0.2.2:") && !told.contains("bootstrap="), "{told}");
    guest.until_it_says("sequence 7; update wanted: image bafyrei");
    let said = guest.said();
    assert!(said.contains("overlay 8056c2e21c000001 is not joined"), "{said}");
    assert!(said.contains("zerotier=8056c2e21c000001 is not joined yet"), "{said}");
}
