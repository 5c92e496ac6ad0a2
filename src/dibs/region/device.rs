//! An endpoint of a region as a device.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::{
    RegionError,
    attachment::Attachment,
    layout::{Geometry, PAGE, TokenParts, control, said},
    pace::Pace,
    peers::{Peer, Peers, has_vlan},
    shelf::{Made, Shelf},
    target::{Own, Target, User},
    voice::Voice,
    words::{get32, get64, put_gid, put32, put64},
};
use crate::{
    dibs::{Chid, Device, DeviceError, Dmb, DmbToken, Event, Gid, RemoteDmb, VlanId},
    unix::Generation,
};

/// Targets that are remembered before those that are gone are looked for.
const FEW_TARGETS: usize = 64;

/// An endpoint of a region. Cheap to clone; with the last clone, and the last DMB of its own or mapped, it leaves the region.
///
/// It has a thread, which takes in the signals of the others and hands them to those who wait for them.
#[derive(Clone)]
pub struct Region(Arc<Inner>);

struct Inner {
    /// The process whose device it is.
    of: Generation,
    geometry: Geometry,
    attachment: Arc<dyn Attachment>,
    manner: Manner,
    own: Own,
    user: Arc<User>,
    state: Mutex<State>,
    /// For the thread.
    is_over: Arc<AtomicBool>,
}

/// How an endpoint uses DMBs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Manner {
    /// It maps those of others, and looks into its own at any time.
    Mapping,
    /// It moves data, and looks after a signal, as Linux does.
    Signalled,
}

struct State {
    peers: Peers,
    /// How often each endpoint had rung when it was last looked at.
    rung: Vec<u32>,
    shelf: Shelf,
    /// DMBs of others that were written into or mapped.
    targets: HashMap<DmbToken, Arc<Target>>,
    target_limit: usize,
    vlans: Vec<VlanId>,
    /// Events that wait for somebody who takes them, with the slots that have sent them. Of each slot one; its next stays
    /// where it is, so that nobody keeps those of others away.
    events: VecDeque<(usize, Event)>,
}

impl Region {
    /// Joins the region that is attached so.
    pub(super) fn join(
        attachment: Arc<dyn Attachment>,
        geometry: Geometry,
        manner: Manner,
    ) -> Result<Self, RegionError> {
        let own = Own {
            slot: attachment.slot(),
            gid: Gid::random()?,
            incarnation: getrandom::u32().map_err(std::io::Error::from)?.max(1),
        };
        let user = Arc::new(User::new(own, Voice::new(attachment.clone(), geometry)));
        let mut peers = Peers::new(geometry.slots());
        for slot in 0..geometry.slots() {
            peers.look(&*attachment, &geometry, slot);
        }
        let state = State {
            rung: vec![0; geometry.slots()],
            shelf: Shelf::new(&*attachment, geometry, &peers),
            peers,
            targets: HashMap::new(),
            target_limit: FEW_TARGETS,
            vlans: Vec::new(),
            events: VecDeque::new(),
        };
        let is_over = Arc::new(AtomicBool::new(false));
        let of = Generation::current();
        let state = Mutex::new(state);
        let inner = Inner { of, geometry, attachment, manner, own, user, state, is_over };
        inner.enter();
        let inner = Arc::new(inner);
        serve(&inner)?;
        Ok(Self(inner))
    }

    /// The slot of this endpoint.
    pub fn slot(&self) -> usize {
        self.0.own.slot
    }

    /// How the region is divided.
    pub fn geometry(&self) -> &Geometry {
        &self.0.geometry
    }

    /// True if it belongs to a process that this one was forked from.
    pub(super) fn is_inherited(&self) -> bool {
        self.0.of.is_past()
    }

    fn check_own(&self) -> Result<(), DeviceError> {
        if self.is_inherited() { Err(DeviceError::Inherited) } else { Ok(()) }
    }
}

