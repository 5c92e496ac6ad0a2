//! How an endpoint makes another look.

use std::sync::{
    Arc,
    atomic::{Ordering, fence},
};

use super::{
    attachment::Attachment,
    layout::{Geometry, said},
    peers::Peer,
    words::{get32, swap32},
};

/// How often it is tried to count. If others were faster each time, there is a change all the same.
const TRIES: usize = 100;

/// Rings the other endpoints of a region, by any thread.
#[derive(Debug)]
pub(super) struct Voice {
    attachment: Arc<dyn Attachment>,
    geometry: Geometry,
}

impl Voice {
    pub(super) fn new(attachment: Arc<dyn Attachment>, geometry: Geometry) -> Self {
        Self { attachment, geometry }
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
        let (memory, rung) =
            (self.attachment.memory(), self.geometry.said(self.attachment.slot(), to) + said::RUNG);
        // Other threads count too, and forked children.
        for _ in 0..TRIES {
            let now = get32(memory, rung);
            if swap32(memory, rung, now, now.wrapping_add(1)) {
                break;
            }
        }
        fence(Ordering::SeqCst);
    }
}
