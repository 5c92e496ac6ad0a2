//! Link groups: what two devices keep between their connections.
//!
//! A group stands for a pair of devices (and a VLAN). It keeps the buffers of connections that have ended, still
//! registered and mapped, so that the next connection between the two needs neither memory nor descriptors. The first
//! connection of a pair makes *first contact*; the later ones reuse the group.

use std::{
    collections::HashMap,
    mem,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{connection::Connection, cursor::CDC_LEN, group_event::shutdown, outlet::Outlet};
use crate::{
    clc::wire::{DmbeSize, LinkId},
    dibs::{Device, DeviceError, Dmb, DmbToken, Gid, RemoteDmb, VlanId},
    unix::Handed,
};

/// Buffers of either side that a group keeps for later.
const MAX_POOLED: usize = 64;

/// A buffer takes no more than this part of the memory that is left, or its part if the device can have fewer, unless it is of
/// the smallest size.
const FAIR_SHARE: usize = 1024;

/// Connections that we have closed and whose peer has not yet.
const MAX_LINGERING: usize = 256;

/// How long such a one is waited for: as long as Linux keeps a group without connections. The peer may still be reading, and says
/// so in our buffer.
const LINGER: Duration = Duration::from_secs(600);

/// How long if we aborted: as long as Linux waits to get rid of what was written. There is nothing to be read any more, and a
/// peer that was done writing may never say anything (`spec/close.md` §5.1).
const LINGER_ABORTED: Duration = Duration::from_secs(2);

/// The two devices of a group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Pair {
    /// Position of our device in the stack's list.
    pub(crate) device: usize,
    pub(crate) peer: Gid,
    pub(crate) reach: Reach,
}

impl Pair {
    /// True if it is our device at this position, and this peer.
    pub(crate) fn is_with(&self, device: usize, peer: Gid) -> bool {
        self.device == device && self.peer == peer
    }

    /// True if a peer that asks for a group of `other`, which has no VLAN, may mean this one.
    pub(crate) fn may_stand_for(&self, other: Self) -> bool {
        let by_fabric = matches!((self.reach, other.reach), (Reach::Fabric(_), Reach::Fabric(None)));
        by_fabric && self.is_with(other.device, other.peer)
    }
}

/// How buffers get to the peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Reach {
    /// The devices see to it. The VLAN is that of version 1 of SMC-D, and tells its groups apart; version 2 has none.
    Fabric(Option<VlanId>),
    /// They go as descriptors, by a channel that the connection has to a process of this user id. Part of what makes a
    /// group: a peer may claim another's GID, but not get at buffers of a group that is not of its own user.
    ByHand(u32),
}

/// A buffer for the peer to write into, with the descriptors that the peer has to get.
#[derive(Debug)]
pub(crate) struct Acquired {
    pub(crate) dmb: Arc<Dmb>,
    /// None for a buffer that the peer has already, or that the device brings to it.
    pub(crate) fds: Vec<OwnedFd>,
}

/// A link group.
#[derive(Debug)]
pub(crate) struct LinkGroup {
    device: Arc<dyn Device>,
    pair: Pair,
    link_id: LinkId,
    confirmed: AtomicBool,
    /// It was confirmed once.
    has_been_confirmed: AtomicBool,
    pool: Mutex<Pool>,
}

#[derive(Debug, Default)]
struct Pool {
    /// Buffers of ours, ready for use: only their CDC slots have to be cleared.
    free: Vec<Arc<Dmb>>,
    /// Buffers of the peer that no connection uses.
    remote: HashMap<DmbToken, Arc<RemoteDmb>>,
    /// Closed by us, and not yet by the peer: its last flags will still be written into our buffer.
    lingering: Vec<Lingering>,
}

#[derive(Debug)]
struct Lingering {
    connection: Arc<Connection>,
    /// From then on its buffers are not waited for: they are given back to the device.
    until: Instant,
}

