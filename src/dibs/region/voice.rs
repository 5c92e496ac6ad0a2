//! How an endpoint makes another look.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering, fence},
};

use super::{
    attachment::Attachment,
    layout::{Geometry, said},
    peers::Peer,
    words::{get32, put32},
};

/// Rings the other endpoints of a region, by any thread.
#[derive(Debug)]
pub(super) struct Voice {
    attachment: Arc<dyn Attachment>,
    geometry: Geometry,
    /// How often each was rung. The words in the region only tell others of it.
    rung: Vec<AtomicU32>,
}

impl Voice {
    pub(super) fn new(attachment: Arc<dyn Attachment>, geometry: Geometry) -> Self {
        let own = attachment.slot();
        let start = |to| AtomicU32::new(get32(attachment.memory(), geometry.said(own, to) + said::RUNG));
        let rung = (0..geometry.slots()).map(start).collect();
        Self { attachment, geometry, rung }
    }

    /// Makes this endpoint look at what was written for it.
    pub(super) fn ring(&self, peer: &Peer) {
        self.count(peer.slot);
        if peer.is_belled() {
            self.attachment.ring(peer.slot);
        }
    }

    /// Counts another ring, for those who look by themselves.
    fn count(&self, to: usize) {
        let Some(rung) = self.rung.get(to) else { return };
        // Two threads may store in another order than they count; each store is a change all the same.
        let now = rung.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        put32(self.attachment.memory(), self.geometry.said(self.attachment.slot(), to) + said::RUNG, now);
        fence(Ordering::SeqCst);
    }
}
