//! Python environments of the tests, made once per machine by `.ci/setup`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder of the crate.
pub fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Python environment of `core/tests/python/NAME.txt`.
pub fn venv(name: &str) -> PathBuf {
    let setup = crate_dir().join("../.ci/setup");
    let made = Command::new(&setup).args(["venv", name]).stderr(Stdio::inherit()).output().unwrap();
    assert!(made.status.success(), "{} venv {name}: {}", setup.display(), made.status);
    String::from_utf8(made.stdout).unwrap().trim_end().into()
}
