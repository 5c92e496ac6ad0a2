//! The loopback device of this process.

use std::{
    collections::{BTreeSet, HashMap, HashSet, hash_map::Entry},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{
    inbox::Inbox,
    link::{self, Link},
    offer::{Offer, mark_of},
};
use crate::{
    dibs::{
        BadDmb, Cause, Chid, Device, DeviceError, Dmb, DmbToken, Doorbell, Gid, Memory, RemoteDmb, VlanId,
        bell::{Bell, BellInterrupt},
        order,
    },
    unix::{Generation, closer, name::Name},
};

/// Fabric id of the loopback fabric between processes.
///
/// From the range of emulated fabrics (128-bit GIDs), and not Linux' own 0xFFFF: that one's DMBs are kernel memory,
/// which no process can join.
pub const LOOPBACK_FABRIC: Chid = Chid(0xff53);

/// DMBs consist of whole pages.
const PAGE: usize = 4096;

/// Links that we keep open without a DMB behind them.
const MAX_IDLE_LINKS: usize = 256;

/// How much memory a device gives away for DMBs. Beyond it connections stay TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmbLimits {
    /// DMBs at once.
    pub dmbs: usize,
    /// Bytes of all DMBs together.
    pub bytes: usize,
    /// Bytes of all DMBs whose users run under one user id.
    pub bytes_per_uid: usize,
}

/// 32,768 DMBs; a quarter of the machine's memory; half of that for one user id.
impl Default for DmbLimits {
    fn default() -> Self {
        let info = rustix::system::sysinfo();
        let ram = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit));
        let bytes = usize::try_from(ram / 4).unwrap_or(usize::MAX);
        Self { dmbs: 32_768, bytes, bytes_per_uid: bytes / 2 }
    }
}

/// The loopback device of this process, or one of several (each with its own GID). Cheap to clone.
#[derive(Clone)]
pub struct Loopback(Arc<Inner>);

struct Inner {
    /// The process whose device it is.
    of: Generation,
    gid: Gid,
    uid: u32,
    limits: DmbLimits,
    /// Where it is to be found too, by processes of other network namespaces.
    directory: Option<PathBuf>,
    state: Mutex<State>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // In a child it is still the parent's.
        if self.of.is_past() {
            return;
        }
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Entrance::Open(name) = &state.entrance {
            name.remove();
        }
    }
}

/// The name in the directory.
#[derive(Debug)]
enum Entrance {
    /// There is none as long as nobody needs it: it would outlive a process that is killed.
    NotYet,
    Open(Name),
    /// It cannot be.
    Failed,
}

struct State {
    inbox: Inbox,
    entrance: Entrance,
    own: HashMap<DmbToken, Own>,
    indexes: Indexes,
    bytes: usize,
    bytes_of_uid: HashMap<u32, usize>,
    /// Links that we opened, by the GID of the user at the other end.
    links: HashMap<Gid, Link>,
    /// Where `move_data` goes for DMBs that we attached.
    attached: HashMap<DmbToken, Weak<Target>>,
    attached_limit: usize,
    /// DMBs that `move_data` found for itself, until they are withdrawn or attached.
    moved: HashMap<DmbToken, Arc<Target>>,
}

/// A DMB that is not entered yet.
struct Made {
    token: DmbToken,
    user: Gid,
    uid: u32,
    offer: Offer,
    memory: Arc<Memory>,
    interrupt: BellInterrupt,
}

struct Own {
    index: u32,
    user: Gid,
    uid: u32,
    bytes: usize,
}

/// What a user needs to write into a DMB.
#[derive(Debug)]
struct Target {
    owner: Gid,
    memory: Arc<Memory>,
    doorbell: Bell,
    len: usize,
}

impl Target {
    fn new(owner: Gid, offer: Offer) -> Result<Arc<Self>, DeviceError> {
        let len = offer.len;
        let (memory, socket) = offer.map()?;
        let doorbell = Bell::new(memory.clone(), len, socket)?;
        Ok(Arc::new(Self { owner, memory, doorbell, len }))
    }
}

impl Doorbell for Arc<Target> {
    #[inline]
    fn ring(&self, cause: Cause) -> bool {
        self.doorbell.ring(cause)
    }

    fn is_hung_up(&self) -> bool {
        self.doorbell.is_hung_up()
    }
}

/// Hands out the lowest free index.
#[derive(Default)]
struct Indexes {
    free: BTreeSet<u32>,
    next: u32,
}

