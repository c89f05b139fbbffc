//! The health of the database: fall sick, set aside what is broken, open again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::super::database::{Database, OpenTrouble, write_buffer};
use super::{Opened, Store, count};

/// At most one WARN in this time.
const WARN_EVERY: Duration = Duration::from_secs(60);

impl Store {
    /// No puts from now on; the keeper is called. RocksDB itself stays read-only after a background error and this
    /// binding cannot resume it, so healing is opening it anew.
    pub(super) fn fall_sick(&self, error: &rocksdb::Error, broken: bool) {
        self.sick.store(true, Relaxed);
        if broken {
            self.broken.store(true, Relaxed);
        }
        self.warn(format_args!("reading uncached until it is healed: {error}"));
        self.duties.note_trouble();
    }

    /// Opens the database anew when its directory can be written again. Until then the old one still gives what it
    /// holds, so it is not closed in vain.
    pub(in crate::disk) fn heal(&self) {
        let enough = self.free_floor.max(write_buffer(self.budget.load(Relaxed)));
        if self.home.free_bytes() < enough || self.home.try_write().is_err() {
            return self.duties.note_trouble();
        }
        if self.reopen() {
            count(&self.counts.healed);
            tracing::info!(dir = %self.home.dir().display(), "the disk cache is healed");
        }
    }

    /// Closes the database, opens it again, and says whether that worked.
    pub(super) fn reopen(&self) -> bool {
        let _alone = self.maintenance.lock();
        // Closing flushes, and the file lock of RocksDB goes with it.
        drop(self.take());
        let aside = self.broken.swap(false, Relaxed);
        self.open_again(aside)
    }

    fn take(&self) -> Option<Opened> {
        self.opened.write().take()
    }

    /// The database is closed, `maintenance` is held.
    fn open_again(&self, aside: bool) -> bool {
        self.free.forget();
        self.horizon.forget();
        match self.try_open(aside) {
            Ok(opened) => {
                *self.opened.write() = Some(opened);
                self.sick.store(false, Relaxed);
                true
            }
            Err(reason) => {
                self.sick.store(true, Relaxed);
                self.warn(format_args!("reading uncached until it opens: {reason}"));
                self.duties.note_trouble();
                false
            }
        }
    }

    fn try_open(&self, aside: bool) -> Result<Opened, String> {
        let path = self.home.database();
        if aside {
            self.home.set_database_aside().map_err(|error| error.to_string())?;
        }
        let key = self.home.key().map_err(|error| error.to_string())?;
        let budget = self.budget.load(Relaxed);
        let database = match Database::open(&path, budget) {
            Ok(database) => database,
            Err(OpenTrouble::Environment(reason)) => return Err(reason),
            Err(OpenTrouble::Broken(error)) => {
                tracing::warn!(
                    dir = %self.home.dir().display(),
                    "the disk cache is damaged, it is set aside as db.damaged and started afresh: {error}"
                );
                self.home.set_database_aside().map_err(|error| error.to_string())?;
                Database::open(&path, budget).map_err(|trouble| match trouble {
                    OpenTrouble::Environment(reason) => reason,
                    OpenTrouble::Broken(error) => error.into_string(),
                })?
            }
        };
        Ok(Opened { database, key, corrupt_reads: AtomicU64::new(0) })
    }

    /// Empties the tier.
    pub(in crate::disk) fn clear(&self) {
        let _none_comes = self.putting.lock();
        self.pending.clear();
        let _alone = self.maintenance.lock();
        drop(self.take());
        if let Err(error) = self.home.remove_database().and_then(|()| self.home.remove_set_aside()) {
            self.warn(format_args!("not all files could be removed: {error}"));
        }
        self.open_again(false);
    }

    /// Brings the files under the budget, and removes a database set aside.
    pub(in crate::disk) fn gc(&self) {
        self.flush();
        if let Some(opened) = self.opened.read().as_ref() {
            opened.database.compact();
        }
        let _alone = self.maintenance.lock();
        if let Err(error) = self.home.remove_set_aside() {
            self.warn(format_args!("db.damaged could not be removed: {error}"));
        }
    }

    pub(super) fn warn(&self, what: std::fmt::Arguments<'_>) {
        let mut warned = self.warned.lock();
        if warned.is_none_or(|last| last.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!(dir = %self.home.dir().display(), "disk cache: {what}");
        }
    }
}
