//! From what is wanted to a container that runs, and from its end to nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use g8_container::{Network, Spec, User, Volume, resolve_user};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::etc;
use super::image::{Image, Lost};
use super::left::Left;
use super::record::Record;
use super::{
    Container, ContainerError, Containers, Errands, Id, LayerError, Place, Upper, Wanted, Words, ends, told,
};
use crate::domain::container_net;
use crate::fault;
use crate::job::{Adopted, abandon, know_logged};
use crate::log::now_ms;
use crate::process::{Inside, Process, drain};
use crate::spawner::{Child, Exit, Held, SpawnError, Spawner, Start};

/// The tag of a container's entrypoint in its spawner.
const ENTRYPOINT: &str = "entrypoint";
/// How long the first process of a new container may take to answer.
const SPEAK: Duration = Duration::from_secs(10);
/// How long a path of the host may take to be there.
const LOOK: Duration = Duration::from_secs(10);
/// Who looks at paths of the host. Each may hang for ever, and takes a thread.
static LOOKS: Semaphore = Semaphore::const_new(64);
/// Said when none of those comes back.
const TOO_MANY_HANG: &str = "64 others are being looked at: file systems of the node hang";
/// How long a container may take to be built, from file systems of the node that may hang.
const BUILD: Duration = Duration::from_secs(60);
/// How long a container that is killed may take to be gone.
const GONE: Duration = Duration::from_secs(20);

/// What a container has so far.
#[derive(Default)]
struct Parts {
    images: Vec<Image>,
    init: Option<Child>,
}

impl Containers {
    /// Makes a container at a number that is held for it.
    pub(super) async fn make(self: &Arc<Self>, id: Id, wanted: Wanted) -> Result<Id, ContainerError> {
        let mut parts = Parts::default();
        match self.build(id, wanted, &mut parts).await {
            Ok((container, entrypoint)) => {
                let keys = parts.images.into_iter().map(|image| image.key).collect();
                // `build` has put it there.
                if let Some(init) = parts.init {
                    self.settle(container, init, Entrypoint::Started(entrypoint), keys);
                }
                Ok(id)
            }
            Err(error) => {
                let keys = parts.images.into_iter().map(|image| image.key).collect();
                self.tear_down(id, parts.init, keys).await;
                Err(error)
            }
        }
    }

