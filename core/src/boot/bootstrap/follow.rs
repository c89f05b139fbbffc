//! Follows the bootstrap file: asks for it whenever there is a network, and again from time to time, does what a new one says,
//! and tells what came of it. Whatever goes wrong is told and tried again; what held before holds on.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use g8_cache::BlockId;
use g8_fs::engine::{MountError, mountpoint};
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::document::{Document, Image, Mount, may_be_mounted_on};
use super::fetch::{FetchError, fetch};
use super::judge::{Judge, Refused};
use super::medium::{Named, file_at};
use super::signature::{Key, SignatureError};
use crate::boot::network;
use crate::boot::network::plan::Endpoint;
use crate::domain::flist::{self, FlistError, Plan};

/// Where the system's components are shown.
pub const SYSTEM: &str = "/system";
/// How often the file is asked for while all is well, in seconds.
const AGAIN: u64 = 300;
/// Pauses while it is not, in seconds.
const PAUSE: [u64; 5] = [2, 5, 15, 60, AGAIN];

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
}

/// What a node knows of its bootstrap file.
#[derive(Clone, Debug, Default)]
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
    pub mounts: BTreeMap<String, String>,
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
        let mounted = self.mounts.values().filter(|how| *how == MOUNTED).count();
        if !self.mounts.is_empty() {
            write!(f, "; {mounted} of {} flists mounted", self.mounts.len())?;
        }
        self.trouble.iter().try_for_each(|trouble| write!(f, "; {trouble}"))
    }
}

