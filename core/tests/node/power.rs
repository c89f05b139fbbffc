//! `core.poweroff` and `core.reboot` are carried out: by the old client and by ours, on a machine in namespaces.

use std::process::{Command, Stdio};

use crate::init::Machine;
use crate::venv::{crate_dir, venv};

/// Each: the environment, and what a client says when it is given a word, a port and a password.
const CLIENTS: [(&str, &str); 3] = [
    (
        "g8core",
        "from g8core import Client\nClient('127.0.0.1', int(port), password).sync(f'core.{word}', {})",
    ),
    ("client", "from g8os import Client\ngetattr(Client(port=int(port), password=password).core, word)()"),
    (
        "client",
        "import asyncio\nfrom g8os import AsyncClient\n\nasync def say():\n    async with AsyncClient(port=int(port), password=password) as cl:\n        await getattr(cl.core, word)()\n\nasyncio.run(say())",
    ),
];

fn every_client_ends_a_machine(word: &str, signal: i32) {
    for (environment, script) in CLIENTS {
        let mut machine = Machine::start();
        let read = |file: &str| std::fs::read_to_string(machine.dir().join(file)).unwrap();
        let script = format!("import sys\n_, word, port, password = sys.argv\n{script}\nprint('answered')");
        let said = Command::new(venv(environment).join("bin/python"))
            .args(["-c", &script, word, read("redis/port").trim(), read("password").trim()])
            .env("PYTHONPATH", crate_dir().join("pyclient/src"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&said.stdout),
            "answered\n",
            "{environment}: {}",
            String::from_utf8_lossy(&said.stderr)
        );
        assert_eq!(machine.end(), Some(signal), "{environment}: {word}");
    }
}

#[test]
fn every_client_switches_a_machine_off() {
    every_client_ends_a_machine("poweroff", libc::SIGINT);
}

#[test]
fn every_client_reboots_a_machine() {
    every_client_ends_a_machine("reboot", libc::SIGHUP);
}
