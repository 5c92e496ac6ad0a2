//! The atomics of the lock-free protocols, in one place so that the model checker can put its own in their stead.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
