//! Keeps redis up: on the same port, with the same passwords, and with what it knew.

mod refused;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

use crate::log::Logs;
use crate::paths::Paths;
use crate::process::drain;
use crate::queue::recover::ping;
use crate::redis::server::Server;
use crate::redis::{Access, Link, one};
use crate::spawner::{Child, Spawner};
use refused::Refused;

/// How long redis may take to answer after its start: it may have much to read.
const START: Duration = Duration::from_secs(20);
/// How often it is asked whether it is well, and how long it may think about it.
const WATCH: Duration = Duration::from_secs(5);
/// How often it tries to get its port back.
const PORT: Duration = Duration::from_millis(500);
/// Pauses before it is started again.
const PAUSE: [u64; 4] = [50, 200, 500, 1000];
/// How often it is tried to start it at first: others may be faster at its port, and what it kept be damaged.
const TRIES: usize = 5;

/// See the module's text.
pub struct Keeper {
    server: Server,
    paths: Paths,
    spawner: Spawner,
    logs: Arc<Logs>,
    child: Option<Child>,
    /// It runs without its port, which something else has.
    without_port: bool,
    refused: Refused,
}

impl Keeper {
    /// Of a server that is set up.
    pub fn new(server: Server, paths: Paths, spawner: Spawner, logs: Arc<Logs>) -> Self {
        Self { server, paths, spawner, logs, child: None, without_port: false, refused: Refused::default() }
    }

    /// How core0 gets in.
    pub fn access(&self) -> Access {
        self.server.access.clone()
    }

    /// The server that it keeps.
    pub fn server(&self) -> Server {
        self.server.clone()
    }

    /// Takes redis over from the last manager, or starts it; it answers then.
    pub async fn start(mut self, kept: Option<Child>) -> anyhow::Result<Self> {
        if let Some(child) = kept {
            self.listen(child)?;
            if self.answers(WATCH).await {
                match self.teach_users().await {
                    Ok(()) => return Ok(self),
                    Err(e) => tracing::error!("redis does not take its users, it is started anew: {e:#}"),
                }
            }
            self.end().await?;
        }
        for _ in 0..TRIES {
            let taken = self.server.port_is_taken();
            // Clients know a port that the configuration names. Until it is free, those on this machine have the socket.
            self.without_port = taken && self.server.port_is_configured;
            match (taken, self.without_port) {
                (true, true) => {
                    tracing::error!("port {} of redis is taken by something else", self.server.port)
                }
                (true, false) => self.server.move_port(&self.paths)?,
                (false, _) => {}
            }
            if self.begin().await? {
                return Ok(self);
            }
        }
        bail!(
            "redis-server does not start: its messages are in {}",
            self.paths.log().join("jobs.log").display()
        );
    }

