//! How an endpoint reaches its region.

use std::{fmt, sync::Arc, time::Duration};

use crate::dibs::Memory;

/// A way to a region: its memory, the doorbells of the other endpoints, and who is there.
///
/// One thread of the device calls [`Attachment::wait`]; all else is called by any thread.
pub(crate) trait Attachment: Send + Sync + fmt::Debug {
    /// The whole region.
    fn memory(&self) -> &Arc<Memory>;

    /// The slot of this endpoint. Nobody else has it as long as the attachment lives.
    fn slot(&self) -> usize;

    /// True if this endpoint has a doorbell. One that has none looks by itself, often.
    fn is_belled(&self) -> bool;

    /// Rings the doorbell of another endpoint, which has one. Never blocks; if it cannot be, the other will look sooner or
    /// later.
    fn ring(&self, slot: usize);

    /// Waits until the own doorbell was rung, somebody came or went, or [`Attachment::wake`] was called; but no longer than
    /// this.
    fn wait(&self, timeout: Duration);

    /// Ends a wait.
    fn wake(&self);

    /// Something that is the same as long as the same endpoint is attached at this slot. `None` if nobody is, as far as can
    /// be told without looking into the slot.
    fn connection(&self, slot: usize) -> Option<u64>;
}
