//! A real Debian root filesystem, made once per machine by mmdebstrap from the machine's own apt sources.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{args, process};

const PACKAGES: &str = "python3-minimal";

/// The tree; it is shared by all tests of this machine, so nobody may change it. `Err` says what is missing.
pub fn tree() -> Result<PathBuf, String> {
    let suite = suite()?;
    let sources = sources()?;
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache.or_else(home).ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join("g8os-tests");
    let done = cache.join(format!("debian-{suite}-{PACKAGES}"));
    if done.is_dir() {
        return Ok(done);
    }
    if !Path::new("/usr/bin/mmdebstrap").exists() {
        return Err("mmdebstrap is not installed".to_owned());
    }
    fs::create_dir_all(&cache).map_err(|e| format!("mkdir {}: {e}", cache.display()))?;
    let temporary =
        tempfile::Builder::new().prefix(".debian-").tempdir_in(&cache).map_err(|e| e.to_string())?;
    let root = temporary.path().join("root");
    let mut args = args!["--quiet", "--variant=minbase", format!("--include={PACKAGES}"), suite, root];
    args.extend(sources);
    process::tool("mmdebstrap", args);
    // Another test process may have been faster; its tree is as good.
    match fs::rename(&root, &done) {
        Ok(()) => Ok(done),
        Err(_) if done.is_dir() => Ok(done),
        Err(e) => Err(format!("rename to {}: {e}", done.display())),
    }
}

fn suite() -> Result<String, String> {
    let release = fs::read_to_string("/etc/os-release").map_err(|e| format!("/etc/os-release: {e}"))?;
    let value =
        |key: &str| release.lines().find_map(|l| l.strip_prefix(key).map(|v| v.trim_matches('"').to_owned()));
    match (value("ID="), value("VERSION_CODENAME=")) {
        (Some(id), Some(suite)) if id == "debian" || id == "ubuntu" => Ok(suite),
        (id, _) => Err(format!("this machine is no Debian but {id:?}, so its apt sources make none")),
    }
}

/// Sources files of the distribution itself; those of other vendors lack packages that mmdebstrap would look for.
fn sources() -> Result<Vec<OsString>, String> {
    let mut all = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(dir) = fs::read_dir("/etc/apt/sources.list.d") {
        all.extend(dir.flatten().map(|e| e.path()));
    }
    all.retain(|path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.contains("debian-archive-keyring") || text.contains("/debian") || text.contains("/ubuntu")
    });
    all.sort();
    if all.is_empty() {
        Err("no apt sources of the distribution".to_owned())
    } else {
        Ok(all.into_iter().map(Into::into).collect())
    }
}
