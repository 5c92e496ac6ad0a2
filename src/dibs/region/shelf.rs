//! The DMBs that this endpoint owns: their entries, their memory, and who is told of signals.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering, fence},
    },
};

use super::{
    attachment::Attachment,
    layout::{Geometry, Liveness, PAGE, TokenParts, control, entry},
    peers::{Peer, Peers},
    slice::Slice,
    words::{get32, get64, put_gid, put32, put64},
};
use crate::dibs::{
    Cause, DeviceError, DmbToken, Doorbell, Interrupt, Memory, VlanId,
    bell::{self, Bell, BellInterrupt},
};

/// A DMB as its owner knows it.
#[derive(Debug)]
struct Shelved {
    place: Place,
    /// None once its user has gone.
    bell: Option<Bell>,
    /// The user's *moves*, as last seen.
    moves: u32,
    was_mapped: bool,
}

/// Entry and memory of a DMB, and who may write there.
#[derive(Debug)]
struct Place {
    index: usize,
    entry: usize,
    range: Range<usize>,
    user: Peer,
}

/// What a new DMB consists of.
pub(super) struct Made {
    pub(super) token: DmbToken,
    pub(super) index: u32,
    pub(super) memory: Arc<Memory>,
    pub(super) interrupt: RegionInterrupt,
}

/// The DMBs of an endpoint.
#[derive(Debug)]
pub(super) struct Shelf {
    slot: usize,
    geometry: Geometry,
    region: Arc<Memory>,
    slice: Slice,
    /// The free entries, the one that was in use last at the end: who comes late with an old token finds nothing.
    indexes: VecDeque<usize>,
    dmbs: HashMap<DmbToken, Shelved>,
    /// Given back, or left by who had the slot before, but their users may still be writing.
    leaving: Vec<Place>,
}

impl Shelf {
    /// An empty one. Takes away what another endpoint has left in the directory. It may have been killed, and its users do not
    /// stop at that very moment; so what they hold is not for others yet. `peers` were looked at just now.
    pub(super) fn new(attachment: &dyn Attachment, geometry: Geometry, peers: &Peers) -> Self {
        let (slot, region) = (attachment.slot(), attachment.memory().clone());
        for index in 0..geometry.entries() {
            put64(&region, geometry.entry(slot, index) + entry::TOKEN, 0);
        }
        // As when a DMB is given back.
        fence(Ordering::SeqCst);
        let slice = Slice::new(geometry.slice(slot));
        let (indexes, dmbs, leaving) = (VecDeque::new(), HashMap::new(), Vec::new());
        let mut shelf = Self { slot, geometry, region, slice, indexes, dmbs, leaving };
        (0..geometry.entries()).for_each(|index| shelf.take_over(index, peers));
        shelf
    }

    /// Makes an entry free, or keeps it aside with its memory, if a user still holds it.
    fn take_over(&mut self, index: usize, peers: &Peers) {
        let entry = self.geometry.entry(self.slot, index);
        let user = get32(&self.region, entry + entry::USER_SLOT) as usize;
        let user = peers.with(user, get32(&self.region, entry + entry::USER_INCARNATION));
        let mut place = Place { index, entry, range: 0..0, user };
        if place.user.slot < self.geometry.slots() && place.is_written(&self.region, &self.geometry) {
            place.range = place.written_range(&self.region);
            if !place.is_of_pages() || !self.slice.take_this(&place.range) {
                // No owner has written that there.
                place.range = 0..0;
            }
            self.leaving.push(place);
        } else {
            self.indexes.push_back(index);
        }
    }

    /// Bytes that are free.
    pub(super) fn left(&self) -> usize {
        self.slice.left()
    }

    /// True if there is no DMB, so that nothing has to be looked at.
    pub(super) fn is_empty(&self) -> bool {
        self.dmbs.is_empty() && self.leaving.is_empty()
    }

