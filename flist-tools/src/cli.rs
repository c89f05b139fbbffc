//! Every command and option of `flist`, declared once. Help, man pages, completions and docs/CLI come from here.

mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use g8_fs::engine::Mode;
use g8_fs::names::Tag;
use g8_fs::reference::Reach;
use g8_fs::settings::{self, Settings, size};
use g8_fs::source::Spec;

use values::{absolute, frame, key, key_value, owner, pin_name, span};

/// Root filesystems that start before they are downloaded.
///
/// An flist is small metadata, named by a CID, that describes a whole root filesystem. Mount it and the tree is there
/// at once; contents arrive block by block when they are first read, proven against their hashes.
#[derive(Debug, Parser)]
#[command(name = "flist", version, propagate_version = true, max_term_width = 100, infer_subcommands = false)]
pub struct Cli {
    /// Options of all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Where blocks come from, in the order to ask: dir:PATH, car:FILE, http://HOST:PORT, https://HOST, ipfs:http://HOST:PORT
    /// (the RPC of an IPFS node; ipfs: is the one on this machine), and peer: for whoever on the local network serves with
    /// --announce. Several are separated by commas [default: dir: of $XDG_DATA_HOME/g8os/store]
    #[arg(
        long,
        global = true,
        env = settings::FROM,
        hide_env_values = true,
        value_name = "SPEC",
        value_delimiter = ','
    )]
    pub from: Vec<Spec>,
    /// Where blocks go: dir:PATH [default: dir: of $XDG_DATA_HOME/g8os/store]; `publish` writes to car:FILE and
    /// ipfs:http://HOST:PORT too, and has no default
    #[arg(
        long,
        global = true,
        env = "G8_TO",
        hide_env_values = true,
        value_name = "SPEC",
        value_delimiter = ','
    )]
    pub to: Vec<Spec>,
    /// Follow the hints in a reference (?gw=URL&peer=MULTIADDR) also to addresses that are not public, such as 10.0.0.1
    #[arg(long, global = true, env = settings::ALLOW_PRIVATE_HINTS, value_parser = clap::builder::FalseyValueParser::new())]
    pub allow_private_hints: bool,
    /// Folder of the block cache; one daemon serves each [default: $XDG_CACHE_HOME/g8os]
    #[arg(long, global = true, env = settings::CACHE, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Most bytes the cache may take on the disk; a running daemon keeps its own, see `cache gc` [default: 10G]
    #[arg(long, global = true, env = settings::CACHE_SIZE, value_name = "SIZE", value_parser = size)]
    pub cache_size: Option<u64>,
    /// Most bytes of decoded contents that a daemon keeps in memory; a running one keeps its own [default: 128M]
    #[arg(long, global = true, env = settings::CACHE_MEMORY, value_name = "SIZE", value_parser = size)]
    pub cache_memory: Option<u64>,
    /// Seconds that one read, or opening an image, may take at most; and for how long a sink may show no sign of life
    #[arg(long, global = true, env = settings::DEADLINE, value_name = "SECONDS", default_value_t = settings::DEADLINE_SECONDS,
          value_parser = clap::value_parser!(u64).range(settings::DEADLINE_RANGE))]
    pub deadline: u64,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress, and only errors in the log
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more in the log; twice even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Global {
    /// How long a read may take.
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline)
    }

    /// What these options and the variables beside them say of sources, cache and limits.
    pub fn settings(&self) -> Settings {
        Settings {
            from: self.from.clone(),
            cache: self.cache.clone(),
            cache_size: self.cache_size,
            cache_memory: self.cache_memory,
            deadline: self.deadline(),
            reach: self.reach(),
            ..Settings::default()
        }
    }

    /// How far hints are followed.
    pub fn reach(&self) -> Reach {
        if self.allow_private_hints { Reach::Anywhere } else { Reach::Public }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pack a directory tree into an flist and print its CID
    Pack(PackArgs),
    /// Record what a command reads first, so that it starts faster elsewhere
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Put an flist where others find it: a store, an archive, an IPFS node
    Publish(PublishArgs),
    /// Let a name stand for an flist
    #[command(subcommand)]
    Name(NameCommand),
    /// Mount an flist on a directory
    Mount(MountArgs),
    /// Unmount an flist
    Umount(UmountArgs),
    /// List what is mounted and what each mount has done
    Mounts,
    /// List a directory of an flist
    Ls(LsArgs),
    /// Draw the tree of an flist
    Tree(TreeArgs),
    /// Print files of an flist
    Cat(CatArgs),
    /// Show all attributes of files of an flist
    Stat(StatArgs),
    /// Describe an flist: sizes, counts, run configuration
    Info(InfoArgs),
    /// Prove every object of an flist in its sources
    Check(CheckArgs),
    /// Write an flist out as a directory tree
    Unpack(UnpackArgs),
    /// Run a command in a throwaway container on an flist
    Run(RunArgs),
    /// Give blocks to others: a trustless gateway over the cache and the sources, until it is told to stop
    Serve(ServeArgs),
    /// Measure how fast files and a command of an flist are there, cold and warm, from each source
    Bench(BenchArgs),
    /// Look at the sources of a mount and change them while it is in use
    #[command(subcommand)]
    Source(SourceCommand),
    /// Give an flist a name of your own, or list the names
    Tag(TagArgs),
    /// Look at the block cache and shrink it
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a directory
    Man {
        /// The directory, made if it is missing
        dir: PathBuf,
    },
    /// Serve the mounts of a cache; `mount` starts it
    #[command(hide = true)]
    Daemon,
}

