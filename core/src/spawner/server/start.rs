//! Starting a process: all that is between a request and exec, with nothing allocated on the other side.
//!
//! The child is made by `clone(CLONE_VM | CLONE_VFORK)`: it borrows this process' memory until it is a program of its own,
//! so nothing is copied, and what failed is a number in that memory. Only system calls may be made there.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
use rustix::process::{Resource, Rlimit, getrlimit};

use crate::process::Process;
use crate::spawner::protocol::Event;

/// The stack of a child until it is a program: its frames are small.
const STACK: usize = 64 << 10;
/// Below it, so that one that grows too large is a fault and not somebody's memory.
const GUARD: usize = 4 << 10;
/// Where programs are when nobody says so.
const PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

/// Starts processes.
pub struct Starter {
    environment: BTreeMap<OsString, OsString>,
    /// The last byte of the stack that one child after the other has.
    stack: *mut libc::c_void,
    null: OwnedFd,
    /// The largest mark that can be.
    most_mark: libc::rlim_t,
}

/// Where starting failed, and why.
pub struct Failure(pub String, pub io::Error);

impl Failure {
    /// What the manager is told.
    pub fn event(self, slot: u64) -> Event {
        let Failure(mut step, error) = self;
        step.truncate(step.floor_char_boundary(1024));
        Event::Failed { slot, step, errno: error.raw_os_error().unwrap_or(libc::EINVAL) }
    }
}

/// What a child does, one after the other.
#[derive(Clone, Copy)]
enum Step {
    Group,
    Signals,
    Parent,
    Files,
    Streams,
    Terminal,
    User,
    Folder,
    Program,
}

/// What a child needs, made before; and what it leaves when it fails.
struct Child<'a> {
    programs: &'a [*const libc::c_char],
    argv: &'a [*const libc::c_char],
    /// For a script that does not say what runs it: the shell, the script and its arguments.
    script: &'a mut [*const libc::c_char],
    environment: &'a [*const libc::c_char],
    dir: &'a CStr,
    streams: [i32; 3],
    terminal: bool,
    /// The spawner.
    parent: i32,
    files: libc::rlimit,
    /// Says to which job or service it belongs, with all that it starts.
    mark: Option<libc::rlimit>,
    /// Whom it is in a container: groups, group, user.
    ids: Option<(&'a [u32], u32, u32)>,
    failed: Option<(Step, i32)>,
}

impl Starter {
    /// With the environment of this process.
    pub fn new() -> io::Result<Self> {
        let null = std::fs::File::open("/dev/null")?.into();
        // SAFETY: a new mapping; its lowest page becomes the guard, and nothing else is changed.
        let stack = unsafe {
            let (flags, access) = (MapFlags::PRIVATE | MapFlags::STACK, ProtFlags::READ | ProtFlags::WRITE);
            let stack = mmap_anonymous(std::ptr::null_mut(), STACK + GUARD, access, flags)?;
            mprotect(stack, GUARD, MprotectFlags::empty())?;
            stack.byte_add(STACK + GUARD)
        };
        let most_mark = getrlimit(Resource::Rttime).maximum.unwrap_or(libc::RLIM_INFINITY);
        Ok(Self { environment: std::env::vars_os().collect(), stack, null, most_mark })
    }

