//! A function as a device.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustix::event::{PollFd, PollFlags, poll};

use super::{
    IsmError,
    addresses::Addresses,
    command::{Answer, Request},
    dmbs::{self, Dmbs, Owned, Room},
    events::{Notice, Reader},
    function::{CommandError, Function},
    signals,
    store::{Address, PAGE, SEGMENT, is_token, pieces},
    transport::{Description, Transport, at, region},
};
use crate::dibs::{
    Chid, Device, DeviceError, Dmb, DmbToken, Event, Gid, Memory, PnetId, VlanId, eventfd::Eventfd,
};

/// Events that wait for somebody who takes them; more are lost. Of ends there can be as many again.
const MAX_EVENTS: usize = 64;

/// Events that are read at a time.
const BURST: usize = 32;

/// An ISM function. Cheap to clone; with the last clone, and the last DMB, it is given back.
///
/// It has a thread, which waits for the interrupt of the function and hands signals to those who wait for them.
#[derive(Clone)]
pub struct Ism(Arc<Inner>);

struct Inner {
    function: Function,
    description: Description,
    gid: Gid,
    /// The function has the VLAN that stands for SMC-D version 2.
    is_v2: bool,
    signals: Arc<Memory>,
    queue: Arc<Memory>,
    state: Mutex<State>,
    /// How many want each VLAN. Held while the function is told.
    vlans: Mutex<HashMap<VlanId, usize>>,
    /// Wakes the thread.
    call: Arc<Eventfd>,
    /// For the thread.
    is_over: Arc<AtomicBool>,
}

struct State {
    dmbs: Dmbs,
    reader: Reader,
    events: VecDeque<Event>,
    /// How many functions have gone, or users of DMBs that are not known.
    endings: u64,
}

impl Ism {
    /// Takes a function into use.
    ///
    /// # Errors
    /// If it is no ISM function, or does not do what it is told.
    pub fn open(transport: Arc<dyn Transport>) -> Result<Self, IsmError> {
        let description = transport.description();
        let mut addresses = Addresses::new(description.window.clone());
        if description.max_store == 0 || addresses.left() < SEGMENT as u64 {
            return Err(IsmError::Useless);
        }
        let mut function = Function::new(transport)?;
        let interrupt = Eventfd::new()?;
        let (signals, queue) = function.begin(&mut addresses, &interrupt)?;
        let Answer::Gid(gid) = function.call(&Request::ReadGid).map_err(DeviceError::from)? else {
            return Err(DeviceError::Lost.into());
        };
        let is_v2 = function.call(&Request::AddVlan(VlanId::ISM_V2.0.into())).is_ok();
        let state = State {
            dmbs: Dmbs::new(addresses),
            reader: Reader::default(),
            events: VecDeque::new(),
            endings: 0,
        };
        let inner = Arc::new(Inner {
            function,
            description,
            gid: Gid::from_halves(gid, 0),
            is_v2,
            signals,
            queue,
            state: Mutex::new(state),
            vlans: Mutex::new(HashMap::new()),
            call: Arc::new(Eventfd::new()?),
            is_over: Arc::new(AtomicBool::new(false)),
        });
        serve(&inner, interrupt)?;
        Ok(Self(inner))
    }

    /// True if the function does not answer any more.
    pub fn is_lost(&self) -> bool {
        self.0.function.is_lost()
    }
}

/// Starts the thread that waits for the function.
fn serve(inner: &Arc<Inner>, interrupt: Eventfd) -> Result<(), IsmError> {
    let (call, is_over) = (inner.call.clone(), inner.is_over.clone());
    let transport = inner.function.transport_handle();
    let inner = Arc::downgrade(inner);
    thread::Builder::new().name("smcd-ism".into()).spawn(move || {
        while !is_over.load(Ordering::Acquire) {
            let has_ended = wait(&interrupt, &call, &*transport);
            let Some(inner) = Weak::upgrade(&inner) else { break };
            inner.look();
            if has_ended {
                inner.lose();
                break;
            }
        }
    })?;
    Ok(())
}

