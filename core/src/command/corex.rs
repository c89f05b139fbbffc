//! `corex.*`: containers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use g8_container::Limits;
use g8_fs::source::Spec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::container_net::NetworkShown;
use super::{Code, Command, CommandError, Role};
use crate::context::Context;
use crate::domain::container::{
    Container, ContainerError, Containers, Ended, Id, ImageError, LayerError, Upper, Wanted,
};
use crate::domain::container_net::NetworkArguments;
use crate::job::Usage;
use crate::log::now_ms;
use crate::queue::Note;
use crate::spawner::Exit;
use crate::spawner::SpawnError;
use crate::wire::{is_name, queue_key};

/// How long a command for a container may be on its way through redis.
const ACCEPTED: Duration = Duration::from_secs(30);

impl From<ContainerError> for CommandError {
    fn from(error: ContainerError) -> Self {
        use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
        if let ContainerError::Image(flist, ImageError::Mount(error)) = error {
            // As it is told of any mount.
            let error = CommandError::from(error);
            return CommandError::new(error.code(), format!("flist {flist}")).because(error.report());
        }
        if let ContainerError::Network(error) = error {
            return error.into();
        }
        let code = match &error {
            ContainerError::Wanted(_) | ContainerError::User(_) => Code::BadRequest,
            ContainerError::TooMany | ContainerError::Interrupted => Code::Unavailable,
            ContainerError::Unknown(_) => Code::NotFound,
            ContainerError::Image(_, ImageError::Moved | ImageError::Busy) => Code::Unavailable,
            ContainerError::Image(..) => Code::Internal,
            ContainerError::Layer(LayerError::Make(..) | LayerError::Remove(..)) => Code::Internal,
            ContainerError::Volume { .. }
            | ContainerError::Architecture { .. }
            | ContainerError::Layer(_) => Code::Precondition,
            ContainerError::Entrypoint(SpawnError::Failed { source, .. }) => match source.kind() {
                NotFound => Code::NotFound,
                PermissionDenied | NotADirectory => Code::Precondition,
                // A file without a format that the kernel knows, as a program of another architecture.
                _ if source.raw_os_error() == Some(libc::ENOEXEC) => Code::Precondition,
                _ => Code::Internal,
            },
            ContainerError::Build(SpawnError::Failed { .. }) => Code::Precondition,
            ContainerError::Build(SpawnError::Gone)
            | ContainerError::Entrypoint(SpawnError::Gone)
            | ContainerError::Silent(_)
            | ContainerError::Network(_)
            | ContainerError::Fault(_)
            | ContainerError::Record(..) => Code::Internal,
        };
        let message = error.to_string();
        match causes(&error) {
            Some(causes) => CommandError::new(code, message).because(causes),
            None => CommandError::new(code, message),
        }
    }
}

/// All causes of an error, as one text.
fn causes(error: &dyn std::error::Error) -> Option<String> {
    let mut causes: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // A transparent error says what its cause says.
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        next = cause.source();
    }
    (!causes.is_empty()).then(|| causes.join(": "))
}

/// `corex.create`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Create {
    /// Address of the flist of its root filesystem: a CID, `ipfs://CID` with or without hints, or a tag. `?profile=` has what
    /// that names fetched first, when the flist is not mounted yet.
    root: String,
    /// Where it is shown what: the place inside of each absolute path of the host, or flist (`{"/srv/data": "/data"}`). Places
    /// may lie in one another, and not below `/proc`, `/sys` or `/dev`, which are the kernel's.
    #[serde(default)]
    mount: BTreeMap<String, PathBuf>,
    /// Its network; one NIC on the default bridge unless it is told.
    #[serde(flatten)]
    network: NetworkArguments,
    /// Its host name; `core-ID` when empty.
    #[serde(default)]
    hostname: String,
    /// Where blocks of its flists come from, as `http://host` or `dir:/store`, several with commas between; the node's store,
    /// and then the sources of the bootstrap file, when empty; hints come last. An flist that another container uses is asked
    /// there, too, after its own sources; with other credentials than before only when it is mounted anew.
    #[serde(default)]
    storage: String,
    /// What it is called; several may have one name.
    #[serde(default)]
    name: String,
    /// What `corex.find` finds it by.
    #[serde(default)]
    tags: Vec<String>,
    /// Variables of all that runs in it, over those of the image.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// No fence: its root is the host's, with all rights.
    #[serde(default)]
    privileged: bool,
    /// What it may use.
    #[serde(default)]
    limits: LimitArguments,
    /// Program and arguments that it lives for; those of the image when not given. Without any, as with `[]`, it waits for
    /// commands until it is terminated.
    #[serde(default)]
    entrypoint: Option<Vec<String>>,
    /// Whom the entrypoint runs as: `user[:group]`, names or numbers of the image; root, or the image's own user for the
    /// image's own program, when empty.
    #[serde(default)]
    user: String,
    /// Where the entrypoint starts, and each command inside that is not told where; as the image says, or `/`, when empty. It
    /// is made when it is not there; where a mount lies on the way, in that: a folder of the node, or an error in an flist.
    #[serde(default)]
    workdir: String,
    /// Contents of files that are written first, by their places inside. They do not lie in what is mounted there.
    #[serde(default)]
    config: BTreeMap<PathBuf, String>,
    /// Cgroups of version 1, by which later clients bound containers; refused unless it is empty, as nobody would keep the
    /// bound: `limits` says it here.
    #[serde(default)]
    cgroups: Vec<Value>,
    /// Identity in networks of ZeroTier, of which this node has none; refused unless it is empty.
    #[serde(default)]
    identity: String,
    /// Where it lies what it writes, until it ends: `memory`, or `disk`, in the folder that `containers.disk` of `core0.toml` names.
    #[serde(default)]
    upper: Place,
    /// Most bytes that it may write to memory, 1 GiB when not given. Nothing but what is free there bounds it on a disk, so it
    /// cannot be given then.
    #[serde(default)]
    upper_size: Option<u64>,
}

