//! An operator of nodes: signs bootstrap files, and serves them with the flists that they name.

use std::fs;
use std::path::{Path, PathBuf};

use minisign::KeyPair;

use crate::guest::Own;
use crate::{Origin, Place};

/// See the module's text.
pub struct Operator {
    origin: Origin,
    signer: KeyPair,
    served: PathBuf,
    key: PathBuf,
}

impl Operator {
    /// One whose server has the blocks of a store too.
    pub fn new(place: &Place, store: &Path) -> Self {
        let signer = KeyPair::generate_unencrypted_keypair().expect("a key can be made");
        let (served, key) = (place.dir("served"), place.join("bootstrap.pub"));
        let public = signer.pk.to_box().expect("a key has a box");
        fs::write(&key, public.to_string()).expect("the place is the test's own");
        let origin = Origin::over(store);
        origin.gives_files_of(&served);
        Self { origin, signer, served, key }
    }

    /// Where its server is for a guest.
    pub fn url(&self) -> String {
        format!("http://10.0.2.2:{}", self.origin.address().port())
    }

    /// Gives a file to all who ask from now on.
    pub fn publish(&self, text: &str) {
        let signature = minisign::sign(Some(&self.signer.pk), &self.signer.sk, text.as_bytes(), None, None);
        let signature = signature.expect("what is small can be signed").to_string();
        for (name, content) in [("bootstrap_i64.yaml", text), ("bootstrap_i64.yaml.minisig", &signature)] {
            fs::write(self.served.join(name), content).expect("the place is the test's own");
        }
    }

    /// What a machine of this operator has in its image: the key.
    pub fn own(&self) -> Own {
        Own { files: vec![("/etc/g8os/bootstrap.pub".into(), self.key.clone())], ..Own::default() }
    }

    /// The file that a medium has.
    pub fn names_itself(&self, at: &Path) {
        fs::write(at, format!("url: {}/boot\n", self.url())).expect("the place is the test's own");
    }
}
