//! Processes of jobs that outlived the last manager.

use std::collections::HashMap;

use crate::log::Logs;
use crate::spawner::Child;

/// By the names of their jobs.
pub type Adopted = HashMap<String, Child>;

/// Finds up to where the last manager had logged what they printed.
pub async fn know_logged(logs: &Logs, jobs: &mut Adopted) {
    if jobs.is_empty() {
        return;
    }
    let since = jobs.iter().map(|(name, child)| (format!("job {name}"), child.started_ms)).collect();
    let places = logs.last_places(since).await;
    let places = places.inspect_err(|e| tracing::error!("lines may be twice in the log: {e}"));
    for (source, place) in places.unwrap_or_default() {
        if let Some(child) = source.strip_prefix("job ").and_then(|name| jobs.get_mut(name)) {
            child.logged = place;
        }
    }
}

/// Kills those whose commands redis, or whose units nobody, knows any more.
pub async fn abandon(jobs: Adopted) {
    for (name, child) in jobs {
        // One that has ended was answered, and the last manager was killed before it could forget it.
        if !child.had_ended {
            tracing::warn!("nobody knows {name} any more: pid {} is killed", child.pid);
            child.handle().signal(libc::SIGKILL).await;
        }
    }
}
