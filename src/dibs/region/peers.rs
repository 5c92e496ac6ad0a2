//! Who is in the slots.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering, fence},
};

use super::{
    attachment::Attachment,
    layout::{Geometry, control},
    words::{get_gid, get32, get64},
};
use crate::dibs::{Gid, VlanId};

/// An endpoint that was seen at a slot.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) slot: usize,
    pub(super) gid: Gid,
    pub(super) incarnation: u32,
    connection: u64,
    flags: u32,
    ended: Arc<AtomicBool>,
}

impl Peer {
    /// One that was not seen: as far as can be told, it has ended.
    fn unseen(slot: usize, incarnation: u32) -> Self {
        let (gid, ended) = (Gid::from_halves(0, 0), Arc::new(AtomicBool::new(true)));
        Self { slot, gid, incarnation, connection: 0, flags: 0, ended }
    }

    /// True once it was found that this endpoint has come to its end.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// True if it looks at a DMB only after a signal.
    pub(super) fn is_signalled(&self) -> bool {
        self.flags & control::SIGNALLED != 0
    }

    /// True if it has a doorbell.
    pub(super) fn is_belled(&self) -> bool {
        self.flags & control::BELLED != 0
    }
}

/// The endpoints, as last seen.
#[derive(Debug)]
pub(super) struct Peers {
    seen: Vec<Option<Peer>>,
}

impl Peers {
    pub(super) fn new(slots: usize) -> Self {
        Self { seen: vec![None; slots] }
    }

    /// Looks again who is at this slot. Says whether somebody has come to their end there.
    pub(super) fn look(&mut self, attachment: &dyn Attachment, geometry: &Geometry, slot: usize) -> bool {
        let Some(seen) = self.seen.get_mut(slot) else { return false };
        let now = look(attachment, geometry, slot);
        if let (Some(seen), Some(now)) = (&seen, &now)
            && (seen.connection, seen.incarnation) == (now.connection, now.incarnation)
        {
            // What it says of itself is what it said first.
            return false;
        }
        let before = std::mem::replace(seen, now);
        if let Some(peer) = &before {
            peer.ended.store(true, Ordering::Release);
        }
        before.is_some()
    }

    /// Who was last seen at this slot.
    pub(super) fn at(&self, slot: usize) -> Option<&Peer> {
        self.seen.get(slot)?.as_ref()
    }

    /// The endpoint that has, or had, this incarnation.
    pub(super) fn with(&self, slot: usize, incarnation: u32) -> Peer {
        let seen = self.at(slot).filter(|peer| peer.incarnation == incarnation);
        seen.cloned().unwrap_or_else(|| Peer::unseen(slot, incarnation))
    }

    /// The one endpoint that has this GID. A GID that two claim is nobody's.
    pub(super) fn of_gid(&self, gid: Gid) -> Option<&Peer> {
        let mut claimants = self.seen.iter().flatten().filter(|peer| peer.gid == gid);
        claimants.next().filter(|_| claimants.next().is_none())
    }
}

/// Who is at this slot. `None` if nobody is, or somebody is about to come or go.
fn look(attachment: &dyn Attachment, geometry: &Geometry, slot: usize) -> Option<Peer> {
    let (memory, page) = (attachment.memory(), geometry.control(slot));
    let state = || Some((attachment.connection(slot)?, get64(memory, page + control::STATE)));
    let before = state()?;
    let incarnation = (before.1 >> 32) as u32;
    if before.1 & control::PRESENT == 0 || incarnation == 0 {
        return None;
    }
    let gid = get_gid(memory, page + control::GID);
    let flags = get32(memory, page + control::FLAGS);
    // Both belong to this very endpoint if it is the same afterwards.
    fence(Ordering::Acquire);
    if state()? != before {
        return None;
    }
    Some(Peer { slot, gid, incarnation, connection: before.0, flags, ended: Arc::default() })
}

/// True if the endpoint at this slot has this VLAN. The reserved id only asks what the device can do.
pub(super) fn has_vlan(attachment: &dyn Attachment, geometry: &Geometry, slot: usize, vlan: VlanId) -> bool {
    let page = geometry.control(slot) + control::VLANS;
    vlan == VlanId::ISM_V2
        || (0..control::MAX_VLANS / 2).any(|pair| {
            let both = get32(attachment.memory(), page + 4 * pair);
            [both as u16, (both >> 16) as u16].contains(&vlan.0)
        })
}
