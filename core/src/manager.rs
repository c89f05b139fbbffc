//! The manager: the process that talks. It owns redis, the jobs and the services, and none of their processes.
//!
//! Start: the lock, the spawner with what it kept, redis, what was accepted before, then the queues. Stop: the reverse.

mod keeper;

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::boot::arguments::Arguments;
use crate::boot::{Boot, Password, Up, bootstrap};
use crate::config::{self, Config};
use crate::context::{Caller, Node};
use crate::domain::Domains;
use crate::domain::container::{Containers, Layers};
use crate::job::{Adopted, Jobs, Parts, Sender};
use crate::log::{Logs, last_places};
use crate::paths::Paths;
use crate::publish;
use crate::queue::answers;
use crate::queue::intake::Intake;
use crate::queue::recover::{recover, take_stock};
use crate::redis::Link;
use crate::redis::server::Server;
use crate::service::{self, Services};
use crate::spawner::{Child, Spawner};
use keeper::Keeper;

/// How long a stop takes at most.
const STOP: Duration = Duration::from_secs(5);
/// How long the spawner may take to say that it is well, before it is told to end anything.
const SPAWNER_STOP: Duration = Duration::from_millis(2000);
/// What is left of the time for the spawner to end in, at least.
const LAST_MOMENT: Duration = Duration::from_millis(300);
/// How long jobs may take to end after a polite signal, and again after the other one.
const JOBS_STOP: Duration = Duration::from_millis(900);
/// How long all containers may take to end, half of it politely, and their images to be unmounted.
const CONTAINERS_STOP: Duration = Duration::from_millis(1800);
const IMAGES_STOP: Duration = Duration::from_millis(1500);
/// How long all services may take to end, whatever their units say: the whole stop is promised within five seconds.
const SERVICES_STOP: Duration = Duration::from_millis(1500);
/// How long the last results may take to be written.
const LAST_RESULTS: Duration = Duration::from_millis(700);

/// How long the last lines of the log may take.
const LAST_LINES: Duration = Duration::from_millis(200);

/// Where clients look for a machine.
const REDIS_PORT: u16 = 6379;
/// Longest path of a unix socket.
const SOCKET_MAX: usize = 107;

/// What the manager is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its files are.
    pub paths: Paths,
    /// The configuration file, when it is not where it usually is.
    pub config: Option<PathBuf>,
    /// What the kernel was told, when this brings a machine up.
    pub boot: Option<Arguments>,
}

/// Runs until a signal ends it.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let Options { paths, config, boot } = options;
    let _lock = lock(&paths)?;
    let mut config = load(&paths, config)?;
    open_many_files()?;
    let booting = match boot {
        Some(arguments) => Some(begin(&paths, &mut config.redis, arguments).await?),
        None => None,
    };
    // Before anything takes time, so that a signal during the start is not lost.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);

    let (spawner, held) = Spawner::connect(&paths.spawner_socket(), &paths.log().join("spawner.log"))
        .await
        .context("cannot start the spawner")?;
    let fresh = held.is_empty();
    let done = work(paths, config, &spawner, held, booting, [&mut terminate, &mut interrupt]).await;
    // What an earlier manager left to this one is kept for the next, unless this one stopped in order.
    if done.is_ok() || fresh {
        let began = done.as_ref().map_or_else(|_| Instant::now(), |began| *began);
        spawner.finish((STOP - LAST_MOMENT).saturating_sub(began.elapsed()).max(LAST_MOMENT)).await;
    }
    done.map(drop)
}

