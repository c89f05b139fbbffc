//! Everything the child needs, computed and allocated before the clone.
//!
//! The child of a process with threads must not allocate, so each string it passes to the kernel is made
//! here.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::process::{Gid, Uid};
use rustix::thread::CapabilitySet;

use super::filter::{self, Filters};
use super::syscall::Pointers;
use super::terminal::Terminal;
use super::volumes::{FILES_MAX, PATH_BYTES_MAX, Place, VOLUMES_MAX, check_places};
use super::{Command, ContainerError, Network, Spec, Upper, User, Volume, ids, privileges};

/// Where commands are looked for when the environment has no `PATH`, as docker has it.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The longest host name Linux takes (`__NEW_UTS_LEN`).
const HOSTNAME_MAX_BYTES: usize = 64;
/// One file of the upper layer for so many bytes of it: an empty file costs memory too, but no bytes of the
/// tmpfs.
const BYTES_PER_INODE: u64 = 4096;
/// Room for the directories that a container always has.
const INODES_MIN: u64 = 1024;

/// Bytes and files of the scratch mount when the upper layer is on disk: the directories it lies beside.
const SCRATCH_BYTES: u64 = 64 << 10;

/// The spec in the words of the kernel.
pub(super) struct Plan<'a> {
    pub(super) spec: &'a Spec,
    /// `CLONE_NEW*` flags.
    pub(super) namespaces: u64,
    pub(super) lower: CString,
    pub(super) scratch_size: CString,
    pub(super) scratch_inodes: CString,
    /// Each volume and where it belongs, outer ones first.
    pub(super) volumes: Vec<(Place, &'a Volume)>,
    /// Where each file belongs.
    pub(super) files: Vec<Place>,
    /// The working directory and each of its parents, outermost first.
    pub(super) workdirs: Vec<CString>,
    /// What programs inside may have at most; none leaves all that the caller has.
    pub(super) capabilities: Option<CapabilitySet>,
    /// What they may not call.
    pub(super) filters: Option<&'static Filters>,
    /// The caller's terminal, to be given to the command.
    pub(super) terminal: Option<Terminal>,
}

impl<'a> Plan<'a> {
    /// Checks the spec and prepares it.
    pub(super) fn new(spec: &'a Spec, terminal: Option<Terminal>) -> Result<Self, ContainerError> {
        if spec.hostname.is_empty() || spec.hostname.len() > HOSTNAME_MAX_BYTES {
            return Err(ContainerError::Invalid("a host name has 1 to 64 bytes"));
        }
        if spec.volumes.len() > VOLUMES_MAX || spec.files.len() > FILES_MAX {
            return Err(ContainerError::Invalid("more than 64 volumes or 72 files"));
        }
        let bytes = match spec.upper {
            // A tmpfs takes 0 as "no limit".
            Upper::Memory { bytes: 0 } => {
                return Err(ContainerError::Invalid("the upper layer needs a size"));
            }
            Upper::Memory { bytes } => bytes,
            Upper::Disk { .. } => SCRATCH_BYTES,
        };
        Ok(Plan {
            namespaces: namespaces(spec),
            lower: c_string(&spec.lower)?,
            scratch_size: number(bytes),
            scratch_inodes: number((bytes / BYTES_PER_INODE).max(INODES_MIN)),
            volumes: placed(&spec.volumes)?,
            files: spec.files.iter().map(|file| Place::new(&file.path)).collect::<Result<_, _>>()?,
            workdirs: with_parents(&spec.workdir)?,
            capabilities: (!spec.privileged).then_some(privileges::DEFAULT),
            filters: if spec.privileged { None } else { Some(filter::filters()?) },
            terminal,
            spec,
        })
    }

    /// Whether the container gets its sysfs from the caller: it shows the network of its mounter, and only who has rights
    /// over that network may mount it.
    pub(super) fn takes_sys(&self) -> bool {
        self.spec.network == Network::Host && !self.spec.privileged
    }
}

/// The command in the words of the kernel.
pub(super) struct CommandPlan<'a> {
    /// The paths to try for the command, in order.
    pub(super) programs: Vec<CString>,
    pub(super) argv: Pointers<'a>,
    pub(super) env: Pointers<'a>,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) groups: Vec<Gid>,
}

