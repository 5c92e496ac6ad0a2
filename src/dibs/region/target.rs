//! DMBs of other endpoints, for this one to write into.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, AtomicUsize, Ordering, fence},
};

use super::{
    Region,
    attachment::Attachment,
    layout::{Geometry, PAGE, TokenParts, entry},
    peers::Peer,
    voice::Voice,
    words::{get_gid, get32, get64, put32, swap32},
};
use crate::dibs::{Cause, DeviceError, DmbToken, Doorbell, Gid, Memory, VlanId};

/// Messages up to this length go in whole words, so that nobody finds half a word of them.
const MESSAGE: usize = 64;

/// Entries are divided among so many locks.
const TURNS: usize = 64;

/// How often *held* is tried to be written. Who has the entry before or after us changes it at most a few times.
const TRIES: usize = 8;

/// Who this endpoint is, as a user of DMBs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) slot: usize,
    pub(super) gid: Gid,
    pub(super) incarnation: u32,
}

/// What all DMBs that this endpoint uses have in common.
#[derive(Debug)]
pub(super) struct User {
    own: Own,
    pub(super) voice: Voice,
    /// Held by whoever writes the user's words of an entry. A thread may still be at it for a DMB that was given back, while
    /// another begins with the DMB that has the entry next.
    turns: [Mutex<()>; TURNS],
}

impl User {
    pub(super) fn new(own: Own, voice: Voice) -> Self {
        Self { own, voice, turns: [const { Mutex::new(()) }; TURNS] }
    }

