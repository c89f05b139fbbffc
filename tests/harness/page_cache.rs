//! Getting around the page cache, so that a read asks the daemon. O_DIRECT is no way: mode kernel has none.

use std::fs::{self, File};

use rustix::fs::{Advice, fadvise};

/// Drops what the kernel has cached of a file. Pages that somebody maps or reads stay.
pub fn forget(file: &File) {
    fadvise(file, 0, None, Advice::DontNeed).expect("the kernel takes advice about files");
}

/// Turns read-ahead off for one open file: a read asks for its own pages only.
pub fn read_at_random(file: &File) {
    fadvise(file, 0, None, Advice::Random).expect("the kernel takes advice about files");
}

/// Drops everybody's cached pages.
pub fn drop_contents() {
    drop_caches("1");
}

/// Drops everybody's unused names and attributes.
pub fn drop_names() {
    drop_caches("2");
}

/// Drops both.
pub fn drop_everything() {
    drop_caches("3");
}

fn drop_caches(what: &str) {
    fs::write("/proc/sys/vm/drop_caches", what).expect("root may drop caches");
}