    /// Each step leaves in `parts` what it made, so that a later one that fails has it taken apart.
    async fn build(
        &self,
        id: Id,
        mut wanted: Wanted,
        parts: &mut Parts,
    ) -> Result<(Container, Option<Child>), ContainerError> {
        let started_ms = now_ms();
        let cgroup = (wanted.limits != g8_container::Limits::default())
            .then(|| format!("container-{}-{id}", std::process::id()));
        let layer = match wanted.upper {
            Upper::Memory { .. } => None,
            Upper::Disk => {
                let layers = self.layers.clone();
                let place = tokio::task::spawn_blocking(move || layers.place(id)).await;
                Some(place.map_err(|_| ContainerError::Interrupted)??)
            }
        };
        let mut record = Record {
            wanted: wanted.clone(),
            images: Vec::new(),
            started_ms,
            cgroup: cgroup.clone(),
            layer: layer.clone(),
            whole: false,
            ending: false,
        };
        fault::step("write its record")?;
        // First: from here on the next manager would know.
        self.records.write(id, &record)?;
        let root = self.take(&wanted.root, &wanted, parts).await?;
        if let Some(image) = parts.images.first() {
            runs_here(&wanted.root, image.arch.as_deref())?;
            wanted.complete(&image.config);
        }
        let volumes = self.volumes(&wanted, parts).await?;
        fault::step("find its user")?;
        let user = user(&wanted, &root).await?;
        let process = (!wanted.program().is_empty()).then(|| entrypoint(&wanted, user));
        if let Some(fault) = process.as_ref().and_then(Process::fault) {
            return Err(ContainerError::Wanted(format!("the entrypoint: {fault}")));
        }
        let upper = self.upper(&wanted, layer).await?;
        let network = match &wanted.network {
            container_net::Wanted::Host => None,
            container_net::Wanted::Own(plan) => {
                fault::step("reserve its network")?;
                Some(self.networks.reserve(id, &wanted.name, plan.clone()).await?)
            }
        };
        fault::step("gather its files")?;
        let hostname = wanted.hostname.clone().unwrap_or_else(|| format!("core-{id}"));
        let files = etc::files(&hostname, network.as_ref(), &wanted.files).await;
        let limits = cgroup.map(|name| (name, wanted.limits.clone()));
        let lower = root.clone();
        let privileged = wanted.privileged;
        let network_kind = match &wanted.network {
            container_net::Wanted::Host => Network::Host,
            container_net::Wanted::Own(_) => Network::None,
        };
        let workdir = wanted.workdir().into();
        let spec = Spec {
            lower,
            upper,
            hostname,
            network: network_kind,
            volumes,
            files,
            limits,
            workdir,
            privileged,
        };
        fault::step("have it built")?;
        // Who has nothing to wait for is not waited for.
        let start = match wanted.network.is_ready() {
            true => Start::AtOnce,
            false => Start::WhenTold,
        };
        let tag = format!("container {id}");
        let built = tokio::time::timeout(BUILD, self.spawner.contain(&spec, &tag, start)).await;
        let built = built.unwrap_or_else(|late| {
            Err(SpawnError::Failed { step: "have the container built in time".into(), source: late.into() })
        });
        let init = parts.init.insert(built.map_err(ContainerError::Build)?);
        fault::step("take its ends")?;
        let [socket, namespace] = ends(init)?;
        fault::step("attach its network")?;
        // Before anything runs in there: what looks for its network at its start finds it.
        match network {
            Some(_) => drop(self.networks.attach(id, namespace).await?),
            None => drop(namespace),
        }
        if start == Start::WhenTold {
            fault::step("let it go on")?;
            init.go().await;
        }
        fault::step("speak to its first process")?;
        let (spawner, heard) = Spawner::inside(socket, init.pid).map_err(ContainerError::Silent)?;
        let heard = tokio::time::timeout(SPEAK, all(heard)).await.map_err(io::Error::from);
        heard.flatten().map_err(ContainerError::Silent)?;
        let entrypoint = match process {
            None => None,
            Some(process) => {
                fault::step("start its entrypoint")?;
                Some(spawner.spawn(&process, ENTRYPOINT).await.map_err(ContainerError::Entrypoint)?)
            }
        };
        fault::step("write that it is whole")?;
        // Last: what is not whole is taken apart by the next manager.
        record.images = parts.images.iter().map(|image| (image.key.clone(), image.device)).collect();
        record.wanted.clone_from(&wanted);
        record.whole = true;
        self.records.write(id, &record)?;
        fault::step("show it")?;
        let container = Container {
            id,
            wanted,
            pid: init.pid,
            root,
            lost: parts.images.iter().map(|image| image.lost.clone()).collect(),
            started_ms,
            spawner,
            errands: Errands::default(),
            init: init.handle(),
            entrypoint: OnceLock::new(),
            words: Words::default(),
            left: Left::nothing(),
            ending: AtomicBool::new(false),
        };
        Ok((container, entrypoint))
    }

    async fn take(
        &self,
        flist: &str,
        wanted: &Wanted,
        parts: &mut Parts,
    ) -> Result<std::path::PathBuf, ContainerError> {
        fault::step("mount an image")?;
        let image = self.images.take(flist, [&wanted.sources, &wanted.told], wanted.privileged).await;
        let image = image.map_err(|e| ContainerError::Image(named(flist), e))?;
        let path = image.path.clone();
        parts.images.push(image);
        Ok(path)
    }

    async fn volumes(&self, wanted: &Wanted, parts: &mut Parts) -> Result<Vec<Volume>, ContainerError> {
        let mut volumes = Vec::new();
        for (source, target) in &wanted.mounts {
            let path = Path::new(source);
            let (source, read_only) = match path.is_absolute() {
                true => {
                    fault::step("look at what it shows")?;
                    (look_at(path).await?, false)
                }
                false => (self.take(source, wanted, parts).await?, true),
            };
            volumes.push(Volume { source, target: target.clone(), read_only });
        }
        Ok(volumes)
    }