impl Lingering {
    fn new(connection: Arc<Connection>) -> Self {
        // What is unread now makes an abort of the close.
        let aborts = connection.unread().is_ok_and(|unread| unread > 0);
        let until = Instant::now() + if aborts { LINGER_ABORTED } else { LINGER };
        Self { connection, until }
    }
}

impl LinkGroup {
    pub(crate) fn new(device: Arc<dyn Device>, pair: Pair, link_id: LinkId) -> Self {
        let [confirmed, has_been_confirmed] = [(); 2].map(|()| AtomicBool::new(false));
        Self { device, pair, link_id, confirmed, has_been_confirmed, pool: Mutex::default() }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        // A pool is in order between any two statements that hold it.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The two devices.
    pub(crate) fn pair(&self) -> Pair {
        self.pair
    }

    /// The number that our messages bear; nobody evaluates it.
    pub(crate) fn link_id(&self) -> LinkId {
        self.link_id
    }

    /// The device on our side.
    pub(crate) fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// True as long as both sides know of the group.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed.load(Ordering::Acquire)
    }

    /// True if both sides have known of the group, so that the other still may.
    pub(crate) fn has_been_confirmed(&self) -> bool {
        self.has_been_confirmed.load(Ordering::Acquire)
    }

    /// Both sides know of the group.
    pub(crate) fn confirm(&self) {
        self.has_been_confirmed.store(true, Ordering::Release);
        self.confirmed.store(true, Ordering::Release);
    }

    /// The other side may not know of the group.
    pub(crate) fn unconfirm(&self) {
        self.confirmed.store(false, Ordering::Release);
    }

    /// The other side says that it has let go of the group: it is not expected to use the buffers again.
    pub(crate) fn let_go(&self) {
        self.unconfirm();
        let (free, remote) = {
            let mut pool = self.pool();
            pool.reap();
            (mem::take(&mut pool.free), mem::take(&mut pool.remote))
        };
        // The device may take its time for them.
        drop((free, remote));
    }

    /// A buffer for the peer to write into: a used one if there is one of this size, else a new one. A smaller one as
    /// memory becomes scarce, so that many connections get some rather than a few much; and where a device does not want one of
    /// a size, whatever it says: the system's limits may be the reason.
    ///
    /// # Errors
    /// As [`Device::register_dmb`], for the smallest size.
    pub(crate) fn acquire(&self, size: DmbeSize) -> Result<Acquired, DeviceError> {
        let fair = self.fair_share();
        let mut last = DeviceError::NoFreeDmb(0);
        for code in (0..=size.code()).rev() {
            let bytes = DmbeSize::from_code(code).bytes();
            if let Some(dmb) = self.reuse(|len| len == bytes)? {
                return Ok(Acquired { dmb, fds: Vec::new() });
            }
            if code > 0 && bytes > fair {
                continue;
            }
            match self.register(bytes) {
                // It is not the size that is wrong.
                Err(
                    error @ (DeviceError::Busy
                    | DeviceError::Unreachable(_)
                    | DeviceError::Lost
                    | DeviceError::Inherited),
                ) => return Err(error),
                // There may be a used one that is smaller.
                Err(error) => last = error,
                Ok(acquired) => return Ok(acquired),
            }
        }
        match self.reuse(|_| true)? {
            Some(dmb) => Ok(Acquired { dmb, fds: Vec::new() }),
            None => Err(last),
        }
    }

    /// How large a new buffer may be, unless it is of the smallest size.
    fn fair_share(&self) -> usize {
        let uid = match self.pair.reach {
            Reach::Fabric(_) => None,
            Reach::ByHand(uid) => Some(uid),
        };
        let shares = FAIR_SHARE.min(self.device.max_dmbs()).max(1);
        self.device.memory_left(self.pair.peer, uid) / shares
    }

    fn register(&self, bytes: usize) -> Result<Acquired, DeviceError> {
        let (dmb, fds) = match self.pair.reach {
            Reach::Fabric(vlan) => (self.device.register_dmb(self.pair.peer, bytes, vlan)?, Vec::new()),
            Reach::ByHand(uid) => self.device.register_handover(self.pair.peer, uid, bytes)?,
        };
        Ok(Acquired { dmb: Arc::new(dmb), fds })
    }