/// `flist pack`
#[derive(Args, Debug)]
pub struct PackArgs {
    /// The tree to pack
    pub dir: PathBuf,
    /// Leave out what matches; anchored at the tree's root when it holds a slash, else any name anywhere
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Do not enter other file systems; their mountpoints become empty directories
    #[arg(long)]
    pub one_file_system: bool,
    /// Times later than this become it, in seconds since 1970
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH", allow_negative_numbers = true)]
    pub clamp_mtime: Option<i64>,
    /// Give everything to this owner, in numbers
    #[arg(long, value_name = "UID:GID", value_parser = owner)]
    pub owner: Option<g8_fs::pack::OwnerMap>,
    /// zstd level
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub level: i32,
    /// Bytes decoded at once, a multiple of 4K up to 1008K: smaller for random reads, larger for size
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = frame)]
    pub frame: u32,
    /// Threads for reading, and as many for compressing [default: one per processor]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// Leave files out that change while they are read, and report them, instead of failing
    #[arg(long)]
    pub skip_changed: bool,
    /// Architecture to record, as OCI images name it [default: that of the ELF files in the tree]
    #[arg(long)]
    pub arch: Option<String>,
    /// Program to run in the image; once per argument
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub entrypoint: Vec<String>,
    /// Environment of the program
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub env: Vec<String>,
    /// Its working directory
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub workdir: Option<String>,
    /// Its user
    #[arg(long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// A label to record
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub label: Vec<String>,
}

/// `flist publish`
///
/// Sends every object that --from has to each --to in turn, and skips what is there already. An IPFS node is to pin it: it
/// is published when the node lists the pin. Stopped or broken off, the same command goes on where it was; only an archive is
/// made anew.
#[derive(Args, Debug)]
pub struct PublishArgs {
    /// CID of the flist
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Name of the pin on an IPFS node, which shows as flist:NAME [default: the CID]
    #[arg(long, value_name = "NAME", value_parser = pin_name)]
    pub name: Option<String>,
    /// Leave the profile out that the reference names (?profile=CID)
    #[arg(long)]
    pub no_profile: bool,
}

/// `flist profile`
#[derive(Debug, Subcommand)]
pub enum ProfileCommand {
    /// Run a command as `run` does, store the profile of what it reads, and print the reference that names it
    Record(ProfileRecordArgs),
    /// Show what a profile says
    Show {
        /// CID of a profile, or an flist with ?profile=CID
        #[arg(value_name = "REF")]
        reference: String,
    },
}

/// `flist profile record`
///
/// The profile names the blocks that the command reads, in the order of the first time. It is an object of its own in the
/// first --to; the flist and its address stay as they are. Who mounts or runs CID?profile=PROFILE has these blocks on their
/// way before the command asks for them. What the command prints goes to stderr, and the reference to stdout; that it
/// fails is said and no obstacle.
#[derive(Args, Debug)]
pub struct ProfileRecordArgs {
    /// What it is for [default: the command]
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
    /// What to run, and how.
    #[command(flatten)]
    pub run: RunArgs,
}

/// `flist name`
#[derive(Debug, Subcommand)]
pub enum NameCommand {
    /// Have an IPFS node sign that a name of its stands for an flist; prints the name, which --from ipfs: resolves
    Publish(NamePublishArgs),
}