    /// What it writes to, made where it does not come with the container.
    async fn upper(
        &self,
        wanted: &Wanted,
        layer: Option<PathBuf>,
    ) -> Result<g8_container::Upper, ContainerError> {
        let folder = match (wanted.upper, layer) {
            (Upper::Memory { bytes }, _) => return Ok(g8_container::Upper::Memory { bytes }),
            (Upper::Disk, layer) => layer.ok_or(LayerError::NoPlace)?,
        };
        fault::step("make its upper layer")?;
        let (layers, place, privileged) = (self.layers.clone(), folder.clone(), wanted.privileged);
        let made = tokio::task::spawn_blocking(move || layers.make(&place, privileged)).await;
        made.map_err(|_| ContainerError::Interrupted)??;
        Ok(g8_container::Upper::Disk { folder })
    }

    /// Shows a container to all, and looks after it until its end.
    pub(super) fn settle(
        self: &Arc<Self>,
        container: Container,
        init: Child,
        entrypoint: Entrypoint,
        images: Vec<String>,
    ) {
        let container = Arc::new(container);
        let id = container.id;
        self.places.lock().all.insert(id, Place::Here(container.clone()));
        let containers = self.clone();
        tokio::spawn(async move {
            let exit = containers.look_after(&container, init, entrypoint).await;
            containers.networks.ends(id);
            // Before it is in no list any more.
            containers.ended.put(&container, exit);
            let files = container.errands.files.clone();
            // A file system of the node that it was shown may hang at that.
            tokio::task::spawn_blocking(move || files.close_all());
            drop(container);
            containers.tear_down(id, None, images).await;
        });
    }

    /// Waits until a container ends: with its entrypoint, by somebody outside, or by somebody inside. Gives how its entrypoint
    /// did, if it was the first.
    async fn look_after(
        self: &Arc<Self>,
        container: &Arc<Container>,
        mut init: Child,
        entrypoint: Entrypoint,
    ) -> Option<Exit> {
        let id = container.id;
        let entrypoint = match entrypoint {
            Entrypoint::Started(entrypoint) => entrypoint,
            Entrypoint::Held(held) => tokio::select! {
                entrypoint = self.hear(container, held) => entrypoint,
                _ = init.wait() => return None,
            },
        };
        let mut ended = None;
        if let Some(mut entrypoint) = entrypoint {
            let _ = container.entrypoint.set(entrypoint.handle());
            if let Some(ends) = entrypoint.output.take()
                && let Err(e) = drain(ends, format!("container {id}").into(), self.logs.clone(), {
                    let words = container.words.clone();
                    move |message| words.put(&message.text)
                })
            {
                tracing::error!("the output of container {id} is lost: {e}");
            }
            tokio::select! {
                exit = entrypoint.wait() => {
                    tracing::info!("the entrypoint of container {id} has ended {}", told(exit));
                    self.networks.ends(id);
                    container.init.signal(libc::SIGKILL).await;
                    ended = exit;
                }
                _ = init.wait() => return None,
            }
        }
        init.wait().await;
        ended
    }

    /// Takes apart what there is of a container, and frees its number. `init` is there when it may still run.
    async fn tear_down(&self, id: Id, init: Option<Child>, images: Vec<String>) {
        self.networks.ends(id);
        // Nobody may find it while it goes.
        self.places.lock().all.insert(id, Place::Held);
        if let Some(mut init) = init {
            init.handle().signal(libc::SIGKILL).await;
            if tokio::time::timeout(GONE, init.wait()).await.is_err() {
                // It hangs in the kernel. What it uses is detached, not ended, below it.
                tracing::error!("container {id} does not end, though it was killed");
            }
        }
        self.release_network(id).await;
        for key in images {
            self.images.release(&key);
        }
        let record = self.records.read(id);
        if let Some(layer) = record.as_ref().and_then(|record| record.layer.clone()) {
            let layers = self.layers.clone();
            // Before the record, and the number: the next container of it has a layer at the same place.
            let removed = tokio::task::spawn_blocking(move || layers.remove(&layer)).await;
            if let Ok(Err(error)) = removed {
                let error: &dyn std::error::Error = &error;
                tracing::error!(container = id, error, "the layer of a container that is gone stays");
            }
        }
        if let Some(cgroup) = record.and_then(|record| record.cgroup) {
            // The spawner has done it, unless it was killed.
            let removed = tokio::task::spawn_blocking(move || g8_container::remove_cgroup(&cgroup)).await;
            if let Ok(Err(error)) = removed {
                tracing::error!(container = id, %error, "the cgroup of a container that is gone stays");
            }
        }
        self.records.remove(id);
        self.places.lock().all.remove(&id);
    }

