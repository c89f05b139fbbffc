//! `core0 run --dev DIR` as what starts it sees it: the line on standard output, the folder.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Node, said, signal, until};

/// Starts one in an environment of its own, with its standard output in a file.
pub fn start(dir: &Path, output: &Path, environment: &[(&str, &Path)]) -> Node {
    let log = File::options().create(true).append(true).open(dir.with_extension("log")).unwrap();
    let manager = Command::new(env!("CARGO_BIN_EXE_core0"))
        .args(["run", "--dev"])
        .arg(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(File::create(output).unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut node = Node::of(manager, dir);
    until("it is ready", || {
        assert!(matches!(node.manager.try_wait(), Ok(None)), "it ended");
        std::fs::read_to_string(output).unwrap().ends_with('\n')
    });
    let ready: Value = serde_json::from_str(&lines(output)[0]["ready ".len()..]).unwrap();
    node.port = ready["port"].as_u64().unwrap() as u16;
    node.password = ready["password"].as_str().unwrap().into();
    node
}

fn lines(output: &Path) -> Vec<String> {
    std::fs::read_to_string(output).unwrap().lines().map(String::from).collect()
}

#[test]
fn it_makes_its_folder_and_says_one_line_in_all_its_life() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, output) = (folder.path().join("new/dev"), folder.path().join("stdout"));
    std::fs::create_dir(folder.path().join("new")).unwrap();
    // Services and jobs that print, one that cannot start.
    let mut node = start(&dir, &output, &[("HOME", folder.path())]);
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    std::fs::create_dir_all(dir.join("services")).unwrap();
    std::fs::write(dir.join("services/talk.toml"), "exec = ['sh', '-c', 'echo service; exec sleep 6010']")
        .unwrap();
    std::fs::write(dir.join("services/bad.toml"), "exec = ['/no/such']\nrestart = 'never'").unwrap();
    assert_eq!(node.call("service.reload", json!({}))["state"], "SUCCESS");
    let printed = node.call("bash", json!({"script": "echo job; echo job >&2; echo 8::message"}));
    assert_eq!(printed["streams"][0], "job\n");
    assert_eq!(node.call("flist.mount", json!({"ref": "no-such-tag", "mountpoint": dir}))["code"], 404);
    assert_eq!(node.call("no.such", json!({}))["state"], "UNKNOWN_CMD");
    node.push_raw(b"rubbish");
    until("the service talked", || node.call("service.logs", json!({"name": "talk"}))["data"] != "[]");
    // redis dies, the spawner dies, another manager is refused.
    signal(node.pid_of("redis-server"), libc::SIGKILL);
    until("redis is back", || node.connect_as("default", &node.password).is_ok());
    assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
    signal(node.pid_of("spawner"), libc::SIGKILL);
    until("jobs run again", || node.call("bash", json!({"script": "echo again"}))["streams"][0] == "again\n");
    let second = Command::new(env!("CARGO_BIN_EXE_core0")).args(["run", "--dev"]).arg(&dir).output().unwrap();
    assert!(!second.status.success() && second.stdout.is_empty() && !second.stderr.is_empty());
    node.stop();
    let said = lines(&output);
    assert_eq!(said.len(), 1, "{said:?}");
    let ready = json!({"host": "127.0.0.1", "port": node.port, "password": node.password});
    assert_eq!(serde_json::from_str::<Value>(&said[0]["ready ".len()..]).unwrap(), ready);
}

#[test]
fn another_life_in_the_folder_has_the_port_and_the_password_of_the_last_one() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, output) = (folder.path().join("dev"), folder.path().join("stdout"));
    let mut node = start(&dir, &output, &[("HOME", folder.path())]);
    let first = lines(&output);
    node.stop();
    let mut node = start(&dir, &output, &[("HOME", folder.path())]);
    assert_eq!(lines(&output), first);
    assert!(dir.join("redis.sock").exists());
    // Nothing in the arguments or the environment of anybody tells the password.
    for (pid, _) in node.processes() {
        for file in ["cmdline", "environ"] {
            let seen = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&seen).contains(&node.password), "{file} of {pid}");
        }
    }
    node.stop();
    assert!(!said(&dir).contains(&node.password));
}
