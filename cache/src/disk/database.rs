//! RocksDB as a ring of bytes: the newest blocks up to a budget, the oldest file dropped as a whole.
//!
//! FIFO compaction never rewrites a block (write amplification 1.0), so the settings below follow from two facts:
//! every file is at level 0, hence a lookup asks the filter of each; and no value is worth a second copy in memory,
//! because the kernel caches the files. They are read and not mapped, though that costs a copy: where a mapped disk
//! fails, the process dies.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache as BlockCache, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB,
    DBCompactionStyle, DBCompressionType, DBPinnableSlice, ErrorKind, FifoCompactOptions, LogLevel, Options,
    ReadOptions, WriteBatch, WriteOptions,
};

use super::value::EntryKey;

/// Own family, so that others with other rules can be added beside it.
const FAMILY: &str = "blocks";
/// Bloom bits a key. Many, because a lookup asks hundreds of filters and each false answer reads an entry in vain; it
/// costs 3 bytes an entry. Not ribbon, which is smaller and slower to ask.
const FILTER_BITS: f64 = 24.0;
/// For index and filter blocks of files that are being opened; values never enter it.
const BLOCK_CACHE_BYTES: usize = 8 << 20;
/// Idle flushes make tiny files, and each costs every lookup a probe: so this many neighbours become one, if they are
/// not longer than two write buffers together. Full files thus stay as they are, and eviction stays fine-grained.
const MERGE_FILES: i32 = 8;
const MERGE_BUFFERS: u64 = 2;

/// What RocksDB adds to the entries of a block when they are put, in bytes, nearly.
const BATCH_OVERHEAD: usize = 256;

/// An open database.
pub(super) struct Database {
    db: DB,
    reading: ReadOptions,
    writing: WriteOptions,
    /// For who has the time.
    waiting: WriteOptions,
}

/// Why a database did not open.
pub(super) enum OpenTrouble {
    /// Its files are damaged or missing: a new one will do.
    Broken(rocksdb::Error),
    /// The file system does not let it: full, read-only, out of file handles. Later it may.
    Environment(String),
}

/// Memory that collects blocks before they become a file, in bytes.
pub(super) fn write_buffer(budget: u64) -> u64 {
    (budget / 32).clamp(4 << 20, 32 << 20)
}

impl Database {
    /// Opens the database at `path`, making it if it is missing.
    pub(super) fn open(path: &Path, budget: u64) -> Result<Database, OpenTrouble> {
        let family = ColumnFamilyDescriptor::new(FAMILY, family_options(budget));
        let db = DB::open_cf_descriptors(&database_options(budget), path, [family]).map_err(classify)?;
        let mut reading = ReadOptions::default();
        // Every byte that is used is proven by MAC.
        reading.set_verify_checksums(false);
        reading.fill_cache(false);
        let [mut writing, mut waiting] = [WriteOptions::default(), WriteOptions::default()];
        // A crash loses what was not flushed, which is fetched again.
        writing.disable_wal(true);
        waiting.disable_wal(true);
        // A put that would wait for the disk is refused instead: it must not hold up the read that brought it.
        writing.set_no_slowdown(true);
        let database = Database { db, reading, writing, waiting };
        database.set_budget(budget).map_err(classify)?;
        Ok(database)
    }

