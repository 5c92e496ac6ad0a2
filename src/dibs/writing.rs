//! Stopping a writer that is another process: how its peer makes sure that nothing more comes, not even from a write that
//! has begun.
//!
//! A mark lies in memory that both map, and the writer alone sets it. Who wants the writer to stop sets a flag (which
//! one, and where, is not said here) and then waits until the mark is clear:
//!
//! ```text
//! writer:  mark ─ fence ─ look at the flag ─ write, or not ─ clear the mark
//! stopper: set the flag ─ fence ─ wait until the mark is clear
//! ```
//!
//! The two fences make sure that at least one of them sees the other. A write that has begun is over when the mark is
//! clear, and all of it is visible then; one that begins later sees the flag.
//!
//! The writer writes often, the stopper stops once. So the writer has no fence of the processor: the stopper makes the
//! kernel put one into all others (`membarrier`). The mark says which of the two ways of the kernel reaches its writer.
//!
//! A peer that leaves the mark set keeps its own bytes from being moved on, for as long as anybody waits.

use crate::sync::{AtomicU32, Ordering, fence};

/// How the writer's mark comes before its look at the flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// By a barrier of the stopper's that reaches all processes, and takes milliseconds (`MEMBARRIER_CMD_GLOBAL`).
    Kernel,
    /// By one that reaches processes that have registered, as this one has, and takes microseconds
    /// (`MEMBARRIER_CMD_GLOBAL_EXPEDITED`).
    Registered,
    /// By a fence of the writer's own.
    Fence,
}

/// In the mark while a write is under way.
const WRITING: u32 = 1;

/// In the mark if the writer is [`Order::Registered`], once it has written.
const REGISTERED: u32 = 2;

/// In the mark if the writer is [`Order::Fence`], once it has written.
const FENCED: u32 = 4;

impl Order {
    const fn code(self) -> u32 {
        match self {
            Self::Kernel => 0,
            Self::Registered => REGISTERED,
            Self::Fence => FENCED,
        }
    }

    /// What the writer of this mark has said. One that has never written may yet turn out to be any of them; `Kernel`
    /// reaches all but those that have a fence of their own.
    pub(crate) fn of(mark: &AtomicU32) -> Self {
        let code = mark.load(Ordering::Relaxed);
        if code & FENCED != 0 {
            Self::Fence
        } else if code & REGISTERED != 0 {
            Self::Registered
        } else {
            Self::Kernel
        }
    }
}

/// A write under way. Over when dropped.
#[derive(Debug)]
pub(crate) struct Writing<'a> {
    mark: &'a AtomicU32,
    order: Order,
}

/// Begins a write. Only now may the writer look at the flag.
#[inline]
pub(crate) fn begin(mark: &AtomicU32, order: Order) -> Writing<'_> {
    mark.store(order.code() | WRITING, Ordering::Relaxed);
    if order == Order::Fence {
        fence(Ordering::SeqCst);
    } else {
        // What the compiler leaves in order, the processor may not; the stopper sees to that.
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
    }
    Writing { mark, order }
}

impl Drop for Writing<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: who finds it clear sees what was written.
        self.mark.store(self.order.code(), Ordering::Release);
    }
}

/// True if no write is under way. What was written is visible then.
pub(crate) fn is_over(mark: &AtomicU32) -> bool {
    mark.load(Ordering::Acquire) & WRITING == 0
}
