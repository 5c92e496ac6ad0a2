//! Which process this is: ours, a child of it, or one that only borrows our memory.

use std::sync::atomic::{AtomicI32, Ordering};

use arc_swap::ArcSwapOption;
use rustix::process::getpid;
use smcd::raw::Generation;

static OURS: AtomicI32 = AtomicI32::new(0);
static GENERATION: ArcSwapOption<Generation> = ArcSwapOption::const_empty();

/// Remembers which process this is. To be called at the start, and in a child after a fork.
pub(crate) fn begin() {
    GENERATION.store(Some(Generation::current().into()));
    OURS.store(getpid().as_raw_nonzero().get(), Ordering::Relaxed);
}

/// False in a child that has the memory of its parent (`vfork`), in which nothing of ours may be touched: what it does
/// to its descriptors, it does not do to those of its parent.
pub(crate) fn is_ours() -> bool {
    OURS.load(Ordering::Relaxed) == getpid().as_raw_nonzero().get() || is_new()
}

/// True in a child that has memory of its own, which nobody was told of: there were no connections yet, or it was made
/// past the C library.
#[cold]
fn is_new() -> bool {
    let is_new = GENERATION.load().as_deref().is_some_and(|generation| generation.is_past());
    if is_new {
        begin();
        smcd::observe::after_fork();
    }
    is_new
}
