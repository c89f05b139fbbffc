//! Follows the bootstrap file: asks for it whenever there is a network, and again from time to time, and tells what it says and
//! what came of it. Whatever goes wrong is told and tried again; what held before holds on.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::document::{Document, Image};
use super::fetch::{FetchError, fetch};
use super::judge::{Judge, Refused};
use super::medium::{Named, file_at};
use super::mounts::{self, Mounts};
use super::signature::{Key, SignatureError};
use crate::boot::network;
use crate::boot::network::plan::Endpoint;

/// How often the file is asked for while all is well, in seconds.
const AGAIN: u64 = 300;
/// Pauses while it is not, in seconds.
const PAUSE: [u64; 5] = [2, 5, 15, 60, AGAIN];
/// How often it is looked whether the file that is followed has expired.
const LOOK: Duration = Duration::from_secs(30);

/// Where things are.
pub struct Setup {
    /// The server; a medium may name one late.
    pub named: watch::Receiver<Named>,
    /// The public key.
    pub key: PathBuf,
    /// Where the file is kept that is followed.
    pub kept: PathBuf,
    /// What this machine runs.
    pub manifest: PathBuf,
    /// Who looks for a network is told of controllers.
    pub controllers: watch::Sender<Vec<Endpoint>>,
    /// What the services make of its mounts.
    pub mounts: watch::Receiver<Mounts>,
}

/// What a node knows of its bootstrap file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// For `core.state`.
    pub shown: Shown,
    /// The file that is followed.
    pub document: Option<Arc<Document>>,
    /// The server was asked, or there is none to ask.
    pub asked: bool,
}

/// The bootstrap file, as `core.state` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Shown {
    /// Where it is asked for; absent when nobody names a server.
    pub url: Option<String>,
    /// The number of the file that is followed.
    pub sequence: Option<u64>,
    /// When that expires.
    pub expires: Option<String>,
    /// What this machine runs: SHA-256 of the manifest of its image.
    pub build_id: Option<String>,
    /// The image that should run, when it is another one.
    pub update_wanted: Option<UpdateWanted>,
    /// Flists by their places: `mounted`, or why not.
    pub mounts: Mounts,
    /// What is wrong: why the last file is not followed, and what of the one that is cannot be done.
    pub trouble: Vec<String>,
}

/// An image that should run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct UpdateWanted {
    /// SHA-256 of its manifest.
    pub build_id: String,
    /// Where it is.
    pub image_cid: String,
    /// Its number.
    pub sequence: u64,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.url, self.sequence) {
            (None, None) => f.write_str("no server is named")?,
            (_, Some(sequence)) => write!(f, "sequence {sequence}")?,
            (Some(_), None) => f.write_str("none is followed")?,
        }
        if let Some(update) = &self.update_wanted {
            write!(f, "; update wanted: image {}", update.image_cid)?;
        }
        let mounted = self.mounts.values().filter(|how| *how == mounts::MOUNTED).count();
        if !self.mounts.is_empty() {
            write!(f, "; {mounted} of {} flists mounted", self.mounts.len())?;
        }
        self.trouble.iter().try_for_each(|trouble| write!(f, "; {trouble}"))
    }
}

/// Why the last file is not followed.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error("{0}: {1}")]
    Refused(String, #[source] Refused),
}

/// Begins to follow, and goes on in the background. It ends when nobody looks any more.
pub fn start(setup: Setup, network: watch::Receiver<network::State>) -> watch::Receiver<State> {
    let (state, seen) = watch::channel(State::default());
    // Whoever looks first finds what was kept.
    let mut follower = Follower::new(setup, state.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = state.closed() => {}
            () = follower.for_ever(network) => {}
        }
    });
    seen
}

/// See the module's text.
pub(super) struct Follower {
    setup: Setup,
    state: watch::Sender<State>,
    judge: Result<Judge, SignatureError>,
    build_id: Option<String>,
    asked: bool,
    /// Why the last file is not followed.
    refused: Option<String>,
}

impl Follower {
    /// With what was kept, which it tells.
    pub(super) fn new(setup: Setup, state: watch::Sender<State>) -> Self {
        let judge = Key::load(&setup.key).map(|key| Judge::open(key, &setup.kept));
        let build_id = build_id(&setup.manifest);
        let asked = setup.named.borrow().server.is_none();
        let follower = Self { setup, state, judge, build_id, asked, refused: None };
        follower.tell(jiff::Timestamp::now());
        follower
    }

