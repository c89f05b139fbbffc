//! The Python client `core/pyclient`: by itself, on a real redis, and on a real node, as it is installed from a wheel.

#[path = "python/fenced.rs"]
mod fenced;
mod image;
#[path = "python/venv.rs"]
mod venv;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fenced::{Fenced, run};
use venv::{crate_dir, venv};

const PATIENCE: Duration = Duration::from_secs(300);

fn python(venv: &Path, arguments: &[&str]) -> Command {
    let mut python = Command::new(venv.join("bin/python"));
    python
        .args(arguments)
        .current_dir(crate_dir().join("pyclient"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("PYTHONPATH")
        .env_remove("G8_NODE");
    python
}

fn succeeds(command: &mut Command) -> String {
    run(command, PATIENCE).unwrap_or_else(|said| panic!("{said}"))
}

/// The client in a folder of its own, as pip installs it.
fn installed(venv: &Path) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let mut pip = python(venv, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip.args(["--no-build-isolation", "--no-deps", "--no-index", "--target"]).arg(place.path()).arg(".");
    succeeds(&mut pip);
    place
}

fn passes_without_a_node(environment: &str) {
    let venv = venv(environment);
    let place = installed(&venv);
    let temporary = tempfile::tempdir().unwrap();
    let mut pytest = python(&venv, &["-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp"]);
    pytest
        .arg(temporary.path().join("pytest"))
        .args(["tests/unit", "tests/redis"])
        .env("PYTHONPATH", place.path());
    succeeds(&mut pytest);
}

#[test]
fn the_client_passes_its_tests_without_a_node() {
    passes_without_a_node("client");
}

#[test]
fn the_client_passes_its_tests_over_the_oldest_redis_client_it_takes() {
    passes_without_a_node("client-oldest");
}

#[test]
fn types_are_strict_and_the_style_is_one() {
    let venv = venv("client");
    let cache = tempfile::tempdir().unwrap();
    let mut mypy = python(&venv, &["-m", "mypy", "--cache-dir"]);
    mypy.arg(cache.path());
    succeeds(&mut mypy);
    succeeds(&mut python(&venv, &["-m", "ruff", "check", "--no-cache", "."]));
    succeeds(&mut python(
        &venv,
        &[
            "-m",
            "ruff",
            "format",
            "--no-cache",
            "--config",
            "pyproject.toml",
            "--check",
            ".",
            "../tests/python",
        ],
    ));
}

#[test]
fn the_client_drives_a_node() {
    let venv = venv("client");
    let node = Fenced::start();
    // pytest takes `tests` from where it runs, and `g8os` from the installed wheel.
    let place = installed(&venv);
    let tests = crate_dir().join("pyclient");
    let path = format!("pythonpath={}", place.path().display());
    let mut pytest = node.pytest(&venv, &tests);
    let (cid, store) = image::pack_busybox(node.folder());
    pytest.env("G8_TEST_FLIST", cid).env("G8_TEST_STORE", store);
    node.passes(pytest.args(["-o", &path, "tests/node"]));
}

#[test]
fn scripts_for_the_old_client_run() {
    let venv = venv("g8core");
    let node = Fenced::start();
    let place = installed(&self::venv("client"));
    let path = format!("pythonpath={}", place.path().display());
    let mut pytest = node.pytest(&venv, &crate_dir().join("tests/python"));
    let (cid, store) = image::pack_busybox(node.folder());
    pytest.env("G8_TEST_FLIST", cid).env("G8_TEST_STORE", store);
    node.passes(pytest.args(["-o", &path, "test_g8core.py"]).env("G8_TEST_CLIENT", "g8os"));
}

#[test]
fn g8_is_a_program() {
    let venv = venv("client");
    let node = Fenced::start();
    let place = installed(&venv);
    let g8 = |arguments: &[&str]| {
        let mut g8 = node.python(&venv, place.path());
        g8.arg(place.path().join("bin/g8")).args(arguments);
        run(g8.env("PYTHONPATH", place.path()), PATIENCE)
    };
    assert!(g8(&["ping"]).unwrap().starts_with("PONG "));
    assert_eq!(g8(&["exec", "--", "echo", "from", "afar"]).unwrap(), "from afar\n");
    assert!(g8(&["exec", "--", "sh", "-c", "exit 42"]).unwrap_err().contains("exit status: 42"));
    assert!(g8(&["info"]).unwrap().contains("KERNEL"));
    assert!(g8(&["jobs"]).unwrap().starts_with("ID "));
    assert!(g8(&["call", "no.such"]).unwrap_err().contains("exit status: 3"));
}