/// Where a container writes to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Place {
    #[default]
    Memory,
    Disk,
}

impl Place {
    fn upper(self, size: Option<u64>) -> Result<Upper, CommandError> {
        match (self, size) {
            (Self::Memory, None) => Ok(Upper::default()),
            (Self::Memory, Some(bytes)) => Ok(Upper::Memory { bytes }),
            (Self::Disk, None) => Ok(Upper::Disk),
            (Self::Disk, Some(_)) => Err(CommandError::bad_request(
                "upper_size cannot be kept on a disk, where a container may write as much as is free: leave it out, or write \
                 to memory",
            )),
        }
    }
}

/// Bounds of a container. One that the kernel of this node cannot keep, or that nobody knows, is an error.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LimitArguments {
    /// Bytes of memory.
    memory: Option<u64>,
    /// Processors, with fractions: 0.001 to 10000.
    cpu: Option<f64>,
    /// Processes and threads, up to 4194304, more than which no kernel has.
    processes: Option<u64>,
}

/// Most processes of a kernel (PID_MAX_LIMIT); more cannot be said to its controller.
const PROCESSES_MAX: u64 = 4 << 20;

impl LimitArguments {
    fn limits(&self) -> Result<Limits, CommandError> {
        let cpu_millis = match self.cpu {
            Some(cpu) if (0.001..=10_000.0).contains(&cpu) => Some((cpu * 1000.0).round() as u64),
            Some(cpu) => {
                return Err(CommandError::bad_request(format!(
                    "{cpu} processors: 0.001 to 10000 can be given"
                )));
            }
            None => None,
        };
        if self.memory == Some(0) || self.processes == Some(0) {
            return Err(CommandError::bad_request("a limit of 0 lets nothing run"));
        }
        if let Some(count) = self.processes.filter(|count| *count > PROCESSES_MAX) {
            return Err(CommandError::bad_request(format!(
                "{count} processes: no kernel has more than {PROCESSES_MAX}; leave the limit out to have no bound"
            )));
        }
        Ok(Limits { memory_bytes: self.memory, cpu_millis, processes: self.processes })
    }
}

impl Create {
    /// Refuses what would isolate the container if this node could do it.
    fn refuse_unkept(&self) -> Result<(), CommandError> {
        if !self.cgroups.is_empty() {
            return Err(CommandError::not_acceptable(
                "cgroups: this node has those of version 2 alone, and puts no container into others; give limits instead, as \
                 {\"memory\": 67108864, \"cpu\": 0.5, \"processes\": 100}",
            ));
        }
        if !self.identity.is_empty() {
            return Err(CommandError::not_acceptable(
                "identity: nothing on this node speaks ZeroTier; lead a bridge into that network, and give it as a NIC",
            ));
        }
        Ok(())
    }

    fn wanted(self, arguments: Value, told: Vec<String>) -> Result<Wanted, CommandError> {
        self.refuse_unkept()?;
        let network = self.network.plan()?;
        let upper = self.upper.upper(self.upper_size)?;
        let sources = self.sources().map(Into::into).collect();
        Ok(Wanted {
            root: self.root,
            sources,
            told,
            mounts: self.mount.into_iter().collect(),
            network,
            hostname: Some(self.hostname).filter(|name| !name.is_empty()),
            name: self.name,
            tags: self.tags,
            env: self.env,
            privileged: self.privileged,
            limits: self.limits.limits()?,
            entrypoint: self.entrypoint,
            user: self.user,
            workdir: self.workdir,
            upper,
            files: self.config,
            arguments,
        })
    }
}

