//! A whole process as the daemon of a cache, whichever program it is: what a [`Starter`](super::Starter) starts.

use std::io::Write;

use super::serve;
use crate::engine::EngineConfig;

/// Serves until it is no longer needed, and ends the process. It says `ready` on stdout once it serves, or why it does
/// not, and closes it. Call it before anything opens a descriptor.
pub fn run(config: EngineConfig) -> ! {
    // A session of its own: what happens to the terminal of whoever mounted first is not the mounts' business.
    // It fails for a daemon that was started by hand as the leader of its group, which is fine.
    let _ = rustix::process::setsid();
    let _ = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    close_inherited();
    raise_file_limit();
    let served = serve(config, || {
        tell("ready");
        close_stdout();
    });
    let code = match served {
        Ok(()) => 0,
        Err(error) => {
            tell(&(super::Refusal::new(&error).message + "\n"));
            1
        }
    };
    // Threads of ended sessions may still hold the database, which is flushed; the exit handlers of the C++ library
    // would take it away under them.
    // SAFETY: it ends the process and nothing else.
    unsafe { libc::_exit(code) }
}

fn tell(text: &str) {
    let mut out = std::io::stdout();
    // The starter has given up and gone: the daemon serves whoever comes next.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The starter reads until the end of our stdout.
fn close_stdout() {
    let null = std::fs::File::options().write(true).open("/dev/null");
    if let Err(error) = null.and_then(|null| Ok(rustix::stdio::dup2_stdout(&null)?)) {
        tracing::error!(%error, "stdout stays open, and who started the daemon waits");
    }
}

/// What a shell or a service manager left open (a lock, a pipe) must not stay open for as long as we run.
fn close_inherited() {
    // SAFETY: nothing of this process has opened a descriptor yet but the standard three.
    let closed = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    if closed != 0 {
        tracing::warn!(error = %std::io::Error::last_os_error(), "inherited descriptors stay open");
    }
}

/// RocksDB and one descriptor per session thread need more than the usual soft limit.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