    /// What cannot be released is the next manager's to release: its record stays.
    pub(super) async fn release_network(&self, id: Id) {
        if let Err(error) = self.networks.release(id).await {
            tracing::error!(container = id, %error, "the network of a container that is gone stays");
        }
    }

    /// Takes over what an earlier manager knew as a container; `init` is there when it still runs. Gives who takes it apart.
    pub(super) async fn take_over(
        self: &Arc<Self>,
        id: Id,
        record: Record,
        init: Option<Child>,
        until: tokio::time::Instant,
    ) -> Option<JoinHandle<()>> {
        let (mut root, mut lost) = (None, Vec::new());
        for (key, device) in &record.images {
            let (path, is_lost) = self.images.keep(key, *device, until).await;
            root.get_or_insert(path);
            lost.push(is_lost);
        }
        if init.is_some() && lost.iter().any(Lost::is_lost) {
            tracing::error!("what container {id} has not read yet of its image is lost: make it anew");
        }
        let images = record.images.iter().map(|(key, _)| key.clone()).collect();
        let runs = record.whole && !record.ending;
        let adopted = match (init, root) {
            (Some(mut init), Some(root)) if runs && !init.had_ended => match reach(&mut init) {
                Ok((spawner, held)) => {
                    let container = Container {
                        id,
                        wanted: record.wanted,
                        pid: init.pid,
                        root,
                        lost,
                        started_ms: record.started_ms,
                        spawner,
                        errands: Errands::default(),
                        init: init.handle(),
                        entrypoint: OnceLock::new(),
                        words: Words::default(),
                        left: Left::untold(),
                        ending: AtomicBool::new(false),
                    };
                    Ok((container, init, held))
                }
                Err(e) => {
                    tracing::error!("container {id} cannot be spoken to, and is ended: {e}");
                    Err(Some(init))
                }
            },
            (init, _) => Err(init),
        };
        match adopted {
            Ok((container, init, held)) => {
                self.settle(container, init, Entrypoint::Held(held), images);
                None
            }
            Err(init) => {
                let containers = self.clone();
                self.networks.ends(id);
                Some(tokio::spawn(async move { containers.tear_down(id, init, images).await }))
            }
        }
    }

    /// What the spawner inside kept for an earlier manager: jobs are for who waits for them, the entrypoint is given. Without
    /// one that it should have, the container ends.
    async fn hear(self: &Arc<Self>, container: &Arc<Container>, held: Heard) -> Option<Child> {
        let id = container.id;
        let held = match all(held).await {
            Ok(held) => held,
            Err(e) => {
                // The other errors are those of one that has ended.
                if e.kind() == io::ErrorKind::TimedOut {
                    tracing::error!("container {id} does not answer, and is ended");
                }
                container.init.signal(libc::SIGKILL).await;
                return None;
            }
        };
        let (mut jobs, mut entrypoint) = (Adopted::new(), None);
        for (tag, child) in held {
            match tag.split_once(' ') {
                Some(("job", name)) => {
                    if let Some(old) = jobs.insert(name.into(), child) {
                        // A run that nobody waited for any more, beside the next one: the slots come in their order.
                        old.handle().signal(libc::SIGKILL).await;
                    }
                }
                // Nobody waits for the answer of the one, or sees what the other shows, any more.
                Some(("errand" | "terminal", _)) => child.handle().signal(libc::SIGKILL).await,
                None if tag == ENTRYPOINT => entrypoint = Some(child),
                Some(_) | None => {
                    tracing::warn!("{tag:.64} in container {id} is nobody's: it is killed");
                    child.handle().signal(libc::SIGKILL).await;
                }
            }
        }
        if entrypoint.is_none() && !container.wanted.program().is_empty() {
            tracing::warn!("container {id} is ended: nobody knows what became of its entrypoint");
            container.init.signal(libc::SIGKILL).await;
        }
        let (containers, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            // The sender is here. Before that, a job may still come to ask.
            let _ = containers.recovered.subscribe().wait_for(|recovered| *recovered).await;
            know_logged(&containers.logs, &mut jobs).await;
            abandon(container.left.tell(jobs)).await;
        });
        entrypoint
    }
}