impl Command for Create {
    const NAME: &'static str = "corex.create";
    const SUMMARY: &'static str = "Makes a container from an flist, and returns its number when it runs.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = Id;

    async fn run(self, context: &Context) -> Result<Id, CommandError> {
        let arguments = self.shown();
        let wanted = self.wanted(arguments, context.node.told_sources())?;
        Ok(context.node.containers.create(wanted).await?)
    }
}

impl Create {
    fn sources(&self) -> impl Iterator<Item = &str> {
        self.storage.split(',').map(str::trim).filter(|spec| !spec.is_empty())
    }

    /// The arguments in the fields that old clients know. Variables and contents of files may be secrets: only their names.
    /// Sources are named as they are to people, without their credentials.
    fn shown(&self) -> Value {
        let sources = self.sources().filter_map(|spec| spec.parse::<Spec>().ok());
        let sources: Vec<String> = sources.map(|spec| spec.to_string()).collect();
        serde_json::json!({
            "root": self.root,
            "mount": self.mount,
            "host_network": self.network.host_network,
            "network": self.network.network,
            "nics": self.network.nics,
            "port": self.network.port,
            "hostname": self.hostname,
            "storage": sources.join(","),
            "name": self.name,
            "tags": self.tags,
            "privileged": self.privileged,
            "upper": self.upper,
            "entrypoint": self.entrypoint,
            "env": self.env.keys().collect::<Vec<_>>(),
            "config": self.config.keys().collect::<Vec<_>>(),
        })
    }
}

/// A container and what runs in it, in the fields that old clients know.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Listed {
    /// What its processes use.
    #[serde(flatten)]
    usage: Usage,
    /// What it is.
    container: Described,
}

/// What a container is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Described {
    /// What it was asked for with, without contents of variables and files.
    arguments: Value,
    /// Where its image is mounted on the node.
    root: PathBuf,
    /// Whether its images can be read.
    image: ImageShown,
    /// Its first process, on the node.
    pid: i32,
    /// When it was made, in ms since 1970.
    starttime: u64,
    /// Its NICs and ports, unless it has the network of the node.
    network: Option<NetworkShown>,
}

/// Whether the images of a container can be read.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageShown {
    /// All of them.
    Served,
    /// A daemon that served one died, and none could go on with it: what the container has not read yet of that is an error
    /// to it, for as long as it lives.
    Lost,
}

impl Listed {
    fn new(container: &Container, containers: &Containers) -> Self {
        let age = now_ms().saturating_sub(container.started_ms);
        Self {
            usage: Usage::of_tree(container.pid).since(age),
            container: Described {
                arguments: container.arguments().clone(),
                root: container.root.clone(),
                image: if container.is_image_lost() { ImageShown::Lost } else { ImageShown::Served },
                pid: container.pid,
                starttime: container.started_ms,
                network: containers.network(container.id).map(NetworkShown::from),
            },
        }
    }

    /// Some of a node. All of /proc is looked through: not on a thread that others need.
    async fn all(context: &Context, shown: Vec<Arc<Container>>) -> Result<Vec<(Id, Self)>, CommandError> {
        let containers = context.node.containers.clone();
        let look =
            move || shown.iter().map(|container| (container.id, Self::new(container, &containers))).collect();
        tokio::task::spawn_blocking(look)
            .await
            .map_err(|_| CommandError::internal("the look at /proc panicked"))
    }

    fn by_number(all: Vec<(Id, Self)>) -> BTreeMap<String, Self> {
        all.into_iter().map(|(id, listed)| (id.to_string(), listed)).collect()
    }
}

/// `corex.list`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {}

impl Command for List {
    const NAME: &'static str = "corex.list";
    const SUMMARY: &'static str = "Lists the containers by their numbers.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = BTreeMap<String, Listed>;

    async fn run(self, context: &Context) -> Result<Self::Output, CommandError> {
        Ok(Listed::by_number(Listed::all(context, context.node.containers.list()).await?))
    }
}

/// A container with its number.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Found {
    /// Its number.
    id: Id,
    /// Whether it runs.
    state: StateShown,
    /// The rest, of one that runs.
    #[serde(flatten)]
    listed: Option<Listed>,
    /// How it ended, of one that does not. The last 64 are remembered, as long as the manager lives.
    ended: Option<EndedShown>,
}

/// Whether a container runs.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StateShown {
    /// It does.
    Running,
    /// It did.
    Ended,
}

/// How a container ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EndedShown {
    /// Its name.
    name: String,
    /// When it was made, in ms since 1970.
    starttime: u64,
    /// When it ended.
    time: u64,
    /// The exit code of its entrypoint; null when that was killed, or is not what ended it.
    code: Option<i32>,
    /// The signal that ended its entrypoint.
    signal: Option<i32>,
    /// What its entrypoint said last, at most ten lines.
    last: Vec<String>,
}

