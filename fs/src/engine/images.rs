//! Images that were opened, kept to be mounted again at once: an image that is proven and judged stays so.

use std::sync::Arc;

use g8_cache::BlockId;
use parking_lot::Mutex;

use crate::image::{Image, OpenError};

/// Bytes of block maps kept in memory for images that are not mounted; their trees are in files that cost none.
const KEPT_BYTES: usize = 32 << 20;
/// Images kept that are not mounted.
const KEPT: usize = 16;

/// Opened images, the latest used last.
#[derive(Default)]
pub(super) struct Images(Mutex<Vec<Arc<Image>>>);

impl Images {
    /// The image `id`, opened by `open` when it is not here.
    pub(super) fn get_or(
        &self,
        id: BlockId,
        open: impl FnOnce() -> Result<Image, OpenError>,
    ) -> Result<Arc<Image>, OpenError> {
        if let Some(image) = self.take(id) {
            self.keep(image.clone());
            return Ok(image);
        }
        // Not under the lock: another image must not wait for this one's sources.
        let image = Arc::new(open()?);
        // Two at once open it twice; one of them stays.
        self.take(id);
        self.keep(image.clone());
        Ok(image)
    }

    fn take(&self, id: BlockId) -> Option<Arc<Image>> {
        let mut images = self.0.lock();
        let at = images.iter().position(|image| image.id == id)?;
        Some(images.remove(at))
    }

    /// Adds an image and lets go of what is too much, the oldest first. What is mounted lives on by its mount.
    fn keep(&self, image: Arc<Image>) {
        let mut images = self.0.lock();
        images.push(image);
        let (mut idle, mut bytes) = (0, 0);
        let mut kept: Vec<Arc<Image>> = Vec::with_capacity(images.len());
        for image in images.drain(..).rev() {
            let mounted = Arc::strong_count(&image) > 1;
            if !mounted {
                idle += 1;
                bytes += image.map.memory_bytes();
            }
            if mounted || (idle <= KEPT && bytes <= KEPT_BYTES) {
                kept.push(image);
            }
        }
        kept.reverse();
        *images = kept;
    }
}
