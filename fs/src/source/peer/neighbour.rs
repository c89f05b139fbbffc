//! A neighbour as a source: a gateway at one address, asked without following it anywhere else.

use std::net::SocketAddr;
use std::sync::Weak;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use g8_cache::{BlockId, FetchError, Origin, StoredBlock};
use parking_lot::Mutex;

use super::SPEC;
use super::browser::Shared;
use crate::source::http::{ClientError, HttpSource};

/// Failures in a row after which others are tried in its place.
const FAILING: u32 = 3;
/// How often it is asked whether it is still there.
const DOUBT_EVERY: Duration = Duration::from_secs(10);

/// The origin. It is shared by all lists that have it.
pub(super) struct Neighbour {
    http: HttpSource,
    /// Its name in DNS-SD, which is for mDNS and not for people.
    name: Mutex<String>,
    browser: Weak<Shared>,
    failures: AtomicU32,
    doubted: Mutex<Option<Instant>>,
}

impl Neighbour {
    pub(super) fn new(
        name: &str,
        address: SocketAddr,
        browser: Weak<Shared>,
    ) -> Result<Neighbour, ClientError> {
        let http = HttpSource::at(format!("{SPEC}http://{address}"), address)?;
        let name = Mutex::new(name.to_owned());
        Ok(Neighbour { http, name, browser, failures: AtomicU32::new(0), doubted: Mutex::new(None) })
    }

    /// It goes by another name.
    pub(super) fn rename(&self, name: &str) {
        name.clone_into(&mut self.name.lock());
    }

    /// Whether it did not work lately.
    pub(super) fn is_failing(&self) -> bool {
        self.failures.load(Relaxed) >= FAILING
    }

    /// Who went without a farewell is announced for up to 75 minutes; mDNS can find that out sooner (RFC 6762, 10.4).
    fn doubt(&self) {
        self.failures.fetch_add(1, Relaxed);
        let mut doubted = self.doubted.lock();
        if doubted.is_none_or(|last| last.elapsed() >= DOUBT_EVERY) {
            *doubted = Some(Instant::now());
            drop(doubted);
            if let Some(browser) = self.browser.upgrade() {
                browser.verify(&self.name.lock());
            }
        }
    }
}

#[async_trait]
impl Origin for Neighbour {
    fn spec(&self) -> &str {
        self.http.spec()
    }

    async fn fetch(&self, id: &BlockId) -> Result<StoredBlock, FetchError> {
        let outcome = self.http.fetch(id).await;
        match &outcome {
            Ok(_) | Err(FetchError::NotFound | FetchError::Busy(_)) => self.failures.store(0, Relaxed),
            Err(FetchError::Unavailable(_) | FetchError::Unfit(_)) => self.doubt(),
            // It is there, and judged elsewhere.
            Err(FetchError::TooLarge(_)) => {}
        }
        outcome
    }

    fn keep(&self) -> bool {
        true
    }

    fn is_remote(&self) -> bool {
        true
    }
}
