//! The atomics of the lock-free protocols, in one place so that `tests/loom.rs` can put those of the model checker in
//! their stead.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Runs a test; under the model checker, once for each interleaving.
#[cfg(test)]
pub(crate) fn model(test: impl Fn() + Send + Sync + 'static) {
    test();
}
