//! A cheap guess whether a frame would compress, before the real level spends its time.
//!
//! First the order-0 statistics of small samples; bytes that are not close to uniform are compressible. Uniform ones
//! may still repeat at a distance, so zstd level 1 gets one larger sample. Integers only: the answer decides the
//! stored bytes, so it must be the same on every machine.

use super::encode::{Context, EncodeError};

/// Below this a probe costs more than it saves, in bytes.
const MIN_LEN: usize = 16 * 1024;
/// Evenly spread samples for the histogram, and bytes of each.
const SAMPLES: usize = 16;
const SAMPLE_LEN: usize = 1024;
/// What zstd gets to try, in bytes.
const TRIAL_LEN: usize = 32 * 1024;
const TRIAL_LEVEL: i32 = 1;
/// Least saving of the trial that counts, in percent.
const MIN_SAVING_PERCENT: usize = 3;

/// The probe with its scratch space.
pub(super) struct Probe {
    trial: Context,
    scratch: Vec<u8>,
}

impl Probe {
    pub(super) fn new() -> Result<Probe, EncodeError> {
        Ok(Probe { trial: Context::new(TRIAL_LEVEL)?, scratch: Vec::new() })
    }

    /// Whether `plain` is better stored raw.
    pub(super) fn looks_incompressible(&mut self, plain: &[u8]) -> Result<bool, EncodeError> {
        if plain.len() < MIN_LEN || !looks_uniform(plain) {
            return Ok(false);
        }
        let trial_len = plain.len().min(TRIAL_LEN);
        let start = (plain.len() - trial_len) / 2;
        self.trial.compress(&plain[start..start + trial_len], &mut self.scratch)?;
        Ok(self.scratch.len() * 100 > trial_len * (100 - MIN_SAVING_PERCENT))
    }
}

/// Whether two bytes drawn from the samples are equal about as rarely as in random data, 1 in 256.
fn looks_uniform(plain: &[u8]) -> bool {
    let mut histogram = [0_u64; 256];
    let stride = (plain.len() - SAMPLE_LEN) / (SAMPLES - 1);
    for sample in 0..SAMPLES {
        for &byte in &plain[sample * stride..sample * stride + SAMPLE_LEN] {
            histogram[usize::from(byte)] += 1;
        }
    }
    let drawn = (SAMPLES * SAMPLE_LEN) as u64;
    let equal_pairs: u64 = histogram.iter().map(|&count| count * count.saturating_sub(1)).sum();
    // An eighth above random: compressed data of all kinds passes, base64 (four times random) does not.
    equal_pairs * 256 * 8 < drawn * (drawn - 1) * 9
}
