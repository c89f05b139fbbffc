#![no_main]

use core0::boot::bootstrap::document::{Document, FILE_MAX, MANY};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(document) = Document::parse(data) else { return };
    assert!(data.len() <= FILE_MAX);
    assert!(document.mounts.len() <= MANY && document.controllers.len() <= MANY && document.sources.len() <= MANY);
    assert!(document.mounts.iter().all(|mount| mount.path.is_absolute() && !mount.path.starts_with("/run/core0")));
});