/// Everything between the spawner's start and its end; when that began.
async fn work(
    paths: Paths,
    config: Config,
    spawner: &Spawner,
    held: Vec<(String, Child)>,
    booting: Option<Booting>,
    [terminate, interrupt]: [&mut Signal; 2],
) -> anyhow::Result<Instant> {
    let [mut kept_jobs, mut kept_services, kept_tests, kept_containers] = sort(held);
    let (publisher, outlet) = publish::channel();
    let logs = Arc::new(Logs::open(paths.log(), publisher.clone()).context("cannot open the log")?);

    let server = Server::set_up(&paths, &config).context("cannot set redis up")?;
    let keeper = Keeper::new(server, paths.clone(), spawner.clone(), logs.clone());
    let keeper = keeper.start(kept_services.remove("redis")).await?;
    let (access, server) = (keeper.access(), keeper.server());
    let mut redis = tokio::spawn(keeper.keep());

    let (notes, answers) = answers::channel();
    let parts = Parts {
        spawner: spawner.clone(),
        logs: logs.clone(),
        publisher: publisher.clone(),
        answers: notes,
        access: access.clone(),
    };
    let limits = config.limits.clone();
    let services = Services::new(service::Parts {
        spawner: spawner.clone(),
        logs: logs.clone(),
        units: paths.services(),
        notify_dir: paths.run().into(),
        cmdline: std::fs::read_to_string("/proc/cmdline").unwrap_or_default(),
        processes: limits.processes_each(),
    });
    let jobs = Jobs::new(parts, limits);
    let began = Instant::now();
    let machine = is_machine();
    let domains = Domains::new(&paths, &config).context("network.containers of the configuration")?;
    // Those that turn out to be only half a container are taken apart, and their networks with them.
    let alive: BTreeSet<_> = kept_containers.keys().filter_map(|id| id.parse().ok()).collect();
    domains.start(&alive).await;
    let layers = Layers::new(config.containers.disk.clone().or_else(|| paths.layers()));
    let containers =
        Containers::new(spawner.clone(), logs.clone(), domains.networks.clone(), layers, paths.run().into());
    let contained = containers.adopt(kept_containers).await;
    for (name, child) in contained {
        kept_jobs.entry(name).or_insert(child);
    }
    know_logged(paths.log(), &mut kept_jobs).await;
    let node = Arc::new(Node {
        bootstrap: booting.as_ref().map(|booting| booting.bootstrap.clone()),
        jobs,
        services,
        domains,
        containers,
        paths,
        config,
        logs: logs.clone(),
        began,
        machine,
    });
    let writer = tokio::spawn(answers.run(Link::new(&access)?, logs.clone()));
    tokio::spawn(outlet.run(Link::new(&access)?));

    let mut link = Link::new(&access)?;
    let mut intakes = Vec::new();
    for sender in senders(&node.config) {
        let seen = recover(&node, &sender, &mut link, &mut kept_jobs)
            .await
            .context("cannot read what was accepted before")?;
        intakes.push(Intake::new(sender, Link::new(&access)?, seen));
    }
    take_stock(&node, &mut link).await.context("cannot read what was answered before")?;
    let mut intakes: JoinSet<()> = intakes.into_iter().map(|intake| intake.run(node.clone())).collect();
    let up = |services| Some(Up { server: server.clone(), services });
    // Nobody who is on the network waits for services.
    if let Some(booting) = &booting {
        booting.up.send_replace(up(None));
    }
    node.services.reload(&mut kept_services).await.context("cannot read the units of services")?;
    for kept in [kept_jobs, kept_services, kept_tests] {
        abandon(kept).await;
    }

    let mut boot = None;
    match booting {
        Some(Booting { up: told, task, .. }) => {
            told.send_replace(up(Some(node.services.list().len())));
            boot = Some(task);
        }
        // Not on a machine, whose output is its console: that is no place for a password.
        None => say_ready(&server)?,
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = &mut redis => bail!("redis cannot be kept up: {ended:?}"),
        ended = async { boot.as_mut().expect("the branch is taken with a boot only").await }, if boot.is_some() => {
            bail!("the boot does not go on: {ended:?}")
        }
        Some(ended) = intakes.join_next() => bail!("a queue is not read any more: {ended:?}"),
    }
    let stopping = Instant::now();
    intakes.shutdown().await;
    // Nothing ends in order through one that hangs, and all that it started would be waited for in vain.
    if !spawner.answers(SPAWNER_STOP).await {
        tracing::error!("the spawner does not answer: it is killed");
        spawner.kill();
    }
    let left = |limit: Duration| limit.min((STOP - 2 * LAST_MOMENT).saturating_sub(stopping.elapsed()));
    node.jobs.stop(left(2 * JOBS_STOP) / 2).await;
    node.containers.stop(left(CONTAINERS_STOP)).await;
    if tokio::time::timeout(left(IMAGES_STOP), node.containers.unmount()).await.is_err() {
        tracing::warn!("some images of containers stay mounted until the next start");
    }
    if tokio::time::timeout(left(LAST_RESULTS), node.domains.stop()).await.is_err() {
        tracing::warn!("some bridges did not end in time");
    }
    node.services.stop_all(left(SERVICES_STOP)).await;
    drop(node);
    // The writer ends when the last sender is gone and what it sent is written.
    let written = async {
        let ended = writer.await;
        publisher.flush().await;
        ended
    };
    match tokio::time::timeout(left(LAST_RESULTS), written).await {
        Ok(ended) => ended.context("the last results were not written")?,
        Err(_) => tracing::warn!("redis did not take the last results"),
    }
    redis.abort();
    if tokio::time::timeout(left(LAST_LINES), logs.flush()).await.is_err() {
        tracing::warn!("the disk did not take the last lines of the log");
    }
    Ok(stopping)
}

/// Each process takes two descriptors, and redis some.
fn open_many_files() -> anyhow::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("cannot raise the number of open files")
}

fn say_ready(server: &Server) -> anyhow::Result<()> {
    let ready = serde_json::json!({"host": "127.0.0.1", "port": server.port, "password": server.password});
    writeln!(std::io::stdout(), "ready {ready}").context("nobody can be told that the node is ready")
}

/// A machine that is brought up beside the manager's own start.
struct Booting {
    /// Is told when the manager is up.
    up: watch::Sender<Option<Up>>,
    /// What is known of the bootstrap file.
    bootstrap: watch::Receiver<bootstrap::follow::State>,
    /// It has no end.
    task: JoinHandle<()>,
}

