//! The manager: the process that talks. It owns redis, the jobs and the services, and none of their processes.
//!
//! Start: the lock, the spawner with what it kept, then [`up`]. Stop: [`down`], from wherever the start has come to.

mod down;
mod keeper;
mod up;

use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::boot::arguments::{self, Arguments};
use crate::boot::{Boot, Password, Up, bootstrap};
use crate::config::{self, Config};
use crate::context::Node;
use crate::domain::Domains;
use crate::domain::container::{Containers, Layers};
use crate::job::{Adopted, Jobs, Parts};
use crate::log::Logs;
use crate::paths::Paths;
use crate::publish;
use crate::queue::answers;
use crate::redis::server::Server;
use crate::service::{self, Services};
use crate::spawner::{self, Child, Spawner};
pub use down::Pace;
use down::{SPAWNER_STOP, Stop};
use keeper::Keeper;
use up::Beside;

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
    /// How long its end may take.
    pub pace: Pace,
}

/// Runs until a signal ends it.
pub async fn run(options: Options) -> anyhow::Result<()> {
    // Before anything takes time, so that a signal during the start is not lost.
    let mut signals = Signals::catch()?;
    let Options { paths, config, boot, pace } = options;
    let _lock = lock(&paths)?;
    let mut config = load(&paths, config)?;
    open_many_files()?;
    let booting = match boot {
        Some(arguments) => Some(begin(&paths, &mut config.redis, arguments).await?),
        None => None,
    };
    let setup = Setup { paths, config, booting, pace };

    let paths = &setup.paths;
    let (socket, log) = (paths.spawner_socket(), paths.log().join("spawner.log"));
    let mut connected = pin!(Spawner::connect(&socket, &log));
    let connected = tokio::select! {
        connected = &mut connected => Some(connected),
        () = signals.told() => tokio::time::timeout(SPAWNER_STOP, &mut connected).await.ok(),
    };
    let Some(connected) = connected else {
        tracing::error!(
            "the spawner does not answer: it is killed, and all that an earlier manager left with it"
        );
        return spawner::kill_at(&socket).context("cannot kill the spawner");
    };
    let (spawner, held) = connected.context("cannot start the spawner")?;
    let fresh = held.is_empty();
    let done = work(setup, &spawner, held, &mut signals).await;
    // What an earlier manager left to this one is kept for the next, unless this one stopped in order.
    if done.is_ok() || fresh {
        let stop = done.as_ref().map_or_else(|_| Stop::begin(pace), |stop| *stop);
        spawner.finish(stop.last()).await;
    }
    done.map(drop)
}

/// What the node is to be.
struct Setup {
    paths: Paths,
    config: Config,
    booting: Option<Booting>,
    pace: Pace,
}

/// Everything between the spawner's start and its end; the stop that it has begun.
async fn work(
    setup: Setup,
    spawner: &Spawner,
    held: Vec<(String, Child)>,
    signals: &mut Signals,
) -> anyhow::Result<Stop> {
    let Setup { paths, config, booting, pace } = setup;
    let mut kept = Kept::sort(held);
    let (publisher, outlet) = publish::channel();
    let logs = Arc::new(Logs::open(paths.log(), publisher.clone()).context("cannot open the log")?);
    let server = Server::set_up(&paths, &config).context("cannot set redis up")?;
    let keeper = Keeper::new(server, paths.clone(), spawner.clone(), logs.clone());

    let (notes, answers) = answers::channel();
    let parts = Parts {
        spawner: spawner.clone(),
        logs: logs.clone(),
        publisher: publisher.clone(),
        answers: notes,
        access: keeper.access(),
    };
    let limits = config.limits.clone();
    let domains = Domains::new(&paths, &config).context("network.containers of the configuration")?;
    let services = Services::new(service::Parts {
        spawner: spawner.clone(),
        logs: logs.clone(),
        units: paths.services(),
        notify_dir: paths.run().into(),
        cmdline: arguments::cmdline(),
        processes: limits.processes_each(),
        flists: domains.flists.clone(),
    });
    let layers = Layers::new(config.containers.disk.clone().or_else(|| paths.layers()));
    let containers =
        Containers::new(spawner.clone(), logs.clone(), domains.networks.clone(), layers, paths.run().into());
    let node = Arc::new(Node {
        bootstrap: booting.as_ref().map(|booting| booting.bootstrap.clone()),
        jobs: Jobs::new(parts, limits),
        services,
        domains,
        containers,
        paths,
        config,
        logs,
        began: Instant::now(),
        machine: is_machine(),
    });

    let mut beside = Beside::default();
    let live = up::live(&node, up::Start { keeper, answers, outlet, booting }, &mut kept, &mut beside);
    tokio::select! {
        biased;
        () = signals.told() => {}
        failed = live => match failed? {},
    }
    let stop = Stop::begin(pace);
    down::end(node, spawner, publisher, kept, beside, stop).await?;
    Ok(stop)
}

/// The signals that end the manager.
struct Signals {
    both: [Signal; 2],
    told: bool,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        let both = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        Ok(Self { both, told: false })
    }

    /// Returns once one came, and at once from then on.
    async fn told(&mut self) {
        let [terminate, interrupt] = &mut self.both;
        if !self.told {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        self.told = true;
    }
}

/// What the spawner kept of an earlier manager, as long as nobody has taken it over.
struct Kept {
    jobs: Adopted,
    services: Adopted,
    containers: Adopted,
    /// Tests of services, and what has no meaning.
    others: Adopted,
}

impl Kept {
    fn sort(held: Vec<(String, Child)>) -> Self {
        let mut kept = Self {
            jobs: Adopted::new(),
            services: Adopted::new(),
            containers: Adopted::new(),
            others: Adopted::new(),
        };
        for (tag, child) in held {
            let (which, name) = match tag.split_once(' ') {
                Some(("job", name)) => (&mut kept.jobs, name),
                Some(("service", name)) => (&mut kept.services, name),
                Some(("container", id)) => (&mut kept.containers, id),
                Some(_) | None => (&mut kept.others, tag.as_str()),
            };
            if let Some(old) = which.insert(name.into(), child) {
                // A run that nobody waited for any more, beside the next one: the slots come in their order.
                old.handle().kill_soon();
            }
        }
        kept
    }
}

/// Each process takes two descriptors, and redis some.
fn open_many_files() -> anyhow::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("cannot raise the number of open files")
}

/// A machine that is brought up beside the manager's own start.
struct Booting {
    /// Is told when the manager is up.
    up: watch::Sender<Option<Up>>,
    /// What is known of the bootstrap file.
    bootstrap: watch::Receiver<bootstrap::follow::State>,
    /// Is told how the mounts are that it names.
    mounts: watch::Sender<bootstrap::mounts::Mounts>,
    /// It has no end.
    task: JoinHandle<()>,
}

/// Whether this is the manager of a machine: the child of `core0 init`.
pub fn is_machine() -> bool {
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
    let (mounts, shown) = watch::channel(bootstrap::mounts::Mounts::new());
    let boot = Boot::begin(paths.clone(), arguments, password, seen, shown);
    let boot = boot.await.context("cannot begin the boot")?;
    let bootstrap = boot.bootstrap();
    Ok(Booting { up, bootstrap, mounts, task: tokio::spawn(boot.run()) })
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
