//! The DMBs that a device owns: where they are, and who is told of their signals.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    addresses::Addresses,
    signals,
    store::{PAGE, SEGMENT},
};
use crate::dibs::{
    Cause, DeviceError, DmbToken, Doorbell, Interrupt, Memory,
    bell::{self, Bell, BellInterrupt},
};

/// DMBs that a device can own.
pub(super) const MAX_DMBS: usize = (signals::END - signals::FIRST) as usize;

/// What a DMB takes of the device.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) index: u16,
    pub(super) iova: u64,
    pub(super) len: usize,
}

/// A DMB that was registered.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) room: Room,
    /// Kept as long as the function may write there.
    pub(super) _memory: Arc<Memory>,
    /// GID of the function that may.
    pub(super) user: u64,
    pub(super) ringer: Option<Ringer>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Dmbs {
    addresses: Addresses,
    indexes: BTreeSet<u16>,
    owned: HashMap<DmbToken, Owned>,
    tokens: HashMap<u16, DmbToken>,
    /// The function did not let go of them, so it may write there as long as it is open.
    stuck: Vec<Owned>,
}

impl Dmbs {
    pub(super) fn new(addresses: Addresses) -> Self {
        Self {
            addresses,
            indexes: (signals::FIRST..signals::END).collect(),
            owned: HashMap::new(),
            tokens: HashMap::new(),
            stuck: Vec::new(),
        }
    }

    /// Bytes for which there are addresses.
    pub(super) fn left(&self) -> usize {
        usize::try_from(self.addresses.left()).unwrap_or(usize::MAX)
    }

    /// Room for a DMB of `len` bytes.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`], [`DeviceError::NoFreeDmb`] or [`DeviceError::OutOfMemory`].
    pub(super) fn reserve(&mut self, len: usize) -> Result<Room, DeviceError> {
        if len == 0 || len > SEGMENT || !len.is_multiple_of(PAGE) {
            return Err(DeviceError::OutOfRange { offset: 0, len, size: SEGMENT });
        }
        let index = self.indexes.first().copied().ok_or(DeviceError::NoFreeDmb(MAX_DMBS))?;
        let scarce = DeviceError::OutOfMemory { requested: len, available: self.left() };
        let iova = self.addresses.take(len).ok_or(scarce)?;
        self.indexes.remove(&index);
        Ok(Room { index, iova, len })
    }

    /// Gives room back, which the function does not know of (any more).
    pub(super) fn give_back(&mut self, room: &Room) {
        self.addresses.give_back(room.iova, room.len);
        self.indexes.insert(room.index);
    }

    /// Enters a DMB. Given back if there is one of this token.
    pub(super) fn insert(&mut self, token: DmbToken, dmb: Owned) -> Result<(), Owned> {
        if self.owned.contains_key(&token) {
            return Err(dmb);
        }
        self.tokens.insert(dmb.room.index, token);
        self.owned.insert(token, dmb);
        Ok(())
    }

    /// True if there is one of this token.
    pub(super) fn has(&self, token: DmbToken) -> bool {
        self.owned.contains_key(&token)
    }

    /// Takes out a DMB. Its room stays taken until it is given back.
    pub(super) fn remove(&mut self, token: DmbToken) -> Option<Owned> {
        let dmb = self.owned.remove(&token)?;
        self.tokens.remove(&dmb.room.index);
        Some(dmb)
    }

    /// Keeps what the function does not let go of.
    pub(super) fn keep(&mut self, dmb: Owned) {
        self.stuck.push(dmb);
    }

    /// The DMB of this index was written into.
    pub(super) fn ring(&self, index: u16) {
        let dmb = self.tokens.get(&index).and_then(|token| self.owned.get(token));
        if let Some(ringer) = dmb.and_then(|dmb| dmb.ringer.as_ref()) {
            ringer.ring();
        }
    }

    /// Those whose user has gone hear of it.
    pub(super) fn hang_up(&mut self, is_gone: impl Fn(DmbToken, &Owned) -> bool) {
        for (token, dmb) in &mut self.owned {
            if is_gone(*token, dmb) {
                dmb.ringer = None;
            }
        }
    }
}