    /// A used buffer whose length is wanted.
    fn reuse(&self, is_wanted: impl Fn(usize) -> bool) -> Result<Option<Arc<Dmb>>, DeviceError> {
        let mut pool = self.pool();
        pool.reap();
        let dmb = loop {
            let found = pool.free.iter().rposition(|dmb| is_wanted(dmb.len()));
            let Some(at) = found else { return Ok(None) };
            let dmb = pool.free.swap_remove(at);
            if !dmb.interrupt().is_hung_up() {
                break dmb;
            }
        };
        // Cursors start at zero. The rest was written by this very peer, so there is nothing to hide from it.
        dmb.memory().zero(0, CDC_LEN)?;
        Ok(Some(dmb))
    }

    /// The way into the peer's buffer `token`: element `element` of it, `len` bytes. `fds` came with it by hand.
    ///
    /// # Errors
    /// As [`Device::attach_dmb`].
    pub(crate) fn outlet(
        &self,
        token: DmbToken,
        element: u8,
        len: usize,
        fds: Handed,
    ) -> Result<Outlet, DeviceError> {
        if !self.device.supports_attach() {
            return Ok(Outlet::moved(self.device.clone(), token, element, len));
        }
        if element != 0 {
            // Elements of a shared DMB are for devices that move data; a mapped DMB serves one connection.
            return Err(DeviceError::Unsupported);
        }
        let known = {
            let mut pool = self.pool();
            pool.reap();
            if !self.device.supports_handover() {
                // Its memory is that of all: what its owner has given back is not free before we have let go of it.
                pool.remote.retain(|_, dmb| !dmb.doorbell().is_hung_up());
            }
            pool.remote.remove(&token)
        };
        let peer = self.pair.peer;
        let attached = match (known, self.pair.reach) {
            (Some(dmb), _) if dmb.len() != len => {
                return Err(DeviceError::OutOfRange { offset: 0, len, size: dmb.len() });
            }
            (Some(dmb), _) => return Ok(Outlet::Mapped(dmb)),
            (None, Reach::Fabric(_)) => self.device.attach_dmb(peer, token, len),
            (None, Reach::ByHand(_)) => self.device.attach_handover(peer, token, len, fds.take()),
        };
        match attached {
            Ok(attached) => Ok(Outlet::Mapped(Arc::new(attached))),
            // This peer looks only after a signal.
            Err(DeviceError::Unsupported) => Ok(Outlet::moved(self.device.clone(), token, element, len)),
            Err(error) => Err(error),
        }
    }

    /// Closes a connection and takes back its buffers.
    pub(crate) fn leave(&self, connection: Arc<Connection>) {
        {
            let lingering = Lingering::new(connection.clone());
            let mut pool = self.pool();
            if pool.lingering.len() < MAX_LINGERING {
                pool.lingering.push(lingering);
            }
        }
        // Only now: as soon as the peer sees the last flags it may name its buffer in another handshake, and then it
        // has to be found here.
        connection.close();
        self.pool().reap();
    }

    /// True if the peer's device cannot be reached any more.
    pub(crate) fn is_orphaned(&self) -> bool {
        match self.pair.reach {
            Reach::Fabric(vlan) => {
                // Without one it is of version 2, or of version 1 in no VLAN, or of both.
                let of_v2 = vlan.is_none().then_some(VlanId::ISM_V2);
                let is_out_of_reach = |vlan| {
                    let reached = self.device.query_remote_gid(self.pair.peer, vlan);
                    matches!(reached, Err(DeviceError::Unreachable(_)))
                };
                of_v2.is_none_or(|vlan| is_out_of_reach(Some(vlan))) && is_out_of_reach(vlan)
            }
            // There is no channel any more; but a peer that is there has not let go of all that the pool holds.
            Reach::ByHand(_) => {
                let pool = self.pool();
                pool.lingering.iter().all(|lingering| lingering.connection.dmb().interrupt().is_hung_up())
                    && pool.free.iter().all(|dmb| dmb.interrupt().is_hung_up())
                    && pool.remote.values().all(|dmb| dmb.doorbell().is_hung_up())
            }
        }
    }
}

