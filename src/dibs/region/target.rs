//! DMBs of other endpoints, for this one to write into.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering, fence},
};

use super::{
    attachment::Attachment,
    layout::{Geometry, PAGE, TokenParts, entry},
    peers::Peer,
    voice::Voice,
    words::{get_gid, get32, get64, put32},
};
use crate::dibs::{Cause, DeviceError, DmbToken, Doorbell, Gid, Memory};

/// Messages up to this length go in whole words, so that nobody finds half a word of them.
const MESSAGE: usize = 64;

/// Who this endpoint is, as a user of DMBs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) slot: usize,
    pub(super) gid: Gid,
    pub(super) incarnation: u32,
}

/// A DMB of another endpoint. What its entry said was checked once; nothing is taken from there later but the token.
#[derive(Debug)]
pub(super) struct Target {
    own: Own,
    pub(super) owner: Peer,
    token: DmbToken,
    region: Arc<Memory>,
    entry: usize,
    pub(super) memory: Arc<Memory>,
    voice: Arc<Voice>,
    state: Mutex<State>,
    /// For which arming the owner was last rung; for data and for space.
    answered: [AtomicU32; 2],
}

#[derive(Debug)]
struct State {
    /// The word *moves*, which is ours alone.
    moves: u32,
    /// How many have it mapped.
    mappings: usize,
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
        own: Own,
        token: DmbToken,
        voice: &Arc<Voice>,
    ) -> Result<Self, DeviceError> {
        let unknown = DeviceError::UnknownToken(token);
        let (region, parts) = (attachment.memory(), TokenParts::of(token));
        if token.0 == 0 || parts.slot != owner.slot || parts.entry >= geometry.entries() {
            return Err(unknown);
        }
        let entry = geometry.entry(parts.slot, parts.entry);
        if get64(region, entry + entry::TOKEN) != token.0 || !is_for(region, entry, own) {
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
            own,
            owner: owner.clone(),
            token,
            region: region.clone(),
            entry,
            memory: Arc::new(region.part(start, len)?),
            voice: voice.clone(),
            state: Mutex::new(State { moves: get32(region, entry + entry::MOVES), mappings: 0 }),
            answered: [const { AtomicU32::new(0) }; 2],
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn say_held(&self, is_held: bool) {
        put32(&self.region, self.entry + entry::HELD, if is_held { self.own.incarnation } else { 0 });
        fence(Ordering::SeqCst);
    }

    /// Sets *moves*.
    fn say_moves(&self, state: &mut State, moves: u32) {
        state.moves = moves;
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
        let mut state = self.state();
        if !self.is_there() {
            // The entry may be another's by now.
            return Err(DeviceError::UnknownToken(self.token));
        }
        self.say_held(true);
        let written = if self.is_there() {
            self.write_held(&mut state, signal, offset, data)
        } else {
            Err(DeviceError::UnknownToken(self.token))
        };
        if state.mappings == 0 {
            self.say_held(false);
        }
        drop(state);
        if signal && written.is_ok() {
            self.voice.ring(&self.owner);
        }
        written
    }

    fn write_held(
        &self,
        state: &mut State,
        signal: bool,
        offset: usize,
        data: &[u8],
    ) -> Result<(), DeviceError> {
        if !signal {
            return self.memory.write(offset, data);
        }
        let odd = state.moves.wrapping_add(1) | 1;
        self.say_moves(state, odd);
        let written = write_words(&self.memory, offset, data);
        self.say_moves(state, odd.wrapping_add(1));
        written
    }

    /// Signals the owner, without having written.
    fn signal(&self) {
        {
            let mut state = self.state();
            let moves = (state.moves.wrapping_add(1) | 1).wrapping_add(1);
            self.say_moves(&mut state, moves);
        }
        self.voice.ring(&self.owner);
    }

    /// Says that the DMB is mapped, until what this returns is dropped.
    pub(super) fn hold(self: &Arc<Self>) -> Holder {
        let mut state = self.state();
        state.mappings += 1;
        self.say_held(true);
        put32(&self.region, self.entry + entry::MAPPED, self.own.incarnation);
        drop(state);
        Holder(self.clone())
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

/// Has a DMB mapped, and rings its owner.
#[derive(Debug)]
pub(super) struct Holder(Arc<Target>);

impl Doorbell for Holder {
    #[inline]
    fn ring(&self, cause: Cause) -> bool {
        let target = &self.0;
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
        target.signal();
        true
    }

    fn is_hung_up(&self) -> bool {
        !self.0.is_there()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let target = &self.0;
        {
            let mut state = target.state();
            state.mappings = state.mappings.saturating_sub(1);
            // As long as its owner is there, the entry is for us: it waits for this. One that was merely stopped may come back.
            if state.mappings > 0 || target.owner.has_ended() && !target.has_token() {
                return;
            }
            put32(&target.region, target.entry + entry::MAPPED, 0);
            target.say_held(false);
        }
        target.signal();
    }
}