/// Starts the thread that takes in what others signal.
fn serve(inner: &Arc<Inner>) -> Result<(), RegionError> {
    let (attachment, is_over) = (inner.attachment.clone(), inner.is_over.clone());
    let inner = Arc::downgrade(inner);
    let mut pace = Pace::new(attachment.is_belled());
    thread::Builder::new().name("smcd-region".into()).spawn(move || {
        while !is_over.load(Ordering::Acquire) {
            attachment.wait(pace.next());
            let Some(inner) = Weak::upgrade(&inner) else { break };
            let mut state = inner.state();
            let has_news = inner.look(&mut state);
            pace.looked(has_news, state.shelf.is_empty());
            drop(state);
        }
    })?;
    Ok(())
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code under the lock panics with the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that we are here.
    fn enter(&self) {
        let (memory, page) = (self.attachment.memory(), self.geometry.control(self.own.slot));
        put64(memory, page + control::STATE, 0);
        put_gid(memory, page + control::GID, self.own.gid);
        let belled = if self.attachment.is_belled() { control::BELLED } else { 0 };
        let signalled = if self.manner == Manner::Signalled { control::SIGNALLED } else { 0 };
        put32(memory, page + control::FLAGS, belled | signalled);
        self.say_vlans(&[]);
        let mut state = self.state();
        for slot in 0..self.geometry.slots() {
            let (ours, theirs) =
                (self.geometry.said(self.own.slot, slot), self.geometry.said(slot, self.own.slot));
            if let Some(rung) = state.rung.get_mut(slot) {
                *rung = get32(memory, theirs + said::RUNG);
            }
            put32(memory, ours + said::EVENT, get32(memory, theirs + said::TAKEN));
            put32(memory, ours + said::TAKEN, get32(memory, theirs + said::EVENT));
        }
        put64(memory, page + control::STATE, u64::from(self.own.incarnation) << 32 | control::PRESENT);
        self.look_at_peers(&mut state);
        self.ring_all(&state);
    }

    fn ring_all(&self, state: &State) {
        (0..self.geometry.slots())
            .filter_map(|slot| state.peers.at(slot))
            .for_each(|peer| self.user.voice.ring(peer));
    }

    fn say_vlans(&self, vlans: &[VlanId]) {
        let page = self.geometry.control(self.own.slot) + control::VLANS;
        let vlan = |at| vlans.get(at).map_or(0, |vlan: &VlanId| u32::from(vlan.0));
        for pair in 0..control::MAX_VLANS / 2 {
            put32(self.attachment.memory(), page + 4 * pair, vlan(2 * pair + 1) << 16 | vlan(2 * pair));
        }
    }

    /// Looks who is there.
    fn look_at_peers(&self, state: &mut State) -> bool {
        let mut has_ended = false;
        for slot in 0..self.geometry.slots() {
            has_ended |= state.peers.look(&*self.attachment, &self.geometry, slot);
        }
        if has_ended {
            state.shelf.ended();
            state.targets.retain(|_, target| !target.owner.has_ended());
        }
        has_ended
    }

    /// Takes in what others have signalled; says whether there was anything.
    fn look(&self, state: &mut State) -> bool {
        let has_ended = self.look_at_peers(state);
        let mut by = 0u64;
        for (slot, seen) in state.rung.iter_mut().enumerate() {
            let said = self.geometry.said(slot, self.own.slot);
            let rung = get32(self.attachment.memory(), said + said::RUNG);
            if rung != *seen {
                *seen = rung;
                by |= 1 << slot;
            }
        }
        if by != 0 {
            state.shelf.signalled(by);
            (0..self.geometry.slots())
                .filter(|slot| by >> slot & 1 != 0)
                .for_each(|slot| self.take_event(state, slot));
        } else {
            state.shelf.sweep();
        }
        has_ended || by != 0
    }

    /// Takes in what the endpoint of this slot has sent, if nothing of it is waiting; else it stays where it is.
    fn take_event(&self, state: &mut State, slot: usize) {
        let Some(peer) = state.peers.at(slot) else { return };
        let memory = self.attachment.memory();
        let (ours, theirs) =
            (self.geometry.said(self.own.slot, slot), self.geometry.said(slot, self.own.slot));
        let number = get32(memory, theirs + said::EVENT);
        if number == get32(memory, ours + said::TAKEN) || state.events.iter().any(|(of, _)| *of == slot) {
            return;
        }
        let (code, data) = (get32(memory, theirs + said::CODE), get64(memory, theirs + said::DATA));
        state.events.push_back((slot, Event::Software { from: peer.gid, code, data }));
        put32(memory, ours + said::TAKEN, number);
    }

    /// Sends an event.
    fn send_event(&self, peer: &Peer, code: u32, data: u64) -> Result<(), DeviceError> {
        let memory = self.attachment.memory();
        let (ours, theirs) =
            (self.geometry.said(self.own.slot, peer.slot), self.geometry.said(peer.slot, self.own.slot));
        let last = get32(memory, ours + said::EVENT);
        if get32(memory, theirs + said::TAKEN) != last {
            return Err(DeviceError::Busy);
        }
        put64(memory, ours + said::DATA, data);
        put32(memory, ours + said::CODE, code);
        put32(memory, ours + said::EVENT, last.wrapping_add(1));
        self.user.voice.ring(peer);
        Ok(())
    }

    /// The DMB of another endpoint that has this token.
    fn target(&self, state: &mut State, token: DmbToken) -> Result<Arc<Target>, DeviceError> {
        if let Some(target) = state.targets.get(&token).filter(|target| target.is_there()) {
            return Ok(target.clone());
        }
        state.targets.remove(&token);
        let slot = TokenParts::of(token).slot;
        if state.peers.look(&*self.attachment, &self.geometry, slot) {
            state.shelf.ended();
        }
        let owner = state.peers.at(slot).ok_or(DeviceError::UnknownToken(token))?;
        let (attachment, vlans) = (&*self.attachment, &state.vlans);
        let found = Target::find(attachment, &self.geometry, owner, &self.user, vlans, token)?;
        if state.targets.len() >= state.target_limit {
            state.targets.retain(|_, target| target.is_there());
            state.target_limit = state.targets.len() * 2 + FEW_TARGETS;
        }
        let target = Arc::new(found);
        state.targets.insert(token, target.clone());
        Ok(target)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // In a child it is still the parent's, and so is the thread.
        if self.of.is_past() {
            return;
        }
        let page = self.geometry.control(self.own.slot);
        put64(self.attachment.memory(), page + control::STATE, u64::from(self.own.incarnation) << 32);
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for slot in 0..self.geometry.slots() {
            if let Some(peer) = state.peers.at(slot) {
                self.user.voice.ring(peer);
            }
        }
        self.attachment.wake();
    }
}