/// Waits until there is something to look at; true if it is the end of the function.
fn wait(interrupt: &Eventfd, call: &Eventfd, transport: &dyn Transport) -> bool {
    let mut fds: Vec<_> = [interrupt.as_fd(), call.as_fd()]
        .into_iter()
        .chain(transport.end())
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    let polled = poll(&mut fds, None);
    interrupt.clear();
    call.clear();
    polled.is_ok() && fds.get(2).is_some_and(|end| !end.revents().is_empty())
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code under the lock panics with the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<(), DeviceError> {
        if self.function.is_inherited() {
            return Err(DeviceError::Inherited);
        }
        if self.function.is_lost() { Err(DeviceError::Lost) } else { Ok(()) }
    }

    /// Gives a command. Who does not answer is not asked again.
    fn call(&self, request: &Request) -> Result<Answer, CommandError> {
        let answer = self.function.call(request);
        if answer == Err(CommandError::Lost) {
            self.lose();
        }
        answer
    }

    /// The function is gone, so no signal will ever come.
    fn lose(&self) {
        self.function.set_lost();
        self.state().dmbs.hang_up(|_, _| true);
    }

    /// Takes in what the function has written.
    fn look(&self) {
        let mut state = self.state();
        if let Ok(signalled) = signals::take(&self.signals) {
            signalled.indexes.into_iter().for_each(|index| state.dmbs.ring(index));
        }
        // Whether events were signalled or not: it takes one look.
        if let Err(DeviceError::Lost) = self.read_events(&mut state) {
            drop(state);
            self.lose();
        }
    }

    fn read_events(&self, state: &mut State) -> Result<(), DeviceError> {
        for _ in 0..BURST {
            match state.reader.next(&self.queue) {
                Ok(Some(entry)) => self.heed(state, entry.notice())?,
                Ok(None) => return Ok(()),
                Err(error) => {
                    tracing::warn!(%error, "the event queue of an ISM function is no queue");
                    return Err(DeviceError::Lost);
                }
            }
        }
        // Others may want the state too.
        self.call.ring();
        Ok(())
    }

    fn heed(&self, state: &mut State, notice: Notice) -> Result<(), DeviceError> {
        match notice {
            Notice::UserGone { token } => {
                // One that is only just being registered is asked for once more.
                state.endings += u64::from(!state.dmbs.has(DmbToken(token)));
                state.dmbs.hang_up(|other, _| other.0 == token);
            }
            Notice::FunctionGone { gid } if gid == self.gid.high() => return Err(DeviceError::Lost),
            Notice::FunctionGone { gid } => {
                state.endings += 1;
                state.dmbs.hang_up(|_, dmb| dmb.user == gid);
                let gone = Event::Gone(Gid::from_halves(gid, 0));
                if state.events.len() < 2 * MAX_EVENTS && !state.events.contains(&gone) {
                    state.events.push_back(gone);
                }
            }
            Notice::Software { from, code, info } => {
                if state.events.len() < MAX_EVENTS {
                    let from = Gid::from_halves(from, 0);
                    state.events.push_back(Event::Software { from, code, data: info });
                } else {
                    tracing::warn!(code, "an event of an ISM function is lost, for nobody takes them");
                }
            }
            Notice::Other => {}
        }
        Ok(())
    }

    /// Asks whether a function can be reached.
    fn query(&self, gid: Gid, vlan: Option<VlanId>) -> Result<(), DeviceError> {
        let unreachable = DeviceError::Unreachable(gid);
        if gid.low() != 0 || vlan == Some(VlanId::ISM_V2) && !self.is_v2 {
            return Err(unreachable);
        }
        match self.call(&Request::QueryRemote { gid: gid.high(), vlan }) {
            Ok(_) => Ok(()),
            Err(CommandError::Refused { .. }) => Err(unreachable),
            Err(CommandError::Lost) => Err(DeviceError::Lost),
        }
    }

    /// As [`Inner::query`]; without a VLAN in whichever way there is. First in that of version 2: a function may refuse to be
    /// asked in none.
    fn reach(&self, gid: Gid, vlan: Option<VlanId>) -> Result<(), DeviceError> {
        if vlan.is_none() && self.is_v2 {
            match self.query(gid, Some(VlanId::ISM_V2)) {
                Err(DeviceError::Unreachable(_)) => {}
                other => return other,
            }
        }
        self.query(gid, vlan)
    }

    /// Makes memory known to the function.
    fn register(&self, room: &Room, user: u64) -> Result<(DmbToken, Arc<Memory>), DeviceError> {
        let memory = self.function.transport().map(room.iova, room.len)?;
        // At most a segment.
        let (len, index) = (room.len as u32, room.index.into());
        // In no VLAN, as Linux has it.
        match self.call(&Request::RegisterDmb { iova: room.iova, len, index, vlan: None, user }) {
            Ok(Answer::Token(token)) if is_token(DmbToken(token)) => Ok((DmbToken(token), memory)),
            Ok(_) => {
                tracing::warn!("an ISM function names a buffer by what is no token");
                self.lose();
                Err(DeviceError::Lost)
            }
            Err(error) => {
                // What does not let go of an address cannot be given another.
                if self.function.transport().unmap(room.iova, room.len).is_err() {
                    self.lose();
                }
                Err(error.into())
            }
        }
    }

    /// Takes the memory of a DMB away from the function, which does not know it any more.
    fn release(&self, state: &mut State, dmb: Owned) {
        let Room { index, iova, len } = dmb.room;
        if self.function.transport().unmap(iova, len).is_err() && !self.function.is_lost() {
            state.dmbs.keep(dmb);
            return;
        }
        // A signal for it may have come that was not looked at; the next DMB of this index has nothing to do with it.
        let _ = signals::clear(&self.signals, index);
        state.dmbs.give_back(&dmb.room);
    }

    /// A store block was refused: by the function, or because there is none any more.
    fn refused(&self, token: DmbToken, offset: usize, len: usize) -> DeviceError {
        match self.call(&Request::ReadGid) {
            Ok(Answer::Gid(gid)) if gid == self.gid.high() => {
                DeviceError::StoreRefused { token, offset, len }
            }
            _ => {
                self.lose();
                DeviceError::Lost
            }
        }
    }

    fn vlans(&self) -> MutexGuard<'_, HashMap<VlanId, usize>> {
        self.vlans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // In a child the thread is still the parent's, and would be woken.
        if !self.function.is_inherited() {
            self.call.ring();
        }
    }
}