/// `flist name publish`
#[derive(Args, Debug)]
pub struct NamePublishArgs {
    /// Key of the node that signs, by its name or id; made when the node has none of that name
    #[arg(value_parser = key)]
    pub key: String,
    /// CID of the flist, which should be published to the node before
    #[arg(value_name = "REF")]
    pub reference: String,
    /// How long the signature is good; the node renews it while it runs
    #[arg(long, value_name = "TIME", default_value = "48h", value_parser = span)]
    pub lifetime: String,
    /// How long others may go by it without asking again
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = span)]
    pub ttl: String,
}

/// How a mount reaches the kernel, as a user says it.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ModeArg {
    /// `kernel` where it works, else `fuse`
    Auto,
    /// The kernel mounts the tree itself, as EROFS: the fast path, for root on Linux 6.12 and newer
    Kernel,
    /// The whole tree over FUSE: works everywhere
    Fuse,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Mode {
        match mode {
            ModeArg::Auto => Mode::Auto,
            ModeArg::Kernel => Mode::Kernel,
            ModeArg::Fuse => Mode::Fuse,
        }
    }
}

/// What `mount` and `run` share.
#[derive(Args, Clone, Debug)]
pub struct MountOptions {
    /// How the mount reaches the kernel
    #[arg(long, value_enum, default_value = "auto", env = settings::MODE)]
    pub mode: ModeArg,
    /// Keep blocks of stores on this machine in the cache too, as if they were far away
    #[arg(long)]
    pub cache_local: bool,
    /// Honour set-user-ID bits and file capabilities
    #[arg(long)]
    pub suid: bool,
    /// Honour device nodes
    #[arg(long)]
    pub dev: bool,
    /// Do not follow the profile that the reference names (?profile=CID): fetch what is read and no more
    #[arg(long)]
    pub no_profile: bool,
}

/// `flist mount`
#[derive(Args, Debug)]
pub struct MountArgs {
    /// The flist: a CID, ipfs://CID with or without hints, or a tag
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Where to mount it
    pub dir: PathBuf,
    /// How.
    #[command(flatten)]
    pub options: MountOptions,
    /// Let other users in where FUSE would keep them out; in mode kernel the permissions in the image decide, as on any
    /// mount by root
    #[arg(long)]
    pub allow_other: bool,
}

/// `flist umount`
#[derive(Args, Debug)]
pub struct UmountArgs {
    /// Where it is mounted
    pub dir: PathBuf,
    /// Detach it although it is in use; it ends with its last user
    #[arg(long)]
    pub lazy: bool,
}

/// `flist ls`
#[derive(Args, Debug)]
pub struct LsArgs {
    /// The flist: a CID, ipfs://CID with or without hints, or a tag
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Directory or file in it
    #[arg(default_value = "/")]
    pub path: PathBuf,
    /// Mode, links, owner, size and time too
    #[arg(short, long)]
    pub long: bool,
}

/// `flist tree`
#[derive(Args, Debug)]
pub struct TreeArgs {
    /// The flist: a CID, ipfs://CID with or without hints, or a tag
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Directory in it
    #[arg(default_value = "/")]
    pub path: PathBuf,
    /// How many levels to draw
    #[arg(short = 'L', long, value_name = "LEVELS")]
    pub depth: Option<usize>,
}

/// `flist cat`
#[derive(Args, Debug)]
pub struct CatArgs {
    /// The flist: a CID, ipfs://CID with or without hints, or a tag
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Files in it
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
}

/// `flist stat`
#[derive(Args, Debug)]
pub struct StatArgs {
    /// The flist: a CID, ipfs://CID with or without hints, or a tag
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Files in it
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Show what a symlink points to instead of the symlink
    #[arg(short = 'L', long)]
    pub dereference: bool,
}

/// `flist info`
#[derive(Args, Debug)]
pub struct InfoArgs {
    /// The flist: a CID, ipfs://CID with or without hints, or a tag
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Write the tree, an EROFS image, to a file
    #[arg(long, value_name = "FILE")]
    pub tree_out: Option<PathBuf>,
    /// Write the data space of small contents to a sparse file: the tree's first extra device
    #[arg(long, value_name = "FILE")]
    pub small_out: Option<PathBuf>,
    /// Write the data space of big contents to a sparse file: the tree's second extra device
    #[arg(long, value_name = "FILE")]
    pub big_out: Option<PathBuf>,
}