impl Device for Region {
    fn fabric_id(&self) -> Chid {
        self.0.geometry.fabric()
    }

    fn gid(&self) -> Gid {
        self.0.own.gid
    }

    fn query_remote_gid(&self, gid: Gid, vlan: Option<VlanId>) -> Result<(), DeviceError> {
        self.check_own()?;
        let mut state = self.0.state();
        self.0.look_at_peers(&mut state);
        let peer = state.peers.of_gid(gid).ok_or(DeviceError::Unreachable(gid))?;
        let has_vlan = |vlan| has_vlan(&*self.0.attachment, &self.0.geometry, peer.slot, vlan);
        if vlan.is_none_or(has_vlan) { Ok(()) } else { Err(DeviceError::Unreachable(gid)) }
    }

    fn max_dmbs(&self) -> usize {
        self.0.geometry.entries()
    }

    fn memory_left(&self, _user: Gid, _uid: Option<u32>) -> usize {
        if self.check_own().is_err() {
            return 0;
        }
        self.0.state().shelf.left()
    }

    fn register_dmb(&self, user: Gid, len: usize, vlan: Option<VlanId>) -> Result<Dmb, DeviceError> {
        self.check_own()?;
        if len == 0 || !len.is_multiple_of(PAGE) {
            return Err(DeviceError::OutOfRange { offset: 0, len, size: self.0.geometry.bytes() });
        }
        let mut state = self.0.state();
        self.0.look_at_peers(&mut state);
        let State { peers, shelf, .. } = &mut *state;
        let user = peers.of_gid(user).ok_or(DeviceError::Unreachable(user))?;
        let Made { token, index, memory, interrupt } = shelf.make(user, len, vlan)?;
        let (interrupt, device) = (Box::new(interrupt), Arc::new(self.clone()));
        Ok(Dmb { token, index, len, memory, interrupt, mark: None, device })
    }