    /// Makes a DMB of `len` bytes, a multiple of a page.
    ///
    /// # Errors
    /// [`DeviceError::NoFreeDmb`], [`DeviceError::OutOfMemory`], or the system's error.
    pub(super) fn make(
        &mut self,
        user: &Peer,
        len: usize,
        vlan: Option<VlanId>,
    ) -> Result<Made, DeviceError> {
        self.sweep();
        let random = getrandom::u64().map_err(std::io::Error::from)?;
        let (interrupt, bell) = bell::local()?;
        let full = DeviceError::NoFreeDmb(self.geometry.entries());
        let index = self.indexes.front().copied().ok_or(full)?;
        let scarce = DeviceError::OutOfMemory { requested: len, available: self.slice.left() };
        let range = self.slice.take(len).ok_or(scarce)?;
        let memory = match self.region.part(range.start, len) {
            Ok(memory) => Arc::new(memory),
            Err(error) => {
                self.slice.give_back(range);
                return Err(error);
            }
        };
        self.indexes.pop_front();
        memory.zero(0, len)?;
        let token = TokenParts { slot: self.slot, entry: index }.token(random);
        let entry = self.geometry.entry(self.slot, index);
        let place = Place { index, entry, range, user: user.clone() };
        let moves = get32(&self.region, entry + entry::MOVES);
        place.publish(&self.region, token, vlan);
        self.dmbs.insert(token, Shelved { place, bell: Some(bell), moves, was_mapped: false });
        let (region, is_moved) = (self.region.clone(), user.is_signalled());
        let interrupt = RegionInterrupt { bell: interrupt, region, entry, is_moved, armings: 1.into() };
        // Less than 1024.
        Ok(Made { token, index: index as u32, memory, interrupt })
    }

    /// Gives a DMB back.
    ///
    /// # Errors
    /// [`DeviceError::UnknownToken`] if there is none.
    pub(super) fn give_back(&mut self, token: DmbToken) -> Result<(), DeviceError> {
        let dmb = self.dmbs.remove(&token).ok_or(DeviceError::UnknownToken(token))?;
        put64(&self.region, dmb.place.entry + entry::TOKEN, 0);
        // A user that is about to write looks at the token after it has said so.
        fence(Ordering::SeqCst);
        self.leaving.push(dmb.place);
        self.sweep();
        Ok(())
    }

    /// Makes free what nobody writes into any more.
    pub(super) fn sweep(&mut self) {
        let mut at = 0;
        while let Some(place) = self.leaving.get(at) {
            if place.is_written(&self.region, &self.geometry) {
                at += 1;
                continue;
            }
            let place = self.leaving.swap_remove(at);
            if !place.range.is_empty() {
                self.slice.give_back(place.range);
            }
            self.indexes.push_back(place.index);
        }
    }

    /// The endpoints of these slots have signalled: tells those who wait for what has changed.
    pub(super) fn signalled(&mut self, by: u64) {
        for dmb in self.dmbs.values_mut().filter(|dmb| by >> dmb.place.user.slot & 1 != 0) {
            dmb.look(&self.region);
        }
        self.sweep();
    }

    /// Somebody has come to their end: tells those who wait for signals from there.
    pub(super) fn ended(&mut self) {
        for dmb in self.dmbs.values_mut().filter(|dmb| dmb.place.user.has_ended()) {
            dmb.bell = None;
        }
        self.sweep();
    }
}

impl Shelved {
    fn look(&mut self, region: &Memory) {
        let moves = get32(region, self.place.entry + entry::MOVES);
        if moves != self.moves
            && let Some(bell) = &self.bell
        {
            self.moves = moves;
            Cause::ALL.into_iter().for_each(|cause| _ = bell.ring(cause));
        }
        let is_mapped = self.place.is_of_user(region, entry::MAPPED);
        if self.was_mapped && !is_mapped {
            // The user has let go of it.
            self.bell = None;
        }
        self.was_mapped = is_mapped;
    }
}

