//! One frame of a block that has left the memory, read and proven alone instead of with all of its block.

use std::sync::Arc;

use super::{Cache, Hit};
use crate::block::{PlainFrame, VerifiedFrame};
use crate::class::Urgency;
use crate::desc::{FrameSpan, OwnedBlockDesc};
use crate::memory::FrameKey;
use crate::sources::Sources;

impl Cache {
    /// The frame, if its block was seen before and a source gives just these bytes of it. `None` says nothing of the
    /// block: fetch all of it.
    pub(super) async fn get_sealed(
        &self,
        desc: &OwnedBlockDesc,
        span: FrameSpan,
        sources: &Sources,
        urgency: &Urgency,
    ) -> Option<(PlainFrame, Hit)> {
        let desc = desc.as_desc();
        let seal = self.0.memory.seals().of(&desc, span.index)?;
        let key = FrameKey { id: desc.id(), span };
        let range = u64::from(span.start)..u64::from(span.start) + u64::from(span.stored_len);
        let stored = sources.read_range(key.id, range, urgency).await?;
        let inner = Arc::clone(&self.0);
        let prove = move || {
            if blake3::hash(&stored) != seal {
                return None;
            }
            let plain = VerifiedFrame::proven_alone(&stored, span.plain_len).decode().ok()?;
            inner.memory.put_frame(key, &plain);
            inner.hits.count(Hit::Source);
            Some((plain, Hit::Source))
        };
        self.0.workers.run(urgency, prove).await
    }
}
