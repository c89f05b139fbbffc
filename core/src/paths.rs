//! Where a node keeps its files. One place knows their names.

use std::path::{Path, PathBuf};

/// The folders of a node: all below one in development, else `/run/core0`, `/var/log/core0` and `/etc/g8os`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    run: PathBuf,
    log: PathBuf,
    config: PathBuf,
}

impl Paths {
    /// Those of a real node.
    pub fn system() -> Self {
        Self { run: "/run/core0".into(), log: "/var/log/core0".into(), config: "/etc/g8os".into() }
    }

    /// Those of `core0 run --dev DIR`.
    pub fn development(dir: &Path) -> Self {
        Self { run: dir.into(), log: dir.join("log"), config: dir.into() }
    }

    /// What lives as long as the node runs: sockets, state, secrets.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Where containers write to that write to a disk, unless the configuration says it. A machine has no disk by itself.
    pub fn layers(&self) -> Option<PathBuf> {
        (self.run == self.config).then(|| self.run.join("layers"))
    }

    /// Logs, rotated.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.config.join("core0.toml")
    }

    /// How the network of a machine is set up.
    pub fn net(&self) -> PathBuf {
        self.config.join("net.toml")
    }

    /// Where the medium may say which server has the bootstrap file.
    pub fn medium(&self) -> &Path {
        &self.config
    }

    /// Who may sign bootstrap files.
    pub fn bootstrap_key(&self) -> PathBuf {
        self.config.join("bootstrap.pub")
    }

    /// The bootstrap file that is followed.
    pub fn bootstrap(&self) -> PathBuf {
        self.run.join("bootstrap")
    }

    /// What is in the image of a machine.
    pub fn manifest(&self) -> PathBuf {
        self.config.join("manifest")
    }

    /// The units of services.
    pub fn services(&self) -> PathBuf {
        self.config.join("services")
    }

    /// The socket of redis.
    pub fn redis_socket(&self) -> PathBuf {
        self.run.join("redis.sock")
    }

    /// What redis keeps, its users and secrets.
    pub fn redis_data(&self) -> PathBuf {
        self.run.join("redis")
    }

    /// How redis is set up.
    pub fn redis_config(&self) -> PathBuf {
        self.redis_data().join("redis.conf")
    }

    /// Held by the one manager of the node.
    pub fn lock(&self) -> PathBuf {
        self.run.join("core0.lock")
    }

    /// The socket of the spawner.
    pub fn spawner_socket(&self) -> PathBuf {
        self.run.join("spawner.sock")
    }
}