impl From<Ended> for Found {
    fn from(ended: Ended) -> Self {
        let (code, signal) = match ended.exit {
            Some(Exit::Code(code)) => (Some(code), None),
            Some(Exit::Signal(signal)) => (None, Some(signal)),
            Some(Exit::TooMany(_)) => (None, Some(libc::SIGKILL)),
            None => (None, None),
        };
        let shown = EndedShown {
            name: ended.name,
            starttime: ended.started_ms,
            time: ended.ended_ms,
            code,
            signal,
            last: ended.words.lines(),
        };
        Self { id: ended.id, state: StateShown::Ended, listed: None, ended: Some(shown) }
    }
}

/// `corex.get`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Get {
    /// Its number or its name; of several of one name that of the lowest number is meant.
    query: Query,
    /// Also one that has ended a while ago, when none that runs is meant.
    #[serde(default)]
    ended: bool,
}

/// A number, or a name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Query {
    /// The number.
    Id(Id),
    /// The name, or the number as text.
    Name(String),
}

impl Command for Get {
    const NAME: &'static str = "corex.get";
    const SUMMARY: &'static str = "Describes one container, by its number or its name; if asked to, also one that ended a while ago, and how.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Found;

    async fn run(self, context: &Context) -> Result<Found, CommandError> {
        let containers = &context.node.containers;
        let (container, ended) = match self.query {
            Query::Id(id) => (containers.get(id), containers.ended.of(id)),
            Query::Name(name) => (containers.find(&name), containers.ended.find(&name)),
        };
        let container = match (container, ended.filter(|_| self.ended)) {
            (Err(_), Some(ended)) => return Ok(ended.into()),
            (container, _) => container?,
        };
        let mut all = Listed::all(context, vec![container]).await?;
        let (id, listed) = all.remove(0);
        Ok(Found { id, state: StateShown::Running, listed: Some(listed), ended: None })
    }
}

/// `corex.find`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Find {
    /// All of them must be among its tags.
    #[serde(default)]
    tags: Vec<String>,
}

impl Command for Find {
    const NAME: &'static str = "corex.find";
    const SUMMARY: &'static str = "Lists the containers that have all of some tags.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = BTreeMap<String, Listed>;

    async fn run(self, context: &Context) -> Result<Self::Output, CommandError> {
        let mut containers = context.node.containers.list();
        containers.retain(|container| self.tags.iter().all(|tag| container.wanted.tags.contains(tag)));
        Ok(Listed::by_number(Listed::all(context, containers).await?))
    }
}

/// `corex.terminate`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Terminate {
    /// Its number.
    container: Id,
}

impl Command for Terminate {
    const NAME: &'static str = "corex.terminate";
    const SUMMARY: &'static str = "Ends a container; it is taken apart after the answer.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, context: &Context) -> Result<(), CommandError> {
        Ok(context.node.containers.terminate(self.container)?)
    }
}

/// `corex.dispatch`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Dispatch {
    /// The number of the container.
    container: Id,
    /// The command for it, as it would be sent to a node. Its id may be left out.
    command: Map<String, Value>,
}

impl Command for Dispatch {
    const NAME: &'static str = "corex.dispatch";
    const SUMMARY: &'static str = "Has a container carry out a command, and returns the id that its result will have, when that is accepted.";
    const ROLE: Role = Role::Operate;
    // The id is always the same, and a second command of one id is dropped.
    const IDEMPOTENT: bool = true;
    type Output = String;

    async fn run(self, context: &Context) -> Result<String, CommandError> {
        context.node.containers.get(self.container)?;
        let mut command = self.command;
        let id = match command.remove("id") {
            Some(Value::String(id)) => id,
            Some(other) => {
                return Err(CommandError::bad_request(format!("{other:.64} is no id of a command")));
            }
            None => format!("{}.inside", context.id),
        };
        if !is_name(&id) {
            return Err(CommandError::bad_request(format!(
                "{id:.140?} is no id of a command: give it another one"
            )));
        }
        if !command.get("command").is_some_and(Value::is_string) {
            return Err(CommandError::bad_request("the command for the container has no name"));
        }
        command.insert("id".into(), id.clone().into());
        command.insert("container".into(), self.container.into());
        let queue = queue_key(context.caller.name());
        // Its result comes as that of any command; what is wrong with it is told there.
        let jobs = &context.node.jobs;
        jobs.tell(Note::Push { queue, json: Value::Object(command).to_string() }).await;
        match tokio::time::timeout(ACCEPTED, jobs.accepted(&context.caller, &id)).await {
            Ok(()) => Ok(id),
            Err(_) => Err(CommandError::unavailable(format!(
                "the command for the container was sent and not accepted within {ACCEPTED:?}: wait for the result of {id}"
            ))),
        }
    }
}