impl Drop for LinkGroup {
    /// Tells the peer that the next connection makes first contact. One that has said so first, or is gone, need not be told;
    /// nor one that has not closed its connections yet: Linux ends them by this, with all that was not read.
    fn drop(&mut self) {
        let has_closed_all = {
            let mut pool = self.pool();
            pool.reap();
            pool.lingering.is_empty()
        };
        if let Reach::Fabric(vlan) = self.pair.reach
            && self.is_confirmed()
            && has_closed_all
        {
            let (code, data) = shutdown(self.link_id, vlan);
            let _ = self.device.signal_event(self.pair.peer, code, data);
        }
    }
}

impl Pool {
    /// Moves the buffers of connections that both sides have closed to where they can be used again.
    fn reap(&mut self) {
        let mut at = 0;
        while let Some(Lingering { connection, until }) = self.lingering.get(at) {
            if connection.is_hopeless() {
                self.lingering.swap_remove(at);
            } else if connection.is_settled() {
                let Lingering { connection, .. } = self.lingering.swap_remove(at);
                self.recycle(&connection);
            } else if *until <= Instant::now() {
                self.lingering.swap_remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// A buffer that the peer has let go of is of no more use: the peer would not find it again.
    fn recycle(&mut self, connection: &Connection) {
        if self.free.len() < MAX_POOLED && !connection.dmb().interrupt().is_hung_up() {
            self.free.push(connection.dmb().clone());
        }
        if let Outlet::Mapped(remote) = connection.outlet()
            && !remote.doorbell().is_hung_up()
        {
            if self.remote.len() >= MAX_POOLED {
                self.remote.retain(|_, dmb| !dmb.doorbell().is_hung_up());
            }
            if self.remote.len() < MAX_POOLED * 4 {
                self.remote.insert(remote.token(), remote.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smc::pair::{End, pair};

    const SIZE: usize = 16384;

    /// Buffers of this end: free, and of connections whose peer has not closed.
    fn buffers(group: &LinkGroup) -> (usize, usize) {
        let mut pool = group.pool();
        pool.reap();
        (pool.free.len(), pool.lingering.len())
    }

    /// Has one end leave; how long its buffer is waited for.
    fn leave(end: End) -> Duration {
        end.group.leave(end.connection);
        let pool = end.group.pool();
        pool.lingering.first().unwrap().until.saturating_duration_since(Instant::now())
    }

    #[test]
    fn a_peer_that_does_not_close_is_not_waited_for_for_ever() {
        let [ours, theirs] = pair([SIZE; 2]);
        let (group, device) = (ours.group.clone(), ours.group.device().clone());
        let token = ours.connection.dmb().token();
        assert!(leave(ours) > Duration::from_secs(500));
        assert_eq!(buffers(&group), (0, 1));
        group.pool().lingering[0].until = Instant::now();
        assert_eq!(buffers(&group), (0, 0));
        let gone = device.unregister_dmb(token);
        assert!(matches!(gone, Err(DeviceError::UnknownToken(_))), "given back: {gone:?}");
        // It finds its end closed, whatever it does.
        assert!(theirs.connection.has_peer_ended());
        theirs.connection.close();
    }

    #[test]
    fn a_peer_that_was_aborted_is_waited_for_for_a_moment() {
        let [ours, theirs] = pair([SIZE; 2]);
        theirs.connection.try_write(&[std::io::IoSlice::new(b"unread")]).unwrap();
        assert!(leave(ours) <= Duration::from_secs(2));
    }

    #[test]
    fn a_peer_that_closes_is_in_time() {
        let [ours, theirs] = pair([SIZE; 2]);
        let group = ours.group.clone();
        leave(ours);
        theirs.connection.close();
        assert_eq!(buffers(&group), (1, 0));
        group.let_go();
        assert_eq!(buffers(&group), (0, 0));
    }
}