impl Indexes {
    fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }
}

impl Loopback {
    /// A new device with a random GID, reachable by every process of this network namespace.
    ///
    /// # Errors
    /// If the system has no random numbers, descriptors or memory left.
    pub fn new(limits: DmbLimits) -> Result<Self, DeviceError> {
        Self::with_directory(limits, None)
    }

    /// As [`Loopback::new`]. In the directory, if one is given, it is found by processes of other network namespaces
    /// too, from the first handshake in band on ([`Device::tend`]); who may write to it is trusted not to keep them from
    /// finding each other.
    ///
    /// # Errors
    /// As [`Loopback::new`].
    pub fn with_directory(limits: DmbLimits, directory: Option<PathBuf>) -> Result<Self, DeviceError> {
        let gid = Gid::random()?;
        let listener = link::listen_as(gid)?;
        let uid = rustix::process::geteuid().as_raw();
        let (of, state) = (Generation::current(), Mutex::new(State::new(Inbox::new(listener))));
        Ok(Self(Arc::new(Inner { of, gid, uid, limits, directory, state })))
    }

    /// Makes sure that the device is this process' own. In a child, GID and tokens are those of the parent, and a lock
    /// may be held by a thread that is not there.
    fn check_own(&self) -> Result<(), DeviceError> {
        if self.0.of.is_past() { Err(DeviceError::Inherited) } else { Ok(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code under the lock panics with the state half changed.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The DMB of this token, attached or not.
    fn target(&self, token: DmbToken) -> Result<Arc<Target>, DeviceError> {
        let mut state = self.state();
        if let Some(target) = state.attached.get(&token).and_then(Weak::upgrade) {
            return Ok(target);
        }
        if let Some(target) = state.moved.get(&token).filter(|target| !target.doorbell.is_hung_up()) {
            return Ok(target.clone());
        }
        state.inbox.take_in();
        let owner = state.inbox.owner_of(token).ok_or(DeviceError::UnknownToken(token))?;
        let offer = state.inbox.claim(owner, token).ok_or(DeviceError::UnknownToken(token))?;
        let target = Target::new(owner, offer)?;
        state.moved.retain(|_, target| !target.doorbell.is_hung_up());
        state.moved.insert(token, target.clone());
        Ok(target)
    }

    /// Makes the memory of a DMB for `user`, within the limits of `uid`. Nobody knows of it yet.
    fn make(&self, state: &mut State, user: Gid, uid: u32, len: usize) -> Result<Made, DeviceError> {
        if len == 0 || !len.is_multiple_of(PAGE) {
            return Err(DeviceError::OutOfRange { offset: 0, len, size: self.0.limits.bytes });
        }
        state.check_limits(&self.0.limits, uid, len)?;
        let token = state.new_token()?;
        let (offer, memory, socket) = Offer::make(len)?;
        let interrupt = BellInterrupt::new(memory.clone(), len, socket)?;
        Ok(Made { token, user, uid, offer, memory, interrupt })
    }

    /// Enters a DMB that its user has got, or is about to get.
    fn enter(&self, state: &mut State, made: Made) -> (Dmb, Offer) {
        let Made { token, user, uid, offer, memory, interrupt } = made;
        let index = state.enter(token, user, uid, offer.len);
        let (interrupt, device) = (Box::new(interrupt), Arc::new(self.clone()));
        let (len, mark) = (offer.len, Some(mark_of(offer.len)));
        (Dmb { token, index, len, memory, interrupt, mark, device }, offer)
    }

    /// Uid of the process behind `user`; opens a link to it if there is none.
    fn reach(&self, state: &mut State, user: Gid) -> Result<u32, DeviceError> {
        if user == self.0.gid {
            return Ok(self.0.uid);
        }
        match state.links.entry(user) {
            Entry::Occupied(link) if !link.get().is_closed() => return Ok(link.get().uid),
            Entry::Occupied(link) => {
                link.remove();
            }
            Entry::Vacant(_) => {}
        }
        // The moment to let go of processes that have died, and of those that nothing has come of.
        state.links.retain(|_, link| !link.is_closed());
        if state.links.len() >= state.own.len() + MAX_IDLE_LINKS {
            let users: HashSet<Gid> = state.own.values().map(|own| own.user).collect();
            state.links.retain(|user, _| users.contains(user));
        }
        let link = Link::open(self.0.gid, user, self.0.directory.as_deref())?;
        let uid = link.uid;
        state.links.insert(user, link);
        Ok(uid)
    }
}

impl Loopback {
    /// Makes the name in the directory, at first use.
    fn open_entrance(&self, state: &mut State) {
        let (Some(directory), Entrance::NotYet) = (&self.0.directory, &state.entrance) else { return };
        state.entrance = match link::listen_in(directory, self.0.gid) {
            Ok((listener, name)) => {
                state.inbox.add_listener(listener);
                Entrance::Open(name)
            }
            Err(error) => {
                tracing::warn!(dir = %directory.display(), %error, "no name in the runtime directory");
                Entrance::Failed
            }
        };
    }
}

impl State {
    fn new(inbox: Inbox) -> Self {
        Self {
            inbox,
            entrance: Entrance::NotYet,
            own: HashMap::new(),
            indexes: Indexes::default(),
            bytes: 0,
            bytes_of_uid: HashMap::new(),
            links: HashMap::new(),
            attached: HashMap::new(),
            attached_limit: 0,
            moved: HashMap::new(),
        }
    }

    /// A token that no DMB of ours has.
    fn new_token(&self) -> Result<DmbToken, DeviceError> {
        loop {
            let token = DmbToken(getrandom::u64().map_err(std::io::Error::from)?);
            if !self.own.contains_key(&token) {
                return Ok(token);
            }
        }
    }

    /// How many bytes of DMBs may still be made for a user of this uid.
    fn check_limits(&self, limits: &DmbLimits, uid: u32, requested: usize) -> Result<(), DeviceError> {
        if self.own.len() >= limits.dmbs {
            return Err(DeviceError::NoFreeDmb(limits.dmbs));
        }
        let available = self.bytes_left(limits, uid);
        if requested > available {
            return Err(DeviceError::OutOfMemory { requested, available });
        }
        Ok(())
    }

    fn bytes_left(&self, limits: &DmbLimits, uid: u32) -> usize {
        let of_uid = self.bytes_of_uid.get(&uid).copied().unwrap_or(0);
        limits.bytes.saturating_sub(self.bytes).min(limits.bytes_per_uid.saturating_sub(of_uid))
    }

    fn enter(&mut self, token: DmbToken, user: Gid, uid: u32, bytes: usize) -> u32 {
        let index = self.indexes.take();
        self.bytes += bytes;
        *self.bytes_of_uid.entry(uid).or_default() += bytes;
        self.own.insert(token, Own { index, user, uid, bytes });
        index
    }

    fn leave(&mut self, token: DmbToken) -> Result<(), DeviceError> {
        let own = self.own.remove(&token).ok_or(DeviceError::UnknownToken(token))?;
        self.indexes.free.insert(own.index);
        self.bytes = self.bytes.saturating_sub(own.bytes);
        if let Entry::Occupied(mut of_uid) = self.bytes_of_uid.entry(own.uid) {
            *of_uid.get_mut() = of_uid.get().saturating_sub(own.bytes);
            if *of_uid.get() == 0 {
                of_uid.remove();
            }
        }
        Ok(())
    }

    fn attach(
        &mut self,
        owner: Gid,
        token: DmbToken,
        len: usize,
        target: Arc<Target>,
    ) -> Result<RemoteDmb, DeviceError> {
        if target.len != len {
            return Err(DeviceError::OutOfRange { offset: 0, len, size: target.len });
        }
        self.remember(token, &target);
        let (memory, mark) = (target.memory.clone(), Some((mark_of(len), order())));
        Ok(RemoteDmb { owner, token, len, memory, doorbell: Box::new(target), mark })
    }

    /// Makes an attached DMB known to `move_data`.
    fn remember(&mut self, token: DmbToken, target: &Arc<Target>) {
        // Clearing out detached ones each time the map has doubled costs a constant for each attachment.
        if self.attached.len() >= self.attached_limit {
            self.attached.retain(|_, target| target.strong_count() > 0);
            self.attached_limit = self.attached.len() * 2 + 64;
        }
        self.attached.insert(token, Arc::downgrade(target));
    }
}

impl Device for Loopback {
    fn fabric_id(&self) -> Chid {
        LOOPBACK_FABRIC
    }

    fn gid(&self) -> Gid {
        self.0.gid
    }

    /// Loopback knows no VLANs; `vlan` is ignored, as in Linux.
    fn query_remote_gid(&self, gid: Gid, _vlan: Option<VlanId>) -> Result<(), DeviceError> {
        self.check_own()?;
        self.reach(&mut self.state(), gid).map(drop)
    }

    fn tend(&self) {
        if self.check_own().is_err() {
            return;
        }
        let mut state = self.state();
        self.open_entrance(&mut state);
        state.inbox.take_in();
    }

    fn max_dmbs(&self) -> usize {
        self.0.limits.dmbs
    }

    fn memory_left(&self, user: Gid, uid: Option<u32>) -> usize {
        if self.check_own().is_err() {
            return 0;
        }
        let mut state = self.state();
        let uid = uid.map_or_else(|| self.reach(&mut state, user), Ok);
        uid.map_or(0, |uid| state.bytes_left(&self.0.limits, uid))
    }

    fn register_dmb(&self, user: Gid, len: usize, _vlan: Option<VlanId>) -> Result<Dmb, DeviceError> {
        self.check_own()?;
        let mut state = self.state();
        let uid = self.reach(&mut state, user)?;
        let made = self.make(&mut state, user, uid, len)?;
        if user != self.0.gid {
            let link = state.links.get(&user).ok_or(DeviceError::Unreachable(user))?;
            link.announce(made.token, &made.offer)?;
        }
        let (dmb, offer) = self.enter(&mut state, made);
        if user == self.0.gid {
            state.inbox.hold_own(user, dmb.token, offer);
        }
        Ok(dmb)
    }

    fn unregister_dmb(&self, token: DmbToken) -> Result<(), DeviceError> {
        self.check_own()?;
        let mut state = self.state();
        state.leave(token)?;
        // Its user finds out by the doorbell, whose other end goes with the DMB.
        state.inbox.drop_own(self.0.gid, token);
        state.moved.remove(&token);
        Ok(())
    }

    fn supports_attach(&self) -> bool {
        true
    }

    fn attach_dmb(&self, owner: Gid, token: DmbToken, len: usize) -> Result<RemoteDmb, DeviceError> {
        self.check_own()?;
        let mut state = self.state();
        state.inbox.take_in();
        let moved = state
            .moved
            .remove(&token)
            .filter(|target| target.owner == owner && !target.doorbell.is_hung_up());
        let target = match moved {
            Some(target) => target,
            None => {
                let offer = state.inbox.claim(owner, token).ok_or(DeviceError::UnknownToken(token))?;
                Target::new(owner, offer)?
            }
        };
        state.attach(owner, token, len, target)
    }

    fn supports_handover(&self) -> bool {
        true
    }

    fn register_handover(&self, user: Gid, uid: u32, len: usize) -> Result<(Dmb, Vec<OwnedFd>), DeviceError> {
        self.check_own()?;
        let mut state = self.state();
        let made = self.make(&mut state, user, uid, len)?;
        let (dmb, offer) = self.enter(&mut state, made);
        Ok((dmb, offer.into_fds()))
    }

    fn attach_handover(
        &self,
        owner: Gid,
        token: DmbToken,
        len: usize,
        fds: Vec<OwnedFd>,
    ) -> Result<RemoteDmb, DeviceError> {
        if let Err(inherited) = self.check_own() {
            closer::discard(fds);
            return Err(inherited);
        }
        if fds.is_empty() {
            return Err(DeviceError::UnknownToken(token));
        }
        let offer = Offer::from_fds(fds, len).map_err(|fds| {
            let n = fds.len();
            closer::discard(fds);
            BadDmb::Descriptors(n)
        })?;
        if let Some(flaw) = offer.flaw() {
            closer::discard(offer.into_fds());
            return Err(flaw.into());
        }
        let target = Target::new(owner, offer)?;
        self.state().attach(owner, token, len, target)
    }

    fn move_data(
        &self,
        token: DmbToken,
        _index: u8,
        signal: bool,
        offset: usize,
        data: &[u8],
    ) -> Result<(), DeviceError> {
        let target = self.target(token)?;
        if offset.checked_add(data.len()).is_none_or(|end| end > target.len) {
            return Err(DeviceError::OutOfRange { offset, len: data.len(), size: target.len });
        }
        target.memory.write(offset, data)?;
        if signal {
            Cause::ALL.into_iter().for_each(|cause| _ = target.ring(cause));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Loopback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loopback").field("gid", &self.0.gid).finish_non_exhaustive()
    }
}
