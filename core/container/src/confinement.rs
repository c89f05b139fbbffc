//! Landlock: the command writes to files of the container only.
//!
//! Mounts hide the host's files, but not those that a process of ours has open or runs: root in the container
//! reaches them through the links in `/proc/self`. `/proc/self/exe` is the `flist` binary until the exec, and
//! an image whose command is a script starting with `#!/proc/self/exe` could get hold of it and overwrite it
//! (CVE-2019-5736). Landlock looks at where the opened file lies, whatever way led there.

use rustix::fs::{CWD, Mode, OFlags, fcntl_getfl, openat};
use rustix::io::{Errno, Result};

use super::syscall::{
    STDERR, STDIN, STDOUT, landlock_allow, landlock_restrict, landlock_ruleset, landlock_version,
};

// `LANDLOCK_ACCESS_FS_*` of <linux/landlock.h>.
const WRITE_FILE: u64 = 1 << 1;
/// Moving and linking between directories: refused by every ruleset that does not allow it.
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
/// The version that knows all of the above (Linux 6.2).
const VERSION_MIN: i64 = 3;

/// Refuses to open files for writing outside of the root filesystem and its mounts. Does nothing on a kernel
/// without Landlock: it is a second wall.
pub(super) fn confine_writes() -> Result<()> {
    if landlock_version().unwrap_or_default() < VERSION_MIN {
        return Ok(());
    }
    let ruleset = landlock_ruleset(WRITE_FILE | TRUNCATE | REFER)?;
    let root = openat(CWD, c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    landlock_allow(&ruleset, &root, WRITE_FILE | TRUNCATE | REFER)?;
    // `/dev/stdout` and its like name files of the host. What was handed in for writing may be opened for it
    // again.
    for stream in [STDIN, STDOUT, STDERR] {
        let writable = fcntl_getfl(stream).is_ok_and(|flags| flags.intersects(OFlags::WRONLY | OFlags::RDWR));
        if !writable {
            continue;
        }
        match landlock_allow(&ruleset, stream, WRITE_FILE | TRUNCATE) {
            // Pipes and sockets have no place in the file system, so no rule, and no rule refuses them.
            Ok(()) | Err(Errno::BADFD) => {}
            Err(errno) => return Err(errno),
        }
    }
    landlock_restrict(&ruleset)
}