/// What the spawner inside tells when it can.
type Heard = oneshot::Receiver<io::Result<Held>>;

async fn all(heard: Heard) -> io::Result<Held> {
    heard.await.unwrap_or_else(|_| Err(io::ErrorKind::NotConnected.into()))
}

fn reach(init: &mut Child) -> Result<(Spawner, Heard), ContainerError> {
    let [socket, _network] = ends(init)?;
    Spawner::inside(socket, init.pid).map_err(ContainerError::Silent)
}

/// The program of a container that is settled.
pub(super) enum Entrypoint {
    /// It was started, if there is one.
    Started(Option<Child>),
    /// The spawner inside will tell.
    Held(Heard),
}

/// An flist as errors name it: without hints, in which somebody may have written a password.
fn named(flist: &str) -> String {
    let name = flist.split('?').next().unwrap_or_default();
    format!("{name:.200}")
}

/// Refuses an image whose programs are another machine's, if that is known.
fn runs_here(flist: &str, arch: Option<&str>) -> Result<(), ContainerError> {
    let here = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    match arch.filter(|arch| *arch != here) {
        Some(arch) => Err(ContainerError::Architecture { flist: named(flist), arch: arch.to_owned(), here }),
        None => Ok(()),
    }
}

/// A path of the host that is there, seen from a thread that may hang: a dead network file system hangs whoever looks.
async fn look_at(path: &Path) -> Result<std::path::PathBuf, ContainerError> {
    let (owned, failed) =
        (path.to_owned(), |source| ContainerError::Volume { path: path.to_owned(), source });
    // One that hangs keeps its place, and the thread that others need, for as long as it does.
    let place = LOOKS.try_acquire().map_err(|_| failed(io::Error::other(TOO_MANY_HANG)))?;
    let look = tokio::task::spawn_blocking(move || {
        let _place = place;
        std::fs::metadata(&owned).map(|_| owned)
    });
    match tokio::time::timeout(LOOK, look).await {
        Ok(Ok(found)) => found.map_err(failed),
        Ok(Err(_)) => Err(ContainerError::Interrupted),
        Err(_) => Err(failed(std::io::ErrorKind::TimedOut.into())),
    }
}

/// Whom the entrypoint runs as. The image is read for it, so not on a thread that others need.
async fn user(wanted: &Wanted, root: &Path) -> Result<User, ContainerError> {
    if wanted.program().is_empty() || wanted.user.is_empty() {
        return Ok(User { uid: 0, gid: 0, groups: Vec::new(), home: None });
    }
    let (root, user) = (root.to_owned(), wanted.user.clone());
    let found = tokio::task::spawn_blocking(move || resolve_user(&root, &user)).await;
    Ok(found.map_err(|_| ContainerError::Interrupted)??)
}

fn entrypoint(wanted: &Wanted, user: User) -> Process {
    let mut env = wanted.variables();
    if let Some(home) = user.home.filter(|_| !wanted.env.contains_key("HOME")) {
        env.insert("HOME".into(), home.to_string_lossy().into_owned());
    }
    Process {
        argv: wanted.program().to_vec(),
        env,
        dir: wanted.workdir().to_owned(),
        inside: Some(Inside { uid: user.uid, gid: user.gid, groups: user.groups }),
        ..Process::default()
    }
}
