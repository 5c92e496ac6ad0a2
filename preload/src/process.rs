//! Which process this is: ours, a child of it, or one that only borrows our memory.

use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::getpid;

static OURS: AtomicI32 = AtomicI32::new(0);

/// Remembers which process this is. To be called at the start, and in a child after a fork.
pub(crate) fn begin() {
    OURS.store(getpid().as_raw_nonzero().get(), Ordering::Relaxed);
}

/// False in a child that has the memory of its parent (`vfork`), in which nothing of ours may be touched: what it does
/// to its descriptors, it does not do to those of its parent.
pub(crate) fn is_ours() -> bool {
    OURS.load(Ordering::Relaxed) == getpid().as_raw_nonzero().get()
}