/// A new pair for the signals of a DMB.
///
/// # Errors
/// If there is no memory, or no descriptors.
pub(super) fn interrupt() -> Result<(IsmInterrupt, Ringer), DeviceError> {
    let (interrupt, bell) = bell::local()?;
    let signals = Arc::new(AtomicU32::new(0));
    Ok((IsmInterrupt { bell: interrupt, signals: signals.clone() }, Ringer { bell, signals }))
}

/// Hands signals on.
#[derive(Debug)]
pub(super) struct Ringer {
    bell: Bell,
    signals: Arc<AtomicU32>,
}

impl Ringer {
    fn ring(&self) {
        // By two, so that it is never odd: a signal comes when a message is there as a whole.
        self.signals.fetch_add(2, Ordering::Release);
        // The user does not say what is new.
        Cause::ALL.into_iter().for_each(|cause| _ = self.bell.ring(cause));
    }
}

/// Where the signals of a DMB arrive: the device's thread hands them on.
#[derive(Debug)]
pub(super) struct IsmInterrupt {
    bell: BellInterrupt,
    /// Twice the number of signals.
    signals: Arc<AtomicU32>,
}

impl Interrupt for IsmInterrupt {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn is_hung_up(&self) -> bool {
        self.bell.is_hung_up()
    }

    fn arm(&self, cause: Cause) {
        self.bell.arm(cause);
    }

    fn clear(&self) {
        self.bell.clear();
    }

    fn moves(&self) -> Option<u32> {
        Some(self.signals.load(Ordering::Acquire))
    }

    fn hold(&self) -> Option<std::sync::MutexGuard<'_, ()>> {
        self.bell.hold()
    }

    fn wait(
        &self,
        cause: Cause,
        timeout: Option<std::time::Duration>,
        news: &mut dyn FnMut() -> bool,
    ) -> std::io::Result<bool> {
        self.bell.wait(cause, timeout, news)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn owned(room: Room) -> Owned {
        let memory = Arc::new(Memory::anonymous(PAGE).unwrap());
        Owned { room, _memory: memory, user: 1, ringer: None }
    }

    #[test]
    fn as_many_as_there_are_indexes() {
        let mut dmbs = Dmbs::new(Addresses::new(0..1 << 40));
        let rooms: Vec<_> = (0..1888).map(|_| dmbs.reserve(65536).unwrap()).collect();
        assert!(matches!(dmbs.reserve(65536), Err(DeviceError::NoFreeDmb(1888))));
        let indexes: HashSet<_> = rooms.iter().map(|room| room.index).collect();
        assert!(indexes.len() == 1888 && indexes.iter().all(|index| (32..1920).contains(index)));
        dmbs.give_back(&rooms[7]);
        let again = dmbs.reserve(65536).unwrap();
        assert_eq!((again.index, again.iova), (rooms[7].index, rooms[7].iova));
    }

    #[test]
    fn what_fails_takes_nothing() {
        let mut dmbs = Dmbs::new(Addresses::new(0..1 << 20));
        let left = dmbs.left();
        for len in [0, 1, 4095, SEGMENT + PAGE] {
            assert!(matches!(dmbs.reserve(len), Err(DeviceError::OutOfRange { .. })), "{len}");
        }
        assert!(matches!(dmbs.reserve(SEGMENT), Err(DeviceError::OutOfMemory { requested: SEGMENT, .. })));
        assert_eq!((dmbs.left(), dmbs.indexes.len()), (left, MAX_DMBS));
    }

    #[test]
    fn a_token_is_entered_once() {
        let mut dmbs = Dmbs::new(Addresses::new(0..1 << 30));
        let token = DmbToken(1 << 32);
        let (first, second) = (dmbs.reserve(PAGE).unwrap(), dmbs.reserve(PAGE).unwrap());
        let index = first.index;
        dmbs.insert(token, owned(first)).unwrap();
        dmbs.insert(token, owned(second)).unwrap_err();
        assert_eq!(dmbs.remove(token).unwrap().room.index, index);
        assert!(dmbs.remove(token).is_none());
    }
}
