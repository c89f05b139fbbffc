//! `flist serve`: be a trustless gateway over stores, until SIGTERM or SIGINT.

use anyhow::Context;
use g8_fs::check::memory_cache;
use g8_fs::gateway::{Gateway, Limits};
use g8_fs::source::{SourceOptions, open_sources};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Global, ServeArgs};
use crate::session::runtime;
use crate::{defaults, output};

/// Blocks kept in memory for who asks next.
const MEMORY: u64 = 64 << 20;

#[derive(Serialize)]
struct Listening {
    listening: String,
}

pub fn run(global: &Global, args: &ServeArgs) -> anyhow::Result<()> {
    let sources = open_sources(&defaults::sources(global)?, SourceOptions::default())?;
    let cache = memory_cache(MEMORY).context("the memory cache")?;
    let (listen, limits) = (args.listen, Limits::default());
    runtime()?.block_on(async {
        // From the first line on, so that whoever has read it can end us.
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let gateway = Gateway::bind(listen, cache, sources, global.deadline(), limits);
        let gateway = gateway.await.with_context(|| format!("listening on {listen}"))?;
        let address = gateway.address()?;
        if !address.ip().is_loopback() {
            output::warn(format_args!(
                "whoever reaches {address} can read every block of the sources whose CID they know"
            ));
        }
        let listening = format!("http://{address}");
        if global.json {
            output::json(&Listening { listening })?;
        } else {
            output::line(format_args!("listening on {listening}"))?;
        }
        gateway
            .run(async {
                tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            })
            .await;
        Ok(())
    })
}