impl Device for Ism {
    fn fabric_id(&self) -> Chid {
        self.0.description.fabric
    }

    fn gid(&self) -> Gid {
        self.0.gid
    }

    fn pnetid(&self) -> Option<PnetId> {
        self.0.description.pnetid
    }

    fn speaks_v2(&self) -> bool {
        self.0.is_v2
    }

    fn is_lost(&self) -> bool {
        Self::is_lost(self)
    }

    fn query_remote_gid(&self, gid: Gid, vlan: Option<VlanId>) -> Result<(), DeviceError> {
        self.0.check()?;
        self.0.query(gid, vlan)
    }

    /// What the function has written and the thread has not read yet: who has a function that another had before has to know it.
    fn tend(&self) {
        if self.0.check().is_ok() {
            self.0.look();
        }
    }

    fn max_dmbs(&self) -> usize {
        signals::END.into()
    }

    fn memory_left(&self, _user: Gid, _uid: Option<u32>) -> usize {
        if self.0.check().is_err() {
            return 0;
        }
        self.0.state().dmbs.left()
    }

    fn register_dmb(&self, user: Gid, len: usize, vlan: Option<VlanId>) -> Result<Dmb, DeviceError> {
        let inner = &*self.0;
        inner.check()?;
        let endings = inner.state().endings;
        inner.reach(user, vlan)?;
        let (interrupt, ringer) = dmbs::interrupt()?;
        let room = inner.state().dmbs.reserve(len)?;
        let (token, memory) = match inner.register(&room, user.high()) {
            Ok(registered) => registered,
            Err(error) => {
                inner.state().dmbs.give_back(&room);
                return Err(error);
            }
        };
        let index = room.index.into();
        let mut state = inner.state();
        // Whoever loses the function says so first, and then hangs up.
        let ringer = (!inner.function.is_lost()).then_some(ringer);
        let owned = Owned { room, _memory: memory.clone(), user: user.high(), ringer };
        if state.dmbs.insert(token, owned).is_err() {
            drop(state);
            inner.lose();
            return Err(DeviceError::Lost);
        }
        let has_missed = state.endings != endings;
        drop(state);
        let device = Arc::new(self.clone());
        let dmb = Dmb { token, index, len, memory, interrupt: Box::new(interrupt), mark: None, device };
        if has_missed {
            // One that has gone since it was asked for would never be heard of. The DMB is given back by its drop.
            inner.reach(user, vlan)?;
        }
        Ok(dmb)
    }