    /// Keeps it up for ever.
    pub async fn keep(mut self) -> anyhow::Result<()> {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            self.watch().await?;
            failures = if began.elapsed() > WATCH { 0 } else { failures + 1 };
            let pause = PAUSE[failures.min(PAUSE.len() - 1)];
            tracing::error!("redis ended: it is started again in {pause} ms");
            tokio::time::sleep(Duration::from_millis(pause)).await;
            // Clients know the port: it is not moved. Until it is free, those on this machine have the socket.
            self.without_port = self.server.port_is_taken();
            if self.without_port {
                tracing::error!("port {} of redis is taken by something else", self.server.port);
            }
            if let Err(e) = self.begin().await {
                tracing::error!("cannot start redis: {e:#}");
            }
        }
    }

    /// Starts it, and says whether it answers. When what it kept is damaged, that is put aside, for the next try.
    async fn begin(&mut self) -> anyhow::Result<bool> {
        self.spawn().await?;
        if self.answers(START).await {
            self.server.users_are_known()?;
            return Ok(true);
        }
        let died = self.child.is_none();
        self.end().await?;
        if !died {
            return Ok(false);
        }
        let damaged = self.server.is_damaged().await.unwrap_or_else(|e| {
            tracing::error!("cannot find out whether what redis kept is damaged: {e}");
            false
        });
        if damaged {
            let aside = self.server.put_aside()?;
            let place = aside.display();
            tracing::error!("what redis kept is damaged, it begins with nothing: the old data is in {place}");
        }
        Ok(false)
    }

    /// Tells a redis that was kept how its users have changed. Those who did lose their connections.
    async fn teach_users(&mut self) -> anyhow::Result<()> {
        let Some(changed) = self.server.changed_users()? else { return Ok(()) };
        // This one may be cut off by it too: redis 7.0 does so to all but `default`.
        Link::new(&self.server.access)?.query::<()>(&one("ACL", &["LOAD"])).await?;
        let mut link = Link::new(&self.server.access)?;
        for user in changed {
            // There is nobody of a name that redis does not know any more.
            if let Err(e) = link.query::<()>(&one("CLIENT", &["KILL", "USER", &user])).await
                && !e.to_string().contains("No such user")
            {
                return Err(e).context(format!("connections of user {user}"));
            }
        }
        Ok(self.server.users_are_known()?)
    }

    /// Returns when it ended. One that does not answer twice is ended.
    async fn watch(&mut self) -> anyhow::Result<()> {
        let mut link = Link::new(&self.server.access)?;
        let mut silent = 0;
        while let Some(child) = &mut self.child {
            let pause = if self.without_port { PORT } else { WATCH };
            tokio::select! {
                _ = child.wait() => self.child = None,
                () = tokio::time::sleep(pause) => {
                    let well = tokio::time::timeout(WATCH, ping(&mut link)).await == Ok(true);
                    silent = if well { 0 } else { silent + 1 };
                    if well {
                        // One that takes longer is asked again.
                        let _ = tokio::time::timeout(WATCH, self.refused.look(&mut link)).await;
                    }
                    if silent >= 2 {
                        tracing::error!("redis does not answer: it is killed");
                        child.handle().signal(libc::SIGKILL).await;
                    }
                    if self.without_port && well && take_port(&mut link, self.server.port).await {
                        tracing::info!("redis has its port {} again", self.server.port);
                        self.without_port = false;
                    }
                }
            }
        }
        Ok(())
    }

    /// Kills it and waits until it is gone: two servers on one append-only file would spoil it.
    async fn end(&mut self) -> anyhow::Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        tracing::warn!("redis does not answer: pid {} is killed", child.pid);
        child.handle().signal(libc::SIGKILL).await;
        if tokio::time::timeout(WATCH, child.wait()).await.is_err() {
            bail!("redis, pid {}, does not end: what is wrong with its disk?", child.pid);
        }
        self.child = None;
        Ok(())
    }

    async fn spawn(&mut self) -> anyhow::Result<()> {
        let process = Server::process(&self.paths, self.without_port);
        let child = self.spawner.spawn(&process, "service redis").await;
        self.listen(child.context("is the package redis-server installed?")?)
    }

    fn listen(&mut self, mut child: Child) -> anyhow::Result<()> {
        if let Some(ends) = child.output.take() {
            let hear = |message: &crate::process::Message| tracing::debug!("redis: {}", message.text);
            drain(ends, "service redis".into(), self.logs.clone(), hear)?;
        }
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it answers, and not longer than it lives.
    async fn answers(&mut self, patience: Duration) -> bool {
        let Ok(mut link) = Link::new(&self.server.access) else { return false };
        let Some(child) = &mut self.child else { return false };
        let until_it_answers = async {
            while !ping(&mut link).await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            _ = child.wait() => {
                self.child = None;
                false
            }
            answered = tokio::time::timeout(patience, until_it_answers) => answered.is_ok(),
        }
    }
}

/// Listens on a port, if that is free by now.
async fn take_port(link: &mut Link, port: u16) -> bool {
    link.query::<()>(&one("CONFIG", &["SET", "port", &port.to_string()])).await.is_ok()
}
