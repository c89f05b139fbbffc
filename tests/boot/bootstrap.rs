//! A machine follows the bootstrap file that the host serves, which a stick names: signed, with a wanted image, the system's
//! flist and another one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::guest::{Guest, Own};
use harness::{Flist, Origin, Place, process, wait};
use serde_json::json;

use crate::PATIENCE;

/// The host: one server of the file and of the flist in it.
pub struct Host {
    _origin: Origin,
    key: PathBuf,
    stick: PathBuf,
    _flist: Flist,
}

impl Host {
    pub fn new(place: &Place) -> Self {
        let (flist, cid) = Flist::with_image();
        let origin = Origin::over(flist.store());
        let url = origin.url().replace("127.0.0.1", "10.0.2.2");
        let text = format!(
            "sequence: 7\nexpires: 2100-01-01T00:00:00Z\nimage: {{build_id: {}, image_cid: {cid}, sequence: 3}}\nsystem: {cid}\n\
             mounts: [{{flist: {cid}, path: /var/lib/told}}]\nsources: ['{url}']\noverlay: {{zerotier: 8056c2e21c000001}}\n",
            "ab".repeat(32)
        );
        let signer = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        let signature = minisign::sign(Some(&signer.pk), &signer.sk, text.as_bytes(), None, None).unwrap();
        let (files, key) = (place.dir("served"), place.join("bootstrap.pub"));
        fs::write(files.join("bootstrap_i64.yaml"), text).unwrap();
        fs::write(files.join("bootstrap_i64.yaml.minisig"), signature.to_string()).unwrap();
        fs::write(&key, signer.pk.to_box().unwrap().to_string()).unwrap();
        origin.gives_files_of(&files);
        let (named, stick) = (place.join("bootstrap_0.yaml"), place.join("stick"));
        fs::write(&named, format!("url: http://10.0.2.2:{}/boot\n", origin.address().port())).unwrap();
        fat(&stick, &named);
        Self { _origin: origin, key, stick, _flist: flist }
    }

    /// What its machines have of their own: the key in the image, and a stick that names the server.
    pub fn own(&self) -> Own {
        let files = vec![("/etc/g8os/bootstrap.pub".into(), self.key.clone())];
        Own { files, media: vec![self.stick.clone()], ..Own::default() }
    }
}

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
}