    fn unregister_dmb(&self, token: DmbToken) -> Result<(), DeviceError> {
        let inner = &*self.0;
        if inner.function.is_inherited() {
            return Err(DeviceError::Inherited);
        }
        let dmb = inner.state().dmbs.remove(token).ok_or(DeviceError::UnknownToken(token))?;
        let answer = inner.call(&Request::UnregisterDmb { token: token.0 });
        let mut state = inner.state();
        match answer {
            Err(error @ CommandError::Refused { .. }) => {
                state.dmbs.keep(dmb);
                Err(error.into())
            }
            // One that is gone writes nowhere.
            Ok(_) | Err(CommandError::Lost) => {
                inner.release(&mut state, dmb);
                Ok(())
            }
        }
    }

    fn move_data(
        &self,
        token: DmbToken,
        index: u8,
        signal: bool,
        offset: usize,
        data: &[u8],
    ) -> Result<(), DeviceError> {
        let inner = &*self.0;
        inner.check()?;
        if !is_token(token) {
            return Err(DeviceError::UnknownToken(token));
        }
        let to = Address { token, element: index, signals: signal, offset };
        for piece in pieces(to, data.len(), inner.description.max_store.min(PAGE))? {
            let at = at(region::DATA, piece.address.emit());
            let data = data.get(piece.data).unwrap_or_default();
            if inner.function.transport().write(at, data).is_err() {
                return Err(inner.refused(token, piece.address.offset, data.len()));
            }
        }
        Ok(())
    }

    fn add_vlan_id(&self, vlan: VlanId) -> Result<(), DeviceError> {
        self.0.check()?;
        if vlan == VlanId::ISM_V2 {
            return if self.0.is_v2 { Ok(()) } else { Err(DeviceError::Unsupported) };
        }
        let mut vlans = self.0.vlans();
        if !vlans.contains_key(&vlan) {
            self.0.call(&Request::AddVlan(vlan.0.into()))?;
        }
        *vlans.entry(vlan).or_default() += 1;
        Ok(())
    }

    fn del_vlan_id(&self, vlan: VlanId) -> Result<(), DeviceError> {
        self.0.check()?;
        let mut vlans = self.0.vlans();
        match vlans.get_mut(&vlan) {
            None => {}
            Some(1) => {
                self.0.call(&Request::DelVlan(vlan.0.into()))?;
                vlans.remove(&vlan);
            }
            Some(users) => *users -= 1,
        }
        Ok(())
    }

    fn signal_event(&self, gid: Gid, code: u32, data: u64) -> Result<(), DeviceError> {
        self.0.check()?;
        if gid.low() != 0 {
            return Err(DeviceError::Unreachable(gid));
        }
        match self.0.call(&Request::Signal { gid: gid.high(), interrupts: true, code, info: data }) {
            Ok(_) => Ok(()),
            // It does not say why. There is little else that could be wrong.
            Err(CommandError::Refused { .. }) => Err(DeviceError::Unreachable(gid)),
            Err(CommandError::Lost) => Err(DeviceError::Lost),
        }
    }

    fn take_event(&self) -> Option<Event> {
        self.0.check().ok()?;
        self.0.state().events.pop_front()
    }
}

impl fmt::Debug for Ism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ism")
            .field("gid", &self.0.gid)
            .field("fabric", &self.0.description.fabric)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dibs::ism::soft::{SoftIsm, SoftIsmSettings};

    /// No event tells of a DMB twice. One that came before the DMB was entered must not be lost.
    #[test]
    fn the_end_of_an_unknown_user_is_counted() {
        let fabric = SoftIsm::new(&SoftIsmSettings::default()).unwrap();
        let [device, user] = [0, 1].map(|number| Ism::open(Arc::new(fabric.open(number).unwrap())).unwrap());
        let dmb = device.register_dmb(user.gid(), PAGE, None).unwrap();
        let after = |token: u64| {
            let mut state = device.0.state();
            device.0.heed(&mut state, Notice::UserGone { token }).unwrap();
            state.endings
        };
        assert_eq!(after(dmb.token().0), 0);
        assert!(dmb.interrupt().is_hung_up());
        assert_eq!(after(dmb.token().0 + (1 << 32)), 1);
    }
}
