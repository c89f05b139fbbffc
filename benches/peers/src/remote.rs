//! An image on another machine: its metadata is downloaded before the mount, its blobs are read by their registry client.
//!
//! In their deployments the bootstrap comes as an OCI layer of its own, together with a `.blob.meta` for every blob, and is
//! unpacked by whoever prepares the mount. Here that layer is `bootstrap.tar.zst`, one GET. The blobs are then read
//! by `nydus_backend`'s registry backend as it is, with its default timeouts, retries and runtime, from
//! `/v2/bench/image/blobs/sha256:DIGEST`. There is no manifest, no tag and no login to ask for: three to four round trips less
//! than a pull from a registry takes.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nydus_backend::{BlobBackend, build_backend};
use nydus_config::{BackendConfig, HttpConfig, RegistryConfig};

/// The layer with the metadata.
const LAYER: &str = "bootstrap.tar.zst";
const REPOSITORY: &str = "bench/image";

/// Whether this names an image on another machine.
pub fn is_url(image: &Path) -> bool {
    image.starts_with("http:") || image.starts_with("https:")
}

/// Unpacks the layer with the metadata of the image at `url` into `folder`.
pub fn download_metadata(url: &str, folder: &Path) -> Result<()> {
    let client = reqwest::blocking::Client::builder().no_proxy().build().context("make an HTTP client")?;
    let address = format!("{}/{LAYER}", url.trim_end_matches('/'));
    let answer = client.get(&address).send().with_context(|| format!("get {address}"))?;
    ensure!(answer.status().is_success(), "{address}: HTTP status {}", answer.status());
    let plain = zstd::stream::read::Decoder::new(answer).context("decode the layer")?;
    tar::Archive::new(plain).unpack(folder).with_context(|| format!("unpack {address}"))
}

/// Their backend for the blobs of the image at `url`, metered.
pub fn backend(url: &str) -> Result<Arc<dyn BlobBackend>> {
    let registry = RegistryConfig {
        addr: url.trim_end_matches('/').to_owned(),
        repository: REPOSITORY.to_owned(),
        auth: None,
        http: HttpConfig::default(),
        dragonfly: None,
    };
    build_backend(&BackendConfig::Registry(registry)).with_context(|| format!("use {url} as a registry"))
}