/// That a mount is there.
const MOUNTED: &str = "mounted";

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
    tokio::spawn(async move {
        let mut follower = Follower::new(setup, state.clone());
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
    mounts: BTreeMap<PathBuf, BlockId>,
    asked: bool,
}

impl Follower {
    /// With what was kept.
    pub(super) fn new(setup: Setup, state: watch::Sender<State>) -> Self {
        let judge = Key::load(&setup.key).map(|key| Judge::open(key, &setup.kept));
        let build_id = build_id(&setup.manifest);
        let asked = setup.named.borrow().server.is_none();
        let mut follower = Self { setup, state, judge, build_id, mounts: BTreeMap::new(), asked };
        // An earlier manager has mounted them.
        follower.mounts = follower.wanted();
        follower
    }

    async fn for_ever(&mut self, mut network: watch::Receiver<network::State>) {
        let mut failures = 0;
        self.tell(None, BTreeMap::new());
        loop {
            if network.wait_for(|state| matches!(state, network::State::Up(_))).await.is_err() {
                return;
            }
            let is_well = self.round().await;
            failures = if is_well { 0 } else { failures + 1 };
            let pause = if is_well { AGAIN } else { PAUSE[(failures - 1).min(PAUSE.len() - 1)] };
            let named = async {
                if self.setup.named.changed().await.is_err() {
                    // It was known from the start, or nobody looks any more.
                    std::future::pending().await
                }
            };
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(pause)) => {}
                () = named => failures = 0,
            }
        }
    }

    /// Asks, and does what is not done yet. Says whether all is well.
    pub(super) async fn round(&mut self) -> bool {
        let server = self.setup.named.borrow_and_update().server.clone();
        let refused = match server {
            None => None,
            Some(server) => self.ask(&server).await.err().map(|e| e.to_string()),
        };
        self.asked = true;
        // What takes no time is there at once.
        let before = self.state.borrow().shown.mounts.clone();
        self.tell(refused.clone(), before);
        let mounts = self.mount().await;
        let is_well = refused.is_none() && mounts.values().all(|how| how == MOUNTED);
        self.tell(refused, mounts);
        is_well
    }

    async fn ask(&mut self, server: &Endpoint) -> Result<(), FollowError> {
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
        let accepted = judge.accept(signed, jiff::Timestamp::now());
        accepted.map_err(|e| FollowError::Refused(url.to_string(), e)).map(drop)
    }

    fn document(&self) -> Option<&Document> {
        self.judge.as_ref().ok().and_then(Judge::kept)
    }

    /// What should be mounted, and where.
    fn wanted(&self) -> BTreeMap<PathBuf, BlockId> {
        let Some(document) = self.document() else { return BTreeMap::new() };
        let others = document.mounts.iter().map(|Mount { flist, path }| (path.clone(), *flist));
        others.chain(document.system.map(|flist| (PathBuf::from(SYSTEM), flist))).collect()
    }

    /// Mounts what is wanted and ends what is not any more; what came of each.
    async fn mount(&mut self) -> BTreeMap<String, String> {
        let wanted = self.wanted();
        for path in std::mem::take(&mut self.mounts).into_keys().filter(|path| !wanted.contains_key(path)) {
            let ended = blocking(move || flist::unmount(&path, true).map_err(|e| e.to_string())).await;
            if let Err(e) = ended {
                tracing::warn!("an flist that the bootstrap file names no more stays mounted: {e}");
            }
        }
        let sources = self.document().map(|document| document.sources.clone()).unwrap_or_default();
        let sources: Vec<String> = sources.into_iter().map(|source| source.0).collect();
        let mut came = BTreeMap::new();
        for (path, id) in &wanted {
            let (at, id, sources) = (path.clone(), id.to_string(), sources.clone());
            let how = blocking(move || mounted(at, id, sources)).await;
            let how = how.map_or_else(|why| why, |()| MOUNTED.to_owned());
            came.insert(path.display().to_string(), how);
        }
        self.mounts = wanted;
        came
    }

    fn tell(&self, refused: Option<String>, mounts: BTreeMap<String, String>) {
        let document = self.document();
        let named = self.setup.named.borrow().clone();
        let mut trouble: Vec<String> = named.trouble.into_iter().chain(refused).collect();
        if let Some(overlay) = document.and_then(|document| document.overlay.as_ref()) {
            trouble.push(format!("overlay {} is not joined: this node can join none yet", overlay.zerotier));
        }
        trouble
            .extend(mounts.iter().filter(|(_, how)| *how != MOUNTED).map(|(at, how)| format!("{at}: {how}")));
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
        self.setup.controllers.send_replace(controllers);
        let document = document.cloned().map(Arc::new);
        self.state.send_replace(State { shown, document, asked: self.asked });
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

/// Mounts an flist unless it is there. In the place of another one, that goes first: who uses it keeps it.
fn mounted(path: PathBuf, reference: String, sources: Vec<String>) -> Result<(), String> {
    let failed = |e: FlistError| crate::command::CommandError::from(e).report();
    let no_folder = |e| format!("no folder to mount on: {e}");
    // A dead mount is no folder any more, and is replaced.
    match fs::create_dir_all(&path) {
        Err(e) if !mountpoint::is_dead(&path) => return Err(no_folder(e)),
        Ok(()) | Err(_) => {}
    }
    // As the daemon knows it. A link on the way must not lead to where the file could not name a place.
    let path = mountpoint::resolve(&path).map_err(no_folder)?;
    if path != Path::new(SYSTEM) && !may_be_mounted_on(&path) {
        return Err(format!("links lead to {}, which is no place for an flist", path.display()));
    }
    match flist::info(&path) {
        Ok(status) if status.reference == reference => return Ok(()),
        Ok(_) => flist::unmount(&path, true).map_err(failed)?,
        Err(FlistError::Mount(MountError::NotMounted(_))) => {}
        Err(e) => return Err(failed(e)),
    }
    let plan =
        Plan { reference, mountpoint: path, sources, told: Vec::new(), mode: None, suid: false, dev: false };
    flist::mount(plan).map(drop).map_err(failed)
}

/// Runs what waits for a daemon where it holds up nobody.
async fn blocking(work: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err("it was not finished: its thread panicked".into()))
}
