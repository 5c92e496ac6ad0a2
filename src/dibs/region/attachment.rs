//! How an endpoint reaches its region.

use std::{fmt, sync::Arc, time::Duration};

use crate::dibs::Memory;

/// What ended a wait. In any case the waiter may look for news; it knows how long it has waited at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Woken {
    /// The own doorbell was rung, or somebody came or went.
    Rung,
    /// By [`Attachment::wake`].
    Called,
    /// The time is over.
    TimedOut,
}

/// The memory of a region, bells, and who is there.
///
/// When it is dropped, others are told that this endpoint writes nothing any more. Whoever writes into the memory keeps the
/// attachment.
pub(crate) trait Attachment: Send + Sync + fmt::Debug {
    /// The whole region.
    fn memory(&self) -> &Arc<Memory>;

    /// The own slot. Not compared with the header yet.
    fn slot(&self) -> usize;

    /// True if this endpoint has a doorbell, so that it need not look by itself.
    fn is_belled(&self) -> bool;

    /// Rings the doorbell of another endpoint, if it has one.
    fn ring(&self, slot: usize);

    /// Waits until the own doorbell is rung, somebody comes or goes, or [`wake`](Self::wake) is called; at most so long. For
    /// one thread, that of the device.
    fn wait(&self, timeout: Duration) -> Woken;

    /// Ends the wait under way, or else the next.
    fn wake(&self);

    /// If an endpoint can be in this slot, which: another number for each. `None` once it is certain that whoever was there
    /// writes nothing any more, or that nothing can be told.
    fn connection(&self, slot: usize) -> Option<u64>;
}
