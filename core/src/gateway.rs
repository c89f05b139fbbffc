//! `core0 flist-serve`: a trustless gateway of what the cache of this node holds, as `flist serve` is one, until a signal ends
//! it. It is a service of a machine.

use std::net::SocketAddr;

use anyhow::Context;
use g8_cache::Sources;
use g8_fs::check::memory_cache;
use g8_fs::daemon::{Client, Link};
use g8_fs::gateway::{Gateway, Limits, Stock};
use g8_fs::settings::Settings;
use g8_fs::source::cache_source;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::domain::flist;

/// Bytes of blocks kept in memory for who asks next.
const MEMORY: u64 = 16 << 20;

/// Serves until SIGTERM or SIGINT.
pub async fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    // From the first line on, so that whoever has read it can end us.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let settings = Settings::of_environment()?;
    // Before the daemon is started for it: a port that is taken is no reason to.
    let bound = TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
    let held = tokio::task::spawn_blocking(move || {
        let folder = settings.cache()?;
        let link = Link::hold(Client::new(&folder, Some(flist::starter(&settings)?)))
            .context("the cache cannot be served")?;
        let sources = Sources::new([cache_source(&folder)?]);
        let memory = memory_cache(MEMORY).context("the memory of blocks")?;
        anyhow::Ok((Stock::of_sources(memory, sources, settings.deadline), link))
    });
    let (stock, _link) = held.await.context("the look for the cache panicked")??;
    let gateway = Gateway::on(bound, stock, Limits::default());
    println!("listening on http://{}", gateway.address()?);
    gateway
        .run(async {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        })
        .await;
    Ok(())
}
