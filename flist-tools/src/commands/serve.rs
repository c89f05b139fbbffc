//! `flist serve`: be a trustless gateway over a cache and stores, until SIGTERM or SIGINT.

use anyhow::{Context, bail};
use g8_cache::Sources;
use g8_fs::check::memory_cache;
use g8_fs::daemon::{Client, Link};
use g8_fs::gateway::{Gateway, Limits, Stock};
use g8_fs::source::{Announcement, DirStore, SourceOptions, Spec, StoreError, cache_source, open_sources};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Global, ServeArgs};
use crate::commands::mount::starter;
use crate::session::runtime;
use crate::{defaults, output};

/// Blocks kept in memory for who asks next.
const MEMORY: u64 = 64 << 20;

#[derive(Serialize)]
struct Listening {
    listening: String,
}

pub fn run(global: &Global, args: &ServeArgs) -> anyhow::Result<()> {
    let specs = specs(global, args)?;
    if args.announce {
        Announcement::check(args.listen)?;
    }
    let memory = memory_cache(MEMORY).context("the memory cache")?;
    let (listen, limits) = (args.listen, Limits::default());
    let runtime = runtime()?;
    let bound = runtime.block_on(tokio::net::TcpListener::bind(listen));
    let bound = bound.with_context(|| format!("listening on {listen}"))?;
    // After that: a port that is taken is no reason to start a daemon.
    let (sources, _link) = sources(global, args, &specs)?;
    runtime.block_on(async {
        // From the first line on, so that whoever has read it can end us.
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stock = Stock::of_sources(memory, sources, global.deadline());
        let gateway = Gateway::on(bound, stock, limits);
        let address = gateway.address()?;
        if !address.ip().is_loopback() {
            output::warn(format_args!(
                "whoever reaches {address} can read every block of the cache and the sources whose CID they know"
            ));
        }
        let announced = if args.announce { Some(Announcement::start(address)?) } else { None };
        let listening = format!("http://{address}");
        if global.json {
            output::json(&Listening { listening })?;
        } else {
            output::line(format_args!("listening on {listening}"))?;
        }
        gateway
            .run(async {
                tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
                // The farewell comes before the end, so that nobody asks in vain. It takes a while, and requests go on.
                if let Err(error) = tokio::task::spawn_blocking(move || drop(announced)).await {
                    tracing::warn!(%error, "no farewell to the neighbours");
                }
            })
            .await;
        Ok(())
    })
}

/// The stores to serve: those that are named, else the default one. Beside a cache it need not be there.
fn specs(global: &Global, args: &ServeArgs) -> anyhow::Result<Vec<Spec>> {
    let mut specs = defaults::sources(global)?;
    if specs.contains(&Spec::Peer) {
        bail!(
            "serve takes no peer: two who do would ask each other for what neither has. Name stores with --from"
        );
    }
    if global.from.is_empty() && !args.no_cache {
        specs.retain(|spec| match spec {
            Spec::Dir(path) => !matches!(DirStore::new(path).probe(), Err(StoreError::Missing(_))),
            Spec::Car(_) | Spec::Http(_) | Spec::Hint(_) | Spec::Ipfs(_) | Spec::Peer => true,
        });
    }
    Ok(specs)
}

/// The cache of our daemon first, then the stores; and what keeps the daemon.
fn sources(global: &Global, args: &ServeArgs, specs: &[Spec]) -> anyhow::Result<(Sources, Option<Link>)> {
    let stores = match specs {
        [] => Vec::new(),
        specs => open_sources(specs, SourceOptions::default())?.list().to_vec(),
    };
    if args.no_cache {
        return Ok((Sources::new(stores), None));
    }
    let cache = defaults::cache(global)?;
    let link = Link::hold(Client::new(&cache, Some(starter(global)?)))
        .context("the cache cannot be served: leave it out with --no-cache")?;
    let cache = cache_source(&cache)?;
    Ok((Sources::new([cache].into_iter().chain(stores)), Some(link)))
}