    fn unregister_dmb(&self, token: DmbToken) -> Result<(), DeviceError> {
        self.check_own()?;
        self.0.state().shelf.give_back(token)
    }

    fn supports_attach(&self) -> bool {
        self.0.manner == Manner::Mapping
    }

    fn attach_dmb(&self, owner: Gid, token: DmbToken, len: usize) -> Result<RemoteDmb, DeviceError> {
        self.check_own()?;
        if !self.supports_attach() {
            return Err(DeviceError::Unsupported);
        }
        let target = self.0.target(&mut self.0.state(), token)?;
        if target.owner.gid != owner {
            return Err(DeviceError::UnknownToken(token));
        }
        if target.memory.len() != len {
            return Err(DeviceError::OutOfRange { offset: 0, len, size: target.memory.len() });
        }
        if target.owner.is_signalled() {
            return Err(DeviceError::Unsupported);
        }
        let (memory, doorbell) = (target.memory.clone(), Box::new(target.hold(self.clone())?));
        Ok(RemoteDmb { owner, token, len, memory, doorbell, mark: None })
    }

    fn move_data(
        &self,
        token: DmbToken,
        _index: u8,
        signal: bool,
        offset: usize,
        data: &[u8],
    ) -> Result<(), DeviceError> {
        self.check_own()?;
        let target = self.0.target(&mut self.0.state(), token)?;
        target.write(signal, offset, data)
    }

    fn add_vlan_id(&self, vlan: VlanId) -> Result<(), DeviceError> {
        self.check_own()?;
        let mut state = self.0.state();
        if vlan == VlanId::ISM_V2 || state.vlans.contains(&vlan) {
            return Ok(());
        }
        if vlan.0 == 0 || state.vlans.len() >= control::MAX_VLANS {
            return Err(DeviceError::Unsupported);
        }
        state.vlans.push(vlan);
        self.0.say_vlans(&state.vlans);
        Ok(())
    }

    fn signal_event(&self, gid: Gid, code: u32, data: u64) -> Result<(), DeviceError> {
        self.check_own()?;
        let mut state = self.0.state();
        self.0.look_at_peers(&mut state);
        let peer = state.peers.of_gid(gid).ok_or(DeviceError::Unreachable(gid))?;
        self.0.send_event(peer, code, data)
    }

    fn take_event(&self) -> Option<Event> {
        self.check_own().ok()?;
        let mut state = self.0.state();
        let (slot, event) = state.events.pop_front()?;
        // Behind those of the others.
        self.0.take_event(&mut state, slot);
        Some(event)
    }

    fn del_vlan_id(&self, vlan: VlanId) -> Result<(), DeviceError> {
        self.check_own()?;
        let mut state = self.0.state();
        state.vlans.retain(|known| *known != vlan);
        self.0.say_vlans(&state.vlans);
        Ok(())
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("gid", &self.0.own.gid)
            .field("slot", &self.0.own.slot)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