    async fn for_ever(&mut self, mut network: watch::Receiver<network::State>) {
        let mut failures = 0;
        loop {
            let is_up = network.wait_for(|state| matches!(state, network::State::Up(_)));
            if !self.tell_until(async { is_up.await.is_ok() }).await {
                return;
            }
            let is_well = self.round().await;
            failures = if is_well { 0 } else { failures + 1 };
            let pause = if is_well { AGAIN } else { PAUSE[(failures - 1).min(PAUSE.len() - 1)] };
            let again = Instant::now() + Duration::from_secs(pause);
            let mut named = self.setup.named.clone();
            let is_named_anew = async {
                tokio::select! {
                    () = sleep_until(again) => false,
                    changed = named.changed() => match changed {
                        Ok(()) => true,
                        // It was known from the start, or nobody looks any more.
                        Err(_) => std::future::pending().await,
                    },
                }
            };
            if self.tell_until(is_named_anew).await {
                failures = 0;
            }
        }
    }

    /// Waits for something, and tells meanwhile what becomes of what the file says.
    async fn tell_until<T>(&mut self, event: impl Future<Output = T>) -> T {
        let mut mounts = self.setup.mounts.clone();
        tokio::pin!(event);
        loop {
            let look = async {
                let changed = tokio::time::timeout(LOOK, mounts.changed()).await;
                if changed.is_ok_and(|changed| changed.is_err()) {
                    // Nobody shows them any more.
                    tokio::time::sleep(LOOK).await;
                }
            };
            tokio::select! {
                happened = &mut event => return happened,
                () = look => self.tell(jiff::Timestamp::now()),
            }
        }
    }

    /// Asks, and tells what came of it. Says whether all is well.
    pub(super) async fn round(&mut self) -> bool {
        let server = self.setup.named.borrow_and_update().server.clone();
        let now = jiff::Timestamp::now();
        self.refused = match server {
            None => None,
            Some(server) => self.ask(&server, now).await.err().map(|e| e.to_string()),
        };
        self.asked = true;
        self.tell(now);
        self.refused.is_none()
    }

    async fn ask(&mut self, server: &Endpoint, now: jiff::Timestamp) -> Result<(), FollowError> {
        let judge = match &mut self.judge {
            Ok(judge) => judge,
            Err(_) => {
                let judge = Judge::open(Key::load(&self.setup.key)?, &self.setup.kept);
                self.judge = Ok(judge);
                self.judge.as_mut().expect("it was put there")
            }
        };
        let url = file_at(server);
        let signed = fetch(&url).await?;
        let accepted = judge.accept(signed, now);
        accepted.map_err(|e| FollowError::Refused(url.to_string(), e)).map(drop)
    }

    fn document(&self) -> Option<&Document> {
        self.judge.as_ref().ok().and_then(Judge::kept)
    }

    /// Says how things are, when they are not as they were.
    fn tell(&self, now: jiff::Timestamp) {
        let document = self.document();
        let named = self.setup.named.borrow().clone();
        let mounts = self.setup.mounts.borrow().clone();
        let mut trouble: Vec<String> = named.trouble.into_iter().chain(self.refused.clone()).collect();
        if let Some(document) = document.filter(|document| document.expires <= now) {
            trouble.push(format!(
                "the file that is followed has expired at {}: it is followed until a newer one comes",
                document.expires
            ));
        }
        if let Some(overlay) = document.and_then(|document| document.overlay.as_ref()) {
            trouble.push(format!("overlay {} is not joined: this node can join none yet", overlay.zerotier));
        }
        let missing = mounts.iter().filter(|(_, how)| mounts::is_trouble(how));
        trouble.extend(missing.map(|(at, how)| format!("{at}: {how}")));
        let image = document.and_then(|document| document.image.as_ref());
        let shown = Shown {
            url: named.server.as_ref().map(|server| file_at(server).to_string()),
            sequence: document.map(|document| document.sequence),
            expires: document.map(|document| document.expires.to_string()),
            build_id: self.build_id.clone(),
            update_wanted: image.and_then(|image| update(image, self.build_id.as_deref())),
            mounts,
            trouble,
        };
        let controllers = document.map(|document| document.controllers.clone()).unwrap_or_default();
        self.setup.controllers.send_if_modified(|known| {
            let is_new = *known != controllers;
            *known = controllers;
            is_new
        });
        let told = State { shown, document: document.cloned().map(Arc::new), asked: self.asked };
        self.state.send_if_modified(|known| {
            let is_new = *known != told;
            *known = told;
            is_new
        });
    }
}

/// The image that is wanted, when it is not the one that runs.
fn update(image: &Image, own: Option<&str>) -> Option<UpdateWanted> {
    (own != Some(image.build_id.0.as_str())).then(|| UpdateWanted {
        build_id: image.build_id.0.clone(),
        image_cid: image.image_cid.to_string(),
        sequence: image.sequence,
    })
}

/// SHA-256 of the manifest that the image has of itself.
fn build_id(manifest: &Path) -> Option<String> {
    let bytes = fs::read(manifest).ok()?;
    Some(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}