impl<'a> CommandPlan<'a> {
    /// Checks the command and prepares it. In a user namespace only the first 65,536 ids are somebody.
    pub(super) fn new(command: &'a Command, privileged: bool) -> Result<Self, ContainerError> {
        let program = command.argv.first().ok_or(ContainerError::Invalid("there is no command"))?;
        let User { uid, gid, groups, home: _ } = &command.user;
        // The largest id means "leave it as it is" to the kernel: the command would stay root.
        if [uid, gid].into_iter().chain(groups).any(|id| *id == u32::MAX) {
            return Err(ContainerError::Invalid("4294967295 is no user or group id"));
        }
        if !privileged && [uid, gid].into_iter().chain(groups).any(|id| *id >= ids::COUNT) {
            return Err(ContainerError::Invalid("a container has the user and group ids 0 to 65535"));
        }
        Ok(CommandPlan {
            programs: candidates(program, &command.env),
            argv: Pointers::new(&command.argv),
            env: Pointers::new(&command.env),
            uid: Uid::from_raw(*uid),
            gid: Gid::from_raw(*gid),
            groups: groups.iter().map(|gid| Gid::from_raw(*gid)).collect(),
        })
    }
}

/// An outer one that came later would cover what lies in it.
fn placed(volumes: &[Volume]) -> Result<Vec<(Place, &Volume)>, ContainerError> {
    check_places(volumes.iter().map(|volume| volume.target.as_path()), [])?;
    let places = volumes.iter().map(|volume| Ok((Place::new(&volume.target)?, volume)));
    let mut placed = places.collect::<Result<Vec<_>, ContainerError>>()?;
    placed.sort_by_key(|(place, _)| place.depth());
    Ok(placed)
}

/// All namespaces but the cgroups', which init makes itself when it is in its own; the users' unless privileged, the
/// network's only when the container has its own.
fn namespaces(spec: &Spec) -> u64 {
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
    if !spec.privileged {
        flags |= libc::CLONE_NEWUSER;
    }
    match spec.network {
        Network::None => flags |= libc::CLONE_NEWNET,
        Network::Host => {}
    }
    u64::from(flags.cast_unsigned())
}

pub(super) fn c_string(path: &Path) -> Result<CString, ContainerError> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| ContainerError::Invalid("a path contains a NUL byte"))
}

fn number(value: u64) -> CString {
    CString::new(value.to_string()).expect("digits contain no NUL byte")
}

/// `/a/b` gives `/`, `/a`, `/a/b`. No `..`: after a symlink it would name another place than it seems to.
fn with_parents(workdir: &Path) -> Result<Vec<CString>, ContainerError> {
    if !workdir.is_absolute() || workdir.components().any(|part| part == Component::ParentDir) {
        return Err(ContainerError::Invalid("the working directory must be absolute and without '..'"));
    }
    if workdir.as_os_str().len() > PATH_BYTES_MAX {
        return Err(ContainerError::Invalid("the working directory has more than 4095 bytes"));
    }
    let mut paths = workdir.ancestors().map(c_string).collect::<Result<Vec<_>, _>>()?;
    paths.reverse();
    Ok(paths)
}

/// What `execvp` would try: the command itself when it has a `/`, else the command in each directory of
/// `PATH`.
fn candidates(command: &CString, env: &[CString]) -> Vec<CString> {
    let name = command.as_bytes();
    // An empty name must stay empty: joined to a directory it would name the directory.
    if name.is_empty() || name.contains(&b'/') {
        return vec![command.clone()];
    }
    let path = env.iter().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
    path.split(|byte| *byte == b':')
        .map(|directory| {
            // An empty entry means the working directory.
            let directory = if directory.is_empty() { b"." } else { directory };
            let program = Path::new(OsStr::from_bytes(directory)).join(OsStr::from_bytes(name));
            CString::new(program.into_os_string().as_bytes()).expect("both parts come from C strings")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(text: &str) -> CString {
        CString::new(text).expect("no NUL")
    }

    #[test]
    fn a_bare_name_is_looked_for_in_the_path_of_the_container() {
        let found = candidates(&c("sh"), &[c("HOME=/"), c("PATH=/bin::/opt/bin/")]);
        assert_eq!(found, [c("/bin/sh"), c("./sh"), c("/opt/bin/sh")]);
        assert_eq!(candidates(&c("sh"), &[]).len(), 6);
    }

    #[test]
    fn a_name_with_a_slash_and_an_empty_name_are_taken_as_they_are() {
        assert_eq!(candidates(&c("./sh"), &[]), [c("./sh")]);
        assert_eq!(candidates(&c(""), &[]), [c("")]);
    }

    #[test]
    fn a_workdir_comes_with_its_parents_and_never_climbs() {
        assert_eq!(with_parents(Path::new("/a//b/")).expect("valid"), [c("/"), c("/a"), c("/a//b/")]);
        assert!(with_parents(Path::new("a")).is_err());
        assert!(with_parents(Path::new("/a/../b")).is_err());
    }
}