/// `flist check`
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The flist: a CID, ipfs://CID with or without hints, or a tag
    #[arg(value_name = "REF")]
    pub reference: String,
}

/// `flist unpack`
#[derive(Args, Debug)]
pub struct UnpackArgs {
    /// The flist: a CID, ipfs://CID with or without hints, or a tag
    #[arg(value_name = "REF")]
    pub reference: String,
    /// New or empty directory
    pub dir: PathBuf,
}

/// Network of a throwaway container.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Net {
    /// Only a loopback of its own
    None,
    /// That of the host, but for ports below 1024, on which only a privileged one may listen
    Host,
}

/// `flist run`
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The flist: a CID, ipfs://CID with or without hints, or a tag
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Command and arguments, after the image's entrypoint
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
    /// How the image is mounted.
    #[command(flatten)]
    pub options: MountOptions,
    /// All capabilities, no masked paths, set-user-ID allowed
    #[arg(long)]
    pub privileged: bool,
    /// Its network
    #[arg(long, value_enum, default_value = "none")]
    pub net: Net,
    /// Program to run instead of the image's entrypoint; empty for none
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// More environment
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub env: Vec<String>,
    /// Working directory instead of the image's
    #[arg(short, long, value_name = "DIR", value_parser = absolute)]
    pub workdir: Option<String>,
    /// User instead of the image's
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Host name in the container [default: the end of the CID]
    #[arg(long)]
    pub hostname: Option<String>,
    /// Most bytes the container may write; they are held in memory
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size)]
    pub upper_size: u64,
}

/// `flist serve`
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Where to listen; port 0 takes a free one. It is plain HTTP and asks nobody who they are: whoever reaches it can read
    /// every block whose CID they know. Others use it as --from http://ADDR:PORT
    #[arg(long, value_name = "ADDR:PORT", env = "G8_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Serve the stores alone, and not what the cache holds
    #[arg(long)]
    pub no_cache: bool,
    /// Tell the local network by mDNS that this gateway is here, for those who mount with --from peer:. Needs a --listen
    /// address that others reach, such as 0.0.0.0:8080. Everybody on that network learns that there is a cache here, and can
    /// find out which blocks whose CIDs they know have been read
    #[arg(long)]
    pub announce: bool,
}

/// `flist bench`
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// The flist: a CID, ipfs://CID with or without hints, or a tag
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Command to start in a throwaway container, as `run` does; needs root. Without one only files are read
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
    /// How often each is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// How many files are read, spread over the whole tree
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub files: u32,
    /// Empty the page cache of the machine before every cold measurement; needs root
    #[arg(long)]
    pub drop_caches: bool,
    /// Draw the result, as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// How the image is mounted.
    #[command(flatten)]
    pub options: MountOptions,
}

/// `flist source`
#[derive(Debug, Subcommand)]
pub enum SourceCommand {
    /// Ask one more source, after those that are asked already; reads that wait ask it at once
    Add {
        /// Where the flist is mounted
        dir: PathBuf,
        /// The source, as in --from
        spec: Spec,
    },
    /// Ask a source no more
    Rm {
        /// Where the flist is mounted
        dir: PathBuf,
        /// The source, as `list` names it
        spec: Spec,
        /// Also when it is the last one: then only what is in the cache can be read
        #[arg(long)]
        force: bool,
    },
    /// List the sources in the order they are asked, and what each has given
    List {
        /// Where the flist is mounted
        dir: PathBuf,
    },
}

/// `flist tag`
///
/// Names are kept in $XDG_DATA_HOME/g8os/names and can be used wherever a command takes a REF. What a name leads to is said
/// by every command that is given one.
#[derive(Args, Debug)]
pub struct TagArgs {
    /// The name: lower-case letters, digits and . _ - /, such as debian/12; without one all names are listed
    #[arg(value_name = "NAME", requires = "target")]
    pub name: Option<Tag>,
    /// What it leads to from now on; another name is followed, and hints are kept
    #[arg(value_name = "REF", group = "target")]
    pub reference: Option<String>,
    /// Forget the name
    #[arg(long, group = "target", requires = "name")]
    pub remove: bool,
}

/// `flist cache`
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// What the cache holds and how it served
    Stats,
    /// Shrink the cache to its size, or to --cache-size, now
    Gc,
    /// Drop every block
    Clear,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_declaration_holds_together() {
        Cli::command().debug_assert();
    }
}
