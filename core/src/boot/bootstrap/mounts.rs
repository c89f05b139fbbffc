//! Has services show the flists that the bootstrap file names, and tells how they are. Each of them is a service of its own, so
//! that others can wait for it, and one that is missing holds up nobody.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::FutureExt;
use futures::future::{pending, select_all};
use tokio::sync::watch;

use super::document::{Document, Mount};
use super::follow::State;
use crate::domain::flist::Told;
use crate::domain::flist::place::SYSTEM;
use crate::service::{Services, in_words};

/// Flists by their places, and how they are: [`MOUNTED`], or why not.
pub type Mounts = BTreeMap<String, String>;

/// That one is there.
pub const MOUNTED: &str = "mounted";
/// What else is no trouble.
const FINE: [&str; 3] = [MOUNTED, "being mounted", "stopped"];

/// Whether somebody should know how one is.
pub fn is_trouble(how: &str) -> bool {
    !FINE.contains(&how)
}

/// Goes with the file, for ever.
pub async fn show(services: &Services, mut bootstrap: watch::Receiver<State>, shown: &watch::Sender<Mounts>) {
    loop {
        let document = bootstrap.borrow_and_update().document.clone();
        // Again after each change: one that was ended is there no more.
        let mut there = services.show(&document.as_deref().map(wanted).unwrap_or_default());
        let how = there
            .iter_mut()
            .map(|(path, status)| (path.display().to_string(), in_words(&status.borrow_and_update())));
        let how: Mounts = how.collect();
        shown.send_if_modified(|known| {
            let is_new = *known != how;
            *known = how;
            is_new
        });
        tokio::select! {
            changed = bootstrap.changed() => if changed.is_err() {
                // The boot has ended, and with it the manager.
                return pending().await;
            },
            () = any_changes(&mut there) => {}
        }
    }
}

/// Waits until one of them does something else.
async fn any_changes<T: Send + Sync>(there: &mut [(PathBuf, watch::Receiver<T>)]) {
    let changes = there.iter_mut().map(|(_, status)| {
        async {
            if status.changed().await.is_err() {
                // It is gone, and changes no more.
                pending().await
            }
        }
        .boxed()
    });
    let changes: Vec<_> = changes.collect();
    match changes.is_empty() {
        true => pending().await,
        false => drop(select_all(changes).await),
    }
}

/// What should be shown, and where.
fn wanted(document: &Document) -> BTreeMap<PathBuf, Told> {
    let sources: Vec<String> = document.sources.iter().map(|source| source.0.clone()).collect();
    let others = document.mounts.iter().map(|Mount { flist, path }| (path.clone(), *flist));
    let all = others.chain(document.system.map(|flist| (PathBuf::from(SYSTEM), flist)));
    all.map(|(path, flist)| (path, Told { reference: flist.to_string(), sources: sources.clone() })).collect()
}
