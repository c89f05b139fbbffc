//! Who has signed a bootstrap file: [minisign](https://jedisct1.github.io/minisign/), which is Ed25519 over the BLAKE2b of the
//! file. The public key is in the image; the signature lies beside the file, with `.minisig` behind its name.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use minisign_verify::{PublicKey, Signature};

/// Longest file of a key or a signature.
pub const FILE_MAX: usize = 4096;

/// Who may sign.
pub struct Key(PublicKey);

/// Why nobody, or somebody else, has signed.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The image has no key.
    #[error("the image has no {}: it believes no bootstrap file", .0.display())]
    NoKey(PathBuf),
    /// The key cannot be read.
    #[error("cannot read {}: {}", .0.display(), .1)]
    Read(PathBuf, #[source] io::Error),
    /// The key is none.
    #[error("{} is no public key of minisign: {}", .0.display(), .1)]
    BadKey(PathBuf, minisign_verify::Error),
    /// The signature is none.
    #[error("its signature is none of minisign: {0}")]
    BadSignature(minisign_verify::Error),
    /// It was not signed by the key in the image, or it was changed.
    #[error("its signature does not hold: {0}")]
    Wrong(minisign_verify::Error),
}

impl Key {
    /// The key in a file, as `minisign -G` writes it.
    pub fn load(path: &Path) -> Result<Self, SignatureError> {
        let read = || {
            let mut text = String::new();
            File::open(path)?.take(FILE_MAX as u64).read_to_string(&mut text).map(|_| text)
        };
        match read() {
            Ok(text) => {
                PublicKey::decode(text.trim()).map(Self).map_err(|e| SignatureError::BadKey(path.into(), e))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(SignatureError::NoKey(path.into())),
            Err(e) => Err(SignatureError::Read(path.into(), e)),
        }
    }

    /// Whether it has signed these bytes.
    pub fn verify(&self, bytes: &[u8], signature: &str) -> Result<(), SignatureError> {
        let signature = Signature::decode(signature).map_err(SignatureError::BadSignature)?;
        // Without the legacy form, which signs the bytes themselves.
        self.0.verify(bytes, &signature, false).map_err(SignatureError::Wrong)
    }
}
