//! Encoding and storing: plain blocks in, stored blocks out, on worker threads behind bounded queues.
//!
//! Encoders compress and name; uploaders write. They are apart because an uploader waits for the disk now and then,
//! and the processors should not.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Scope;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use g8_cache::{BlockId, EncodeError, EncodeOptions, EncodedBlock, Encoder};

use super::PackError;
use super::options::PackOptions;
use crate::source::{DirStore, Put};

/// One writes while another one waits for the disk.
const UPLOADERS: usize = 2;
/// Encoded blocks that may wait for an uploader.
const UPLOAD_QUEUE: usize = 8;

/// Writes objects into the sink and counts what was new there.
pub(super) struct Uploads<'a> {
    store: &'a DirStore,
    new_bytes: AtomicU64,
}

impl<'a> Uploads<'a> {
    pub fn new(store: &'a DirStore) -> Self {
        Uploads { store, new_bytes: AtomicU64::new(0) }
    }

    pub fn put(&self, id: &BlockId, bytes: &[u8]) -> Result<(), PackError> {
        match self.store.put(id, bytes)? {
            Put::Present => {}
            Put::New | Put::Repaired => {
                self.new_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Makes everything put so far durable.
    pub fn sync(&self) -> Result<(), PackError> {
        Ok(self.store.sync()?)
    }

    pub fn new_bytes(&self) -> u64 {
        self.new_bytes.load(Ordering::Relaxed)
    }
}

/// The first error of any worker stops them all.
#[derive(Default)]
struct Failure {
    happened: AtomicBool,
    error: Mutex<Option<PackError>>,
}

impl Failure {
    fn set(&self, error: PackError) {
        self.error.lock().expect("nobody panics with this lock").get_or_insert(error);
        self.happened.store(true, Ordering::Release);
    }

    fn happened(&self) -> bool {
        self.happened.load(Ordering::Acquire)
    }

    fn take(&self) -> Result<(), PackError> {
        match self.error.lock().expect("nobody panics with this lock").take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// The worker threads.
pub(super) struct Encoders {
    jobs: Sender<(u32, Vec<u8>)>,
    done: Receiver<(u32, EncodedBlock)>,
    failure: std::sync::Arc<Failure>,
}

impl Encoders {
    /// Starts the workers in `scope`; they end when the returned value is finished or dropped.
    pub fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        options: &PackOptions,
        uploads: &'env Uploads<'env>,
    ) -> Self {
        let (jobs, plain) = bounded::<(u32, Vec<u8>)>(options.threads);
        let (encoded, stored) = bounded::<(u32, EncodedBlock)>(UPLOAD_QUEUE);
        let (finished, done) = unbounded();
        let failure = std::sync::Arc::new(Failure::default());
        let encode = EncodeOptions { level: options.level, frame_len: options.frame_len };
        for _ in 0..options.threads {
            let (plain, encoded, failure) = (plain.clone(), encoded.clone(), failure.clone());
            scope.spawn(move || {
                if let Err(e) = encode_all(encode, &plain, &encoded, &failure) {
                    failure.set(PackError::Encode(e.into()));
                    // Go on receiving, or the layout would wait for room for ever.
                    plain.iter().for_each(drop);
                }
            });
        }
        for _ in 0..UPLOADERS {
            let (stored, finished, failure) = (stored.clone(), finished.clone(), failure.clone());
            scope.spawn(move || {
                for (index, mut block) in stored {
                    if failure.happened() {
                        continue;
                    }
                    match uploads.put(&block.id, &block.stored) {
                        Ok(()) => {
                            // The bytes are stored; what the map needs is small.
                            block.stored = bytes::Bytes::new();
                            // The layout has given up: nobody wants the rest.
                            let _ = finished.send((index, block));
                        }
                        Err(e) => failure.set(e),
                    }
                }
            });
        }
        Encoders { jobs, done, failure }
    }

    /// Queues a block; waits while the workers are behind.
    pub fn encode(&self, index: u32, plain: Vec<u8>) -> Result<(), PackError> {
        if self.failure.happened() {
            self.failure.take()?;
        }
        self.jobs.send((index, plain)).expect("the encoders receive until the sender is dropped");
        Ok(())
    }

    /// Waits for every block to be stored.
    pub fn finish(self) -> Result<Vec<(u32, EncodedBlock)>, PackError> {
        drop(self.jobs);
        let blocks = self.done.iter().collect();
        self.failure.take()?;
        Ok(blocks)
    }
}

fn encode_all(
    options: EncodeOptions,
    plain: &Receiver<(u32, Vec<u8>)>,
    encoded: &Sender<(u32, EncodedBlock)>,
    failure: &Failure,
) -> Result<(), EncodeError> {
    let mut encoder = Encoder::new(options)?;
    for (index, bytes) in plain {
        if failure.happened() {
            continue;
        }
        let block = encoder.encode(&bytes)?;
        // The uploaders end only when every encoder has.
        encoded.send((index, block)).expect("the uploaders outlive the encoders");
    }
    Ok(())
}
