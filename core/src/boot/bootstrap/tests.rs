//! Bootstrap files, good and bad: what is in them, who signed them, which of them is followed, and how they come.

mod documents;
mod servers;
mod signatures;

use std::path::Path;

use minisign::KeyPair;

use super::document::Arch;
use super::judge::Signed;
use super::signature::Key;

/// All that a file can say.
pub const WHOLE: &str = "\
sequence: 7
arch: i64
expires: 2030-01-31T12:00:00Z
image:
  build_id: ABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABAB
  image_cid: bafyreibijbanlsc2dlo74o2vcmxnzgb4gaj5cwjfv526b7biquxrtaaca4
  sequence: 3
system: bafyreibijbanlsc2dlo74o2vcmxnzgb4gaj5cwjfv526b7biquxrtaaca4
mounts:
  - {flist: bafyreibijbanlsc2dlo74o2vcmxnzgb4gaj5cwjfv526b7biquxrtaaca4, path: /var/lib/app}
redis: {password_sha256: abababababababababababababababababababababababababababababababab}
controllers: ['https://controller.example.org:8443', 'http://10.0.0.5']
sources: ['https://hub.example.org', 'http://10.0.0.1:8080']
overlay: {zerotier: 8056c2e21c000001}
";

/// Who signs in a test.
pub struct Signer(KeyPair);

impl Signer {
    pub fn new() -> Self {
        Self(KeyPair::generate_unencrypted_keypair().unwrap())
    }

    /// As `minisign -S` does it.
    pub fn sign(&self, text: &str) -> Signed {
        let signature = minisign::sign(Some(&self.0.pk), &self.0.sk, text.as_bytes(), None, None).unwrap();
        Signed { bytes: text.into(), signature: signature.to_string() }
    }

    /// Its key, from a file in `folder`.
    pub fn key(&self, folder: &Path) -> Key {
        let path = folder.join("bootstrap.pub");
        std::fs::write(&path, self.0.pk.to_box().unwrap().to_string()).unwrap();
        Key::load(&path).unwrap()
    }
}

/// A file of a number.
pub fn numbered(sequence: u64) -> String {
    expiring(sequence, "2030-01-31T12:00:00Z")
}

/// One that is taken up until then.
pub fn expiring(sequence: u64, expires: &str) -> String {
    let arch = Arch::own().expect("tests run where nodes do");
    format!("sequence: {sequence}\narch: {arch}\nexpires: {expires}\n")
}

/// One for machines that this is not.
pub fn of_others(sequence: u64) -> String {
    let (own, other) = if cfg!(target_arch = "x86_64") { ("i64", "arm64") } else { ("arm64", "i64") };
    numbered(sequence).replace(own, other)
}

/// Before the files of the tests expire.
pub fn now() -> jiff::Timestamp {
    "2029-01-01T00:00:00Z".parse().unwrap()
}
