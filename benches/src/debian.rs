//! A real Debian root filesystem, made by mmdebstrap with the machine's own apt sources.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::run::{command, output};

/// Packages beside those of variant minbase.
const PACKAGES: &str = "python3-minimal";

/// The tree, made once per machine and release and kept below the user's cache folder.
pub fn tree() -> anyhow::Result<PathBuf> {
    let suite = codename()?;
    let base = std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let base = base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("g8os-build/debian");
    let tree = base.join(format!("{suite}-minbase-{PACKAGES}"));
    if tree.exists() {
        return Ok(tree);
    }
    std::fs::create_dir_all(&base).with_context(|| format!("making {}", base.display()))?;
    let making = base.join(format!(".making-{}", std::process::id()));
    eprintln!("making a Debian {suite} tree (minbase and {PACKAGES}), once");
    let made = mmdebstrap(&suite, &making);
    if made.is_err() {
        // The reason is what to tell.
        let _ = std::fs::remove_dir_all(&making);
    }
    made?;
    std::fs::rename(&making, &tree).with_context(|| format!("keeping {}", tree.display()))?;
    Ok(tree)
}

fn mmdebstrap(suite: &str, target: &Path) -> anyhow::Result<()> {
    let include = format!("--include={PACKAGES}");
    let target = target.to_string_lossy();
    output(&mut command("mmdebstrap", &["--quiet", "--variant=minbase", &include, suite, &target]))?;
    Ok(())
}

fn codename() -> anyhow::Result<String> {
    let release = std::fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let line = release.lines().find_map(|l| l.strip_prefix("VERSION_CODENAME="));
    Ok(line.context("/etc/os-release names no VERSION_CODENAME")?.trim_matches('"').to_owned())
}
