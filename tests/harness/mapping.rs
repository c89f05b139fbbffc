//! Contents through mmap, where what cannot be had is a signal and not an error.

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The first pages of a file, mapped and present: as long as it lives, nobody on the machine can drop them from the
/// page cache.
pub struct Mapping {
    at: *mut c_void,
    len: usize,
}

impl Mapping {
    /// Reads and maps the first `len` bytes of `file`.
    pub fn new(file: &File, len: usize) -> Self {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a fresh mapping of a file that nobody truncates; it is unmapped when it is dropped.
        let at = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, flags, file, 0) };
        let mapping = Self { at: at.expect("a file can be mapped"), len };
        std::hint::black_box(mapping.bytes().iter().step_by(4096).fold(0, |sum: u8, byte| sum ^ byte));
        mapping
    }

    /// What it shows.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped with this length until it is dropped.
        unsafe { std::slice::from_raw_parts(self.at.cast::<u8>(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody borrows from it any more.
        let _ = unsafe { munmap(self.at, self.len) };
    }
}

/// The byte at `offset` of `file` as a process that maps it sees it, or the signal that ends the process.
pub fn byte_at(file: &File, offset: u64) -> Result<u8, i32> {
    let page = offset / 4096 * 4096;
    // SAFETY: the child makes system calls and one load, and never returns into the test.
    let status = unsafe {
        let child = libc::fork();
        assert!(child >= 0, "a process can be started");
        if child == 0 {
            let at = libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                page as libc::off_t,
            );
            let byte = std::ptr::read_volatile(at.cast::<u8>().add((offset - page) as usize));
            libc::_exit(i32::from(byte));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        status
    };
    if libc::WIFSIGNALED(status) { Err(libc::WTERMSIG(status)) } else { Ok(libc::WEXITSTATUS(status) as u8) }
}