    /// Starts a process with these streams, in a group of its own; its pid. Without a standard input there is none to read.
    pub fn start(
        &self,
        process: &Process,
        (stdin, [out, err]): (Option<&OwnedFd>, [&OwnedFd; 2]),
        files: Rlimit,
        mark: Option<u64>,
    ) -> Result<i32, Failure> {
        let bad = |e: std::ffi::NulError| Failure("read what to start".into(), e.into());
        let text = |bytes: &[u8]| CString::new(bytes).map_err(bad);
        let dir = if process.dir.is_empty() { "/" } else { &process.dir };
        // In a container it has nothing of the node's.
        let mut environment =
            if process.inside.is_some() { BTreeMap::new() } else { self.environment.clone() };
        environment.extend(process.env.iter().map(|(name, value)| (name.into(), value.into())));
        let programs = programs(&process.argv[0], environment.get(&OsString::from("PATH")));
        let environment =
            environment.into_iter().map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='));
        let environment = environment.map(|entry| text(&entry)).collect::<Result<Vec<_>, _>>()?;
        let argv = process.argv.iter().map(|arg| text(arg.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let programs = programs.iter().map(|path| text(path)).collect::<Result<Vec<_>, _>>()?;
        let dir_text = text(dir.as_bytes())?;

        let argv = pointers(&argv);
        let mut script = [&[c"/bin/sh".as_ptr(), std::ptr::null()], &argv[1..]].concat();
        let limit = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
        let mark = mark.map(|mark| libc::rlimit { rlim_cur: mark, rlim_max: self.most_mark });
        let mut child = Child {
            programs: &pointers(&programs),
            argv: &argv,
            script: &mut script,
            environment: &pointers(&environment),
            dir: &dir_text,
            streams: [stdin.unwrap_or(&self.null), out, err].map(|fd| fd.as_fd().as_raw_fd()),
            terminal: process.terminal.is_some(),
            parent: std::process::id() as i32,
            files: libc::rlimit { rlim_cur: limit(files.current), rlim_max: limit(files.maximum) },
            mark,
            ids: process.inside.as_ref().map(|inside| (inside.groups.as_slice(), inside.gid, inside.uid)),
            failed: None,
        };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: this thread, the only one that changes memory, stands still until the child is a program or gone; all that the child reads lives in
        // this function, and its stack is used by nobody else.
        let pid = unsafe { libc::clone(become_program, self.stack, flags, (&raw mut child).cast()) };
        if pid == -1 {
            return Err(Failure("make a process".into(), io::Error::last_os_error()));
        }
        let Some((step, errno)) = child.failed else { return Ok(pid) };
        // SAFETY: a null status is allowed. It ended, so this does not wait.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        let step = match step {
            Step::Group => "make a group of processes".into(),
            Step::Signals => "unblock signals".into(),
            Step::Parent => "bind its life to the spawner's".into(),
            Step::Files => "limit its files".into(),
            Step::Streams => "hand over its streams".into(),
            Step::Terminal => "give it its terminal".into(),
            Step::User => "become the user".into(),
            Step::Folder => format!("enter the folder {dir:?}"),
            Step::Program => format!("start {:?}", process.argv[0]),
        };
        Err(Failure(step, io::Error::from_raw_os_error(errno)))
    }
}

/// Where a program may lie, in order.
fn programs(name: &str, path: Option<&OsString>) -> Vec<Vec<u8>> {
    if name.contains('/') {
        return vec![name.into()];
    }
    let path = path.map_or(PATH, |path| path.as_bytes());
    // An empty entry is the folder that it starts in.
    let folder = |entry: &[u8]| if entry.is_empty() { b".".to_vec() } else { entry.to_vec() };
    path.split(|&byte| byte == b':').map(|entry| [&folder(entry), name.as_bytes()].join(&b'/')).collect()
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

/// The child. It returns only when it failed.
extern "C" fn become_program(child: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the parent passed this, and stands still.
    let child = unsafe { &mut *child.cast::<Child<'_>>() };
    let failed = steps(child);
    child.failed = Some(failed);
    127
}

/// Only system calls, on memory that is there.
fn steps(child: &mut Child<'_>) -> (Step, i32) {
    // SAFETY: all pointers are to what the parent made, or to locals.
    unsafe {
        // Who has a terminal leads a session, and so a group too.
        if (if child.terminal { libc::setsid() } else { libc::setpgid(0, 0) }) == -1 {
            return (Step::Group, errno());
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        // Rust ignores SIGPIPE, and what is ignored stays so. Handlers are this process' own, they are not shared.
        if libc::signal(libc::SIGPIPE, libc::SIG_DFL) == libc::SIG_ERR
            || libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()) != 0
        {
            return (Step::Signals, errno());
        }
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) != 0 {
            return (Step::Parent, errno());
        }
        // Who died before that sends no signal.
        if libc::getppid() != child.parent {
            return (Step::Parent, libc::ESRCH);
        }
        if libc::setrlimit(libc::RLIMIT_NOFILE, &child.files) != 0 {
            return (Step::Files, errno());
        }
        if let Some(mark) = &child.mark {
            // Somebody may have lowered the limit that it is; then its group and its parents say to whom it belongs.
            libc::setrlimit(libc::RLIMIT_RTTIME, mark);
        }
        // Its own 0, 1 and 2 are open, so none of these is among them.
        for (to, &from) in child.streams.iter().enumerate() {
            if libc::dup2(from, to as i32) == -1 {
                return (Step::Streams, errno());
            }
        }
        if child.terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) == -1 {
            return (Step::Terminal, errno());
        }
        if let Some((groups, gid, uid)) = child.ids {
            // The kernel's own calls: those of the C library would tell threads of it, which there are none. Each needs the
            // rights that the next one takes. They end the wish to die with the spawner, which in a container is the first
            // process, whose end is everybody's.
            if libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) != 0
                || libc::syscall(libc::SYS_setresgid, gid, gid, gid) != 0
                || libc::syscall(libc::SYS_setresuid, uid, uid, uid) != 0
            {
                return (Step::User, errno());
            }
        }
        if libc::chdir(child.dir.as_ptr()) != 0 {
            return (Step::Folder, errno());
        }
        (Step::Program, execute(child))
    }
}

/// As execvp(3) does: the first that can be run. Gives why none can.
unsafe fn execute(child: &mut Child<'_>) -> i32 {
    let mut denied = false;
    for &program in child.programs.iter().take_while(|program| !program.is_null()) {
        // SAFETY: as the caller says.
        unsafe {
            libc::execve(program, child.argv.as_ptr(), child.environment.as_ptr());
            if errno() == libc::ENOEXEC {
                // No script: one for another machine, of which a shell would only say nonsense.
                if is_elf(program) {
                    return libc::ENOEXEC;
                }
                child.script[1] = program;
                libc::execve(child.script[0], child.script.as_ptr(), child.environment.as_ptr());
            }
        }
        match errno() {
            libc::EACCES => denied = true,
            libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
            other => return other,
        }
    }
    if denied { libc::EACCES } else { libc::ENOENT }
}

/// Whether a file begins as all programs do that are no scripts (elf(5)).
///
/// # Safety
///
/// `path` is a C string.
unsafe fn is_elf(path: *const libc::c_char) -> bool {
    let mut magic = [0_u8; 4];
    // SAFETY: the path is the caller's promise, the buffer a local; a descriptor that is opened here is closed here.
    unsafe {
        // Somebody may have put a FIFO there meanwhile, for whose writer this process would wait, and all others with it.
        let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK;
        let file = libc::open(path, flags);
        if file < 0 {
            return false;
        }
        let mut stat: libc::stat = std::mem::zeroed();
        if libc::fstat(file, &mut stat) != 0 || stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            libc::close(file);
            return false;
        }
        let read = libc::read(file, magic.as_mut_ptr().cast(), magic.len());
        libc::close(file);
        read == 4 && magic == *b"\x7fELF"
    }
}

fn errno() -> i32 {
    // SAFETY: it is always there; the child has that of the thread that stands still.
    unsafe { *libc::__errno_location() }
}
