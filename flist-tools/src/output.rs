//! Printing results: to stdout, as text or as one JSON document.

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::Global;

/// One JSON document, for programs.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// One line.
pub fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Something the user should know that is not the result.
pub fn warn(text: impl std::fmt::Display) {
    // When stderr is closed there is nobody to warn.
    let _ = writeln!(io::stderr(), "flist: {text}");
}

/// Something that is good to know, unless the user wants to know nothing.
pub fn info(global: &Global, text: impl std::fmt::Display) {
    if !global.quiet {
        warn(text);
    }
}

/// A number of bytes as people read it.
pub fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A name from an image, safe for a terminal: control characters and bytes that are not UTF-8 are escaped.
pub fn name(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}
