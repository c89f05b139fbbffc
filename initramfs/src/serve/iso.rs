//! The ISO that all others are made from: iPXE for BIOS and for UEFI with a script. Nothing in an ISO depends on what the
//! script says, so another network's number is written over the place for it.

use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::content::Content;
use super::network_id::DIGITS;
use super::script::{PLACE, Script};
use super::{ISO, NetworkId, ServeError};
use crate::lock::hex;
use crate::media::ipxe::{self, Parts};

/// The ISO is longer than this only by mistake: each request takes a copy of it.
const LONGEST: usize = 64 << 20;

/// See the module's text.
#[derive(Debug)]
pub struct Template {
    bytes: Vec<u8>,
    places: Vec<usize>,
    digest: String,
}

impl Template {
    /// Makes it from parts in a folder.
    pub fn make(parts: &Path, script: &Script) -> Result<Self, ServeError> {
        let began = Instant::now();
        let work =
            tempfile::tempdir().map_err(|source| ServeError::Read { path: std::env::temp_dir(), source })?;
        let made = work.path().join("g8os.iso");
        ipxe::iso(&Parts::of(parts), script.text(), work.path(), &made)?;
        let bytes = std::fs::read(&made).map_err(|source| ServeError::Read { path: made.clone(), source })?;
        let found = bytes.windows(DIGITS).enumerate().filter(|(_, window)| *window == PLACE.as_bytes());
        let places: Vec<usize> = found.map(|(at, _)| at).collect();
        // Once for BIOS, and once for UEFI.
        if places.len() != 2 || bytes.len() > LONGEST {
            return Err(ServeError::Template { places: places.len(), length: bytes.len() });
        }
        eprintln!("initramfs: an ISO of {} KiB in {:.1} s", bytes.len() >> 10, began.elapsed().as_secs_f64());
        let digest = hex(&Sha256::digest(&bytes))[..DIGITS].to_owned();
        Ok(Self { bytes, places, digest })
    }

    /// That of a network.
    pub fn of(&self, network: &NetworkId) -> Content {
        let mut bytes = self.bytes.clone();
        for place in &self.places {
            bytes[*place..*place + DIGITS].copy_from_slice(network.to_string().as_bytes());
        }
        // Template and number decide every byte, and hashing all of them would take longer than all the rest.
        Content::with_etag(Bytes::from(bytes), ISO, "g8os.iso", &format!("{}-{network}", self.digest))
    }
}
