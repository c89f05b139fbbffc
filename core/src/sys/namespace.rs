//! For tests: a network namespace of one's own, which is gone when its last process is.

use std::thread;

use rustix::thread::UnshareFlags;

/// Runs a test in a new network namespace, on a thread and a runtime of its own. What it starts lives there too.
pub fn in_new_network<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = move || {
        // SAFETY: a network namespace changes no memory and no descriptor of this thread.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .expect("root makes network namespaces");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    };
    let outcome = thread::Builder::new().name("own-network".to_owned()).spawn(run).unwrap().join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}