    pub(super) fn get(&self, key: &EntryKey) -> Result<Option<DBPinnableSlice<'_>>, rocksdb::Error> {
        self.db.get_pinned_cf_opt(self.family(), key.bytes(), &self.reading)
    }

    /// Puts all entries that `fill` gives, about `len` bytes, or none; they come into the same file. It `waits` for the disk or
    /// is refused.
    pub(super) fn put(
        &self,
        len: usize,
        waits: bool,
        fill: impl FnOnce(&mut dyn FnMut(EntryKey, &[u8])),
    ) -> Result<(), rocksdb::Error> {
        let mut batch = WriteBatch::with_capacity_bytes(len + BATCH_OVERHEAD);
        let family = self.family();
        fill(&mut |key, value| batch.put_cf(family, key.bytes(), value));
        self.db.write_opt(batch, if waits { &self.waiting } else { &self.writing })
    }

    pub(super) fn delete(&self, key: &EntryKey) -> Result<(), rocksdb::Error> {
        self.db.delete_cf_opt(self.family(), key.bytes(), &self.writing)
    }

    /// Writes what is in memory to a file, and waits for it.
    pub(super) fn flush(&self) -> Result<(), rocksdb::Error> {
        self.db.flush_cf(self.family())
    }

    /// Drops files beyond the budget now.
    pub(super) fn compact(&self) {
        let whole = None::<&[u8]>;
        self.db.compact_range_cf_opt(self.family(), whole, whole, &CompactOptions::default());
    }

    /// Changes the budget of the open database.
    pub(super) fn set_budget(&self, budget: u64) -> Result<(), rocksdb::Error> {
        let fifo = format!("{{max_table_files_size={};allow_compaction=true;}}", budget.max(1));
        let buffer = write_buffer(budget).to_string();
        let merged = (write_buffer(budget) * MERGE_BUFFERS).to_string();
        self.db.set_options_cf(
            self.family(),
            &[
                ("compaction_options_fifo", fifo.as_str()),
                ("write_buffer_size", buffer.as_str()),
                ("max_compaction_bytes", merged.as_str()),
            ],
        )
    }

    /// Grows by one with every put and delete, and lasts.
    pub(super) fn sequence(&self) -> u64 {
        self.db.latest_sequence_number()
    }

    /// Entries, nearly.
    pub(super) fn entries(&self) -> u64 {
        self.number("rocksdb.estimate-num-keys")
    }

    /// Bytes in files and in memory.
    pub(super) fn bytes(&self) -> u64 {
        self.number("rocksdb.total-sst-files-size") + self.number("rocksdb.cur-size-all-mem-tables")
    }

    fn number(&self, property: &str) -> u64 {
        self.db.property_int_value_cf(self.family(), property).ok().flatten().unwrap_or(0)
    }

    fn family(&self) -> &ColumnFamily {
        self.db.cf_handle(FAMILY).expect("the family is opened with the database and never dropped")
    }
}

fn database_options(budget: u64) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // All files open, else a lookup opens hundreds to ask their filters; the bound is for a wrong budget.
    let files = (budget / write_buffer(budget) * 2).clamp(128, 4096);
    options.set_max_open_files(i32::try_from(files).unwrap_or(4096));
    options.set_max_background_jobs(2);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    // The default reserves 4 MiB of disk for a log of some KiB.
    options.set_manifest_preallocation_size(64 << 10);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options
}

fn family_options(budget: u64) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_bloom_filter(FILTER_BITS, false);
    // Each entry in a block of RocksDB of its own: otherwise a short one is read together with the next, long one.
    table.set_block_size(1);
    table.set_block_cache(&BlockCache::new_lru_cache(BLOCK_CACHE_BYTES));
    let mut fifo = FifoCompactOptions::default();
    fifo.set_max_table_files_size(budget.max(1));
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compaction_style(DBCompactionStyle::Fifo);
    options.set_fifo_compaction_options(&fifo);
    options.set_max_compaction_bytes(write_buffer(budget) * MERGE_BUFFERS);
    options.set_level_zero_file_num_compaction_trigger(MERGE_FILES);
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(write_buffer(budget) as usize);
    // One is filled while the other is written: who fills them has the time to wait.
    options.set_max_write_buffer_number(2);
    // Otherwise FIFO forgets everything after 30 days, used or not.
    options.set_ttl(0);
    options.set_periodic_compaction_seconds(0);
    options
}

/// RocksDB tells the two apart by text alone: a missing file is an I/O error to it, like a full disk.
fn classify(error: rocksdb::Error) -> OpenTrouble {
    let missing = error.as_ref().contains("No such file") || error.as_ref().contains("Not a directory");
    match error.kind() {
        ErrorKind::IOError if !missing => OpenTrouble::Environment(error.into_string()),
        ErrorKind::Busy | ErrorKind::TryAgain | ErrorKind::TimedOut | ErrorKind::Incomplete => {
            OpenTrouble::Environment(error.into_string())
        }
        // The crate's enum, not ours: whatever else it says, a new database is worth the try.
        _ => OpenTrouble::Broken(error),
    }
}
