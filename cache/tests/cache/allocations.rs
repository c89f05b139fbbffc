//! Counts what each thread of this program allocates, and holds a memory hit to its promise.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use g8_cache::Hit;

use crate::harness::*;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_memory_hit_allocates_nothing() {
    let blocks = blocks(3, 300_000);
    let (cache, sources) = (memory_only(64 * MIB), sources([&Arc::new(TestOrigin::good(&blocks))]));
    tokio::runtime::Runtime::new().unwrap().block_on(read_all(&cache, &blocks, &sources));
    let before = COUNT.get();
    for _ in 0..100 {
        for block in &blocks {
            for index in 0..block.frames() {
                let (_, hit) = cache.get_now(&block.encoded.desc(), index).unwrap();
                assert_eq!(hit, Hit::Memory);
            }
        }
    }
    assert_eq!(COUNT.get(), before);
}