/// Whether this is the manager of a machine: the child of `core0 init`.
fn is_machine() -> bool {
    std::os::unix::process::parent_id() == 1 && std::env::var_os("CORE0_MACHINE").is_some()
}

/// Begins to bring a machine up, beside all that follows. What the kernel was told goes before the configuration.
async fn begin(paths: &Paths, redis: &mut config::Redis, arguments: Arguments) -> anyhow::Result<Booting> {
    if !is_machine() {
        bail!("only the child of `core0 init` brings a machine up: its network would change");
    }
    if redis.port == 0 {
        redis.port = REDIS_PORT;
    }
    if arguments.redis_sha256.is_some() {
        redis.password_sha256.clone_from(&arguments.redis_sha256);
    }
    let password = match redis.password_sha256 {
        Some(_) => Password::Own,
        None => {
            // As redis knows it from the last manager.
            redis.password_sha256 = bootstrap::password(paths);
            Password::Told(redis.password_sha256.clone())
        }
    };
    let (up, seen) = watch::channel(None);
    let boot =
        Boot::begin(paths.clone(), arguments, password, seen).await.context("cannot begin the boot")?;
    let bootstrap = boot.bootstrap();
    Ok(Booting { up, bootstrap, task: tokio::spawn(boot.run()) })
}

fn lock(paths: &Paths) -> anyhow::Result<File> {
    let dir = paths.run();
    for socket in [paths.redis_socket(), paths.spawner_socket()] {
        if socket.as_os_str().len() > SOCKET_MAX {
            bail!(
                "{} is longer than the {SOCKET_MAX} bytes of a socket: choose a shorter folder",
                socket.display()
            );
        }
    }
    own(dir)?;
    own(paths.log())?;
    std::fs::set_permissions(paths.log(), Permissions::from_mode(0o700))?;
    let mut lock = File::options();
    lock.create(true).truncate(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let lock = lock.open(paths.lock()).with_context(|| format!("cannot open {}", paths.lock().display()))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another core0 runs on {}", dir.display()))?;
    Ok(lock)
}

/// Makes a folder that only we write to, or refuses the one that is there: who writes to it could put links for our files.
fn own(dir: &Path) -> anyhow::Result<()> {
    let mut new = DirBuilder::new();
    new.recursive(true).mode(0o700).create(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let metadata = std::fs::metadata(dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner != rustix::process::geteuid().as_raw() || mode & 0o022 != 0 {
        bail!(
            "{} belongs to user {owner} and has mode {mode:o}: core0 needs a folder of its own that nobody else may write to",
            dir.display()
        );
    }
    Ok(())
}

fn load(paths: &Paths, config: Option<PathBuf>) -> anyhow::Result<Config> {
    let usual = paths.config();
    Ok(match config {
        Some(path) => Config::load(&path)?,
        None if usual.exists() => Config::load(&usual)?,
        None => Config::default(),
    })
}

/// What the spawner kept, by what it is: jobs, services, tests of services, which nobody waits for any more, and containers.
fn sort(held: Vec<(String, Child)>) -> [Adopted; 4] {
    let mut sorted = [Adopted::new(), Adopted::new(), Adopted::new(), Adopted::new()];
    for (tag, child) in held {
        let (which, name) = match tag.split_once(' ') {
            Some(("job", name)) => (0, name),
            Some(("service", name)) => (1, name),
            Some(("container", id)) => (3, id),
            Some(_) | None => (2, tag.as_str()),
        };
        sorted[which].insert(name.into(), child);
    }
    sorted
}

/// Up to where the last manager had logged what its jobs printed.
async fn know_logged(log: &Path, jobs: &mut Adopted) {
    if jobs.is_empty() {
        return;
    }
    let dir = log.to_path_buf();
    let since = jobs.iter().map(|(name, child)| (format!("job {name}"), child.started_ms)).collect();
    let places = tokio::task::spawn_blocking(move || last_places(&dir, since)).await;
    let places = places.map_err(std::io::Error::other).flatten();
    let places = places.inspect_err(|e| tracing::error!("lines may be twice in the log: {e}"));
    for (source, place) in places.unwrap_or_default() {
        if let Some(child) = source.strip_prefix("job ").and_then(|name| jobs.get_mut(name)) {
            child.logged = place;
        }
    }
}

fn senders(config: &Config) -> Vec<Sender> {
    let users = config.users.iter().map(|(name, user)| Caller { user: name.clone(), role: user.role });
    std::iter::once(Caller::admin()).chain(users).map(Sender::new).collect()
}

/// Processes whose commands redis, or whose units nobody, knows any more.
async fn abandon(jobs: Adopted) {
    for (name, child) in jobs {
        // One that has ended was answered, and the last manager was killed before it could forget it.
        if !child.had_ended {
            tracing::warn!("nobody knows {name} any more: pid {} is killed", child.pid);
            child.handle().signal(libc::SIGKILL).await;
        }
    }
}