impl Place {
    fn publish(&self, region: &Memory, token: DmbToken, vlan: Option<VlanId>) {
        let entry = self.entry;
        put64(region, entry + entry::OFFSET, self.range.start as u64);
        put64(region, entry + entry::LEN, self.range.len() as u64);
        put_gid(region, entry + entry::USER_GID, self.user.gid);
        put32(region, entry + entry::USER_SLOT, self.user.slot as u32);
        put32(region, entry + entry::VLAN, vlan.map_or(0, |vlan| vlan.0.into()));
        put32(region, entry + entry::USER_INCARNATION, self.user.incarnation);
        put32(region, entry + entry::ARMED_DATA, 0);
        put32(region, entry + entry::ARMED_SPACE, 0);
        put64(region, entry + entry::TOKEN, token.0);
    }

    /// Where the memory is, as the entry says.
    fn written_range(&self, region: &Memory) -> Range<usize> {
        let place = |at| usize::try_from(get64(region, self.entry + at)).unwrap_or(usize::MAX);
        let start = place(entry::OFFSET);
        start..start.saturating_add(place(entry::LEN))
    }

    fn is_of_pages(&self) -> bool {
        self.range.start.is_multiple_of(PAGE) && self.range.end.is_multiple_of(PAGE)
    }

    /// True if the user says that this is so.
    fn is_of_user(&self, region: &Memory, word: usize) -> bool {
        self.user.incarnation != 0 && get32(region, self.entry + word) == self.user.incarnation
    }

    /// True if the user may still write there.
    fn is_written(&self, region: &Memory, geometry: &Geometry) -> bool {
        self.is_of_user(region, entry::HELD) && !self.has_user_ended(region, geometry)
    }

    /// True if the user will certainly write no more.
    fn has_user_ended(&self, region: &Memory, geometry: &Geometry) -> bool {
        // An endpoint whose heart stands still may go on, unless it has left, or another has come in its place.
        let mut is_certain = geometry.liveness() != Liveness::Heartbeats;
        if !is_certain {
            let state = get64(region, geometry.control(self.user.slot) + control::STATE);
            is_certain = state != u64::from(self.user.incarnation) << 32 | control::PRESENT;
        }
        is_certain && self.user.has_ended()
    }
}

/// Where the signals of a DMB arrive. Its user is asked for them in the region; the device's thread hands them on.
#[derive(Debug)]
pub(super) struct RegionInterrupt {
    bell: BellInterrupt,
    region: Arc<Memory>,
    entry: usize,
    /// The user maps nothing: each of its messages is numbered.
    is_moved: bool,
    /// The next odd number to ask with.
    armings: AtomicU32,
}

impl RegionInterrupt {
    /// Asks the user for a signal.
    fn ask(&self, cause: Cause) {
        let word = match cause {
            Cause::Data => entry::ARMED_DATA,
            Cause::Space => entry::ARMED_SPACE,
        };
        put32(&self.region, self.entry + word, self.armings.fetch_add(2, Ordering::Relaxed) | 1);
        // Comes before the caller's look; the user publishes and then looks here.
        fence(Ordering::SeqCst);
    }
}

impl Interrupt for RegionInterrupt {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn is_hung_up(&self) -> bool {
        self.bell.is_hung_up()
    }

    fn arm(&self, cause: Cause) {
        // First here: a signal that comes for the second must find the first.
        self.bell.arm(cause);
        self.ask(cause);
    }

    fn clear(&self) {
        self.bell.clear();
    }

    fn moves(&self) -> Option<u32> {
        self.is_moved.then(|| get32(&self.region, self.entry + entry::MOVES))
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
        // Once the word of the bell is armed, and before the last look.
        let mut asked = || {
            self.ask(cause);
            news()
        };
        self.bell.wait(cause, timeout, &mut asked)
    }
}