    fn turn(&self, parts: TokenParts) -> MutexGuard<'_, ()> {
        // Nothing panics while it is held.
        self.turns[(parts.slot + parts.entry) % TURNS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A DMB of another endpoint. What its entry said was checked once; nothing is taken from there later but the token.
#[derive(Debug)]
pub(super) struct Target {
    user: Arc<User>,
    pub(super) owner: Peer,
    token: DmbToken,
    region: Arc<Memory>,
    entry: usize,
    pub(super) memory: Arc<Memory>,
    /// How many have it mapped. Changed only in turn.
    mappings: AtomicUsize,
    /// For which arming the owner was last rung; for data and for space.
    answered: [AtomicU32; 2],
}

impl Target {
    /// The DMB with this token, which `owner` has registered for us.
    ///
    /// # Errors
    /// [`DeviceError::UnknownToken`] if there is none, or not for us, or not where it may be.
    pub(super) fn find(
        attachment: &dyn Attachment,
        geometry: &Geometry,
        owner: &Peer,
        user: &Arc<User>,
        vlans: &[VlanId],
        token: DmbToken,
    ) -> Result<Self, DeviceError> {
        let unknown = DeviceError::UnknownToken(token);
        let (region, parts) = (attachment.memory(), TokenParts::of(token));
        if token.0 == 0 || parts.slot != owner.slot || parts.entry >= geometry.entries() {
            return Err(unknown);
        }
        let entry = geometry.entry(parts.slot, parts.entry);
        if get64(region, entry + entry::TOKEN) != token.0
            || !is_for(region, entry, user.own)
            || !is_within_reach(region, entry, vlans)
        {
            return Err(unknown);
        }
        let place = |at| usize::try_from(get64(region, entry + at)).unwrap_or(usize::MAX);
        let (start, len) = (place(entry::OFFSET), place(entry::LEN));
        fence(Ordering::Acquire);
        if get64(region, entry + entry::TOKEN) != token.0 {
            return Err(unknown);
        }
        let slice = geometry.slice(owner.slot);
        let is_within = start >= slice.start && start.checked_add(len).is_some_and(|end| end <= slice.end);
        if !is_within || len == 0 || !start.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE) {
            return Err(unknown);
        }
        Ok(Self {
            user: user.clone(),
            owner: owner.clone(),
            token,
            region: region.clone(),
            entry,
            memory: Arc::new(region.part(start, len)?),
            mappings: AtomicUsize::new(0),
            answered: [const { AtomicU32::new(0) }; 2],
        })
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.user.turn(TokenParts::of(self.token))
    }

    fn is_mapped(&self) -> bool {
        self.mappings.load(Ordering::Relaxed) > 0
    }

    /// True as long as the owner has not given it back.
    fn has_token(&self) -> bool {
        get64(&self.region, self.entry + entry::TOKEN) == self.token.0
    }

    /// True as long as the owner has not given it back, and is there.
    pub(super) fn is_there(&self) -> bool {
        !self.owner.has_ended() && self.has_token()
    }

    /// Says that we are writing, or have the DMB mapped. The owner takes the token away and then looks at this; we look at
    /// the token afterwards, so one of us sees the other.
    ///
    /// In turn, and not if it is mapped.
    fn take(&self) -> Result<(), DeviceError> {
        let (held, own) = (self.entry + entry::HELD, self.user.own.incarnation);
        for _ in 0..TRIES {
            let before = get32(&self.region, held);
            if !self.is_there() {
                // The entry may be another's by now.
                break;
            }
            // What stood there while the DMB was ours is of no more use. What another has put there since is not replaced.
            if swap32(&self.region, held, before, own) {
                fence(Ordering::SeqCst);
                if self.is_there() {
                    return Ok(());
                }
                self.let_go();
                break;
            }
        }
        Err(DeviceError::UnknownToken(self.token))
    }

    /// Says that we are writing no more. Nothing of the entry must be touched after it.
    fn let_go(&self) {
        swap32(&self.region, self.entry + entry::HELD, self.user.own.incarnation, 0);
    }

    /// The next odd *moves*.
    fn next_odd(&self) -> u32 {
        get32(&self.region, self.entry + entry::MOVES).wrapping_add(1) | 1
    }

    /// Sets *moves*.
    fn say_moves(&self, moves: u32) {
        put32(&self.region, self.entry + entry::MOVES, moves);
        // What is written next comes after it.
        fence(Ordering::SeqCst);
    }

    /// Writes, and signals if that is asked for.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`], or [`DeviceError::UnknownToken`] if it was given back.
    pub(super) fn write(&self, signal: bool, offset: usize, data: &[u8]) -> Result<(), DeviceError> {
        if offset.checked_add(data.len()).is_none_or(|end| end > self.memory.len()) {
            return Err(DeviceError::OutOfRange { offset, len: data.len(), size: self.memory.len() });
        }
        let turn = self.turn();
        let is_held = self.is_mapped() && self.is_there();
        if !is_held {
            self.take()?;
        }
        let written = self.write_held(signal, offset, data);
        if !is_held {
            self.let_go();
        }
        drop(turn);
        if signal && written.is_ok() {
            self.user.voice.ring(&self.owner);
        }
        written
    }

    fn write_held(&self, signal: bool, offset: usize, data: &[u8]) -> Result<(), DeviceError> {
        if !signal {
            return self.memory.write(offset, data);
        }
        let odd = self.next_odd();
        self.say_moves(odd);
        let written = write_words(&self.memory, offset, data);
        self.say_moves(odd.wrapping_add(1));
        written
    }

    /// Numbers a signal that comes without data. In turn.
    fn count_signal(&self) {
        self.say_moves(self.next_odd().wrapping_add(1));
    }

    /// Says that the DMB is mapped, until what this returns is dropped.
    ///
    /// # Errors
    /// [`DeviceError::UnknownToken`] if it was given back.
    pub(super) fn hold(self: &Arc<Self>, region: Region) -> Result<Holder, DeviceError> {
        let _turn = self.turn();
        if !self.is_mapped() {
            self.take()?;
            put32(&self.region, self.entry + entry::MAPPED, self.user.own.incarnation);
        } else if !self.is_there() {
            return Err(DeviceError::UnknownToken(self.token));
        }
        self.mappings.fetch_add(1, Ordering::Relaxed);
        Ok(Holder { target: self.clone(), region })
    }

    /// As often as [`Target::hold`]; says whether it was the last time. In turn.
    fn unmap(&self) -> bool {
        if self.mappings.fetch_sub(1, Ordering::Relaxed) > 1 {
            return false;
        }
        put32(&self.region, self.entry + entry::MAPPED, 0);
        self.count_signal();
        // Whoever owns the entry now, even after the one that has registered it for us, was waiting for this.
        self.let_go();
        true
    }
}

/// Copies in; a message in whole words, the first before the others.
fn write_words(memory: &Memory, offset: usize, data: &[u8]) -> Result<(), DeviceError> {
    let (words, rest) = data.as_chunks::<8>();
    if !rest.is_empty() || data.len() > MESSAGE || !offset.is_multiple_of(8) {
        return memory.write(offset, data);
    }
    for (at, word) in words.iter().enumerate() {
        memory.store(offset + 8 * at, u64::from_ne_bytes(*word))?;
    }
    Ok(())
}

/// True if the entry names us as the user.
fn is_for(region: &Memory, entry: usize, own: Own) -> bool {
    get_gid(region, entry + entry::USER_GID) == own.gid
        && get32(region, entry + entry::USER_SLOT) as usize == own.slot
        && get32(region, entry + entry::USER_INCARNATION) == own.incarnation
}

/// True if the entry names no VLAN, or one of ours. The reserved id is everybody's.
fn is_within_reach(region: &Memory, entry: usize, vlans: &[VlanId]) -> bool {
    let vlan = get32(region, entry + entry::VLAN);
    vlan == 0 || vlans.iter().chain([&VlanId::ISM_V2]).any(|own| u32::from(own.0) == vlan)
}

/// Has a DMB mapped, and rings its owner.
#[derive(Debug)]
pub(super) struct Holder {
    target: Arc<Target>,
    /// What is mapped stays ours only as long as we are in the region.
    region: Region,
}

impl Doorbell for Holder {
    #[inline]
    fn ring(&self, cause: Cause) -> bool {
        let target = &self.target;
        let (armed, answered) = match cause {
            Cause::Data => (entry::ARMED_DATA, &target.answered[0]),
            Cause::Space => (entry::ARMED_SPACE, &target.answered[1]),
        };
        // What was published comes before the look; the owner arms before it looks.
        fence(Ordering::SeqCst);
        let armed = get32(&target.region, target.entry + armed);
        // Most of the time the owner is awake, and has asked for nothing.
        if armed & 1 == 0 || answered.swap(armed, Ordering::Relaxed) == armed {
            return false;
        }
        {
            let _turn = target.turn();
            target.count_signal();
        }
        target.user.voice.ring(&target.owner);
        true
    }

    fn is_hung_up(&self) -> bool {
        !self.target.is_there()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // In a child it is still the parent's, and so are the locks.
        if self.region.is_inherited() {
            return;
        }
        let is_last = {
            let _turn = self.target.turn();
            self.target.unmap()
        };
        if is_last {
            self.target.user.voice.ring(&self.target.owner);
        }
    }
}
