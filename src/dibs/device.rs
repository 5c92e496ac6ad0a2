//! The abstract device.

use std::{
    fmt,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Arc, MutexGuard},
    time::Duration,
};

use super::{
    Chid, DeviceError, DmbToken, Gid, Memory, PnetId, VlanId, barrier,
    writing::{self, Order, Writing},
};
use crate::unix::closer;

/// A DIBS device: shares memory buffers (DMBs) with other devices of its fabric.
///
/// The verbs are those of Linux' `dibs_dev_ops`. No operation blocks: where a remote device is slow to take a
/// message, [`DeviceError::Busy`] says so and the caller tries again.
pub trait Device: Send + Sync + fmt::Debug {
    /// The fabric this device belongs to; SMC calls it CHID.
    fn fabric_id(&self) -> Chid;

    /// The device's own identity.
    fn gid(&self) -> Gid;

    /// The physical network that the device belongs to; `None` if it says nothing of that.
    fn pnetid(&self) -> Option<PnetId> {
        None
    }

    /// True if the device can be used with version 2 of SMC-D; all but the oldest can.
    fn speaks_v2(&self) -> bool {
        true
    }

    /// True if the device does not answer any more, and never will. Then it is offered to nobody.
    fn is_lost(&self) -> bool {
        false
    }

    /// Asks whether the device `gid` can be reached, within `vlan` if the fabric knows VLANs.
    ///
    /// # Errors
    /// [`DeviceError::Unreachable`] if not, [`DeviceError::Busy`] if it could not be asked just now.
    fn query_remote_gid(&self, gid: Gid, vlan: Option<VlanId>) -> Result<(), DeviceError>;

    /// Takes in what other devices have sent. To be called before a handshake and now and then during one, so that
    /// their queues to this device do not fill.
    fn tend(&self) {}

    /// How many DMBs the device can own at once.
    fn max_dmbs(&self) -> usize;

    /// How many bytes of DMBs can still be registered for `user`, whose process runs under `uid` if that is known. An
    /// estimate: others register too.
    fn memory_left(&self, user: Gid, uid: Option<u32>) -> usize {
        let _ = (user, uid);
        usize::MAX
    }

    /// Makes a DMB of `len` zeroed bytes that the device `user`, and no other, may write. `vlan` is where `user` is looked for.
    ///
    /// When this returns, `user` can resolve the token; nothing has to be waited for.
    ///
    /// # Errors
    /// [`DeviceError::NoFreeDmb`], [`DeviceError::OutOfMemory`], [`DeviceError::Unreachable`],
    /// [`DeviceError::Busy`], or the system's error.
    fn register_dmb(&self, user: Gid, len: usize, vlan: Option<VlanId>) -> Result<Dmb, DeviceError>;

    /// Gives a DMB back. The token is unknown from now on; a user that attached it keeps its mapping until it
    /// detaches, and writes into memory that nobody reads.
    ///
    /// # Errors
    /// [`DeviceError::UnknownToken`] if the device does not own it.
    fn unregister_dmb(&self, token: DmbToken) -> Result<(), DeviceError>;

    /// True if remote DMBs can be mapped, so that writing to them needs no system call.
    fn supports_attach(&self) -> bool {
        false
    }

    /// Maps the DMB that `owner` registered for this device under `token`. `len` is its length as agreed.
    ///
    /// Linux resolves tokens alone; here the owner's GID comes along, since a token says nothing about the process
    /// or machine that has to be asked.
    ///
    /// # Errors
    /// [`DeviceError::UnknownToken`], [`DeviceError::BadDmb`] if the owner shares something that is no DMB,
    /// [`DeviceError::Unsupported`] where remote memory cannot be mapped, or this owner has to be signalled each time: then
    /// data is moved.
    fn attach_dmb(&self, owner: Gid, token: DmbToken, len: usize) -> Result<RemoteDmb, DeviceError> {
        let _ = (owner, token, len);
        Err(DeviceError::Unsupported)
    }

    /// True if DMBs can be handed over: as descriptors, by a channel that the caller has to the user's process.
    fn supports_handover(&self) -> bool {
        false
    }

    /// As [`Device::register_dmb`], but leaves it to the caller to bring the returned descriptors to `user`, whose
    /// process runs under `uid`. Nothing is asked of the remote device.
    ///
    /// # Errors
    /// As [`Device::register_dmb`]; [`DeviceError::Unsupported`] where DMBs are no descriptors.
    fn register_handover(&self, user: Gid, uid: u32, len: usize) -> Result<(Dmb, Vec<OwnedFd>), DeviceError> {
        let _ = (user, uid, len);
        Err(DeviceError::Unsupported)
    }

    /// As [`Device::attach_dmb`], for a DMB whose descriptors the caller got from `owner`. They are checked here.
    ///
    /// # Errors
    /// As [`Device::attach_dmb`]; [`DeviceError::Unsupported`] where DMBs are no descriptors.
    fn attach_handover(
        &self,
        owner: Gid,
        token: DmbToken,
        len: usize,
        fds: Vec<OwnedFd>,
    ) -> Result<RemoteDmb, DeviceError> {
        closer::discard(fds);
        let _ = (owner, token, len);
        Err(DeviceError::Unsupported)
    }

    /// Writes `data` at `offset` into the remote DMB `token`; with `signal` its owner is interrupted afterwards.
    ///
    /// Synchronous, lossless, in order. `index` is the index of the element within the DMB that the owner announced
    /// (`dmbe_idx`).
    ///
    /// # Errors
    /// [`DeviceError::UnknownToken`], [`DeviceError::OutOfRange`], or the system's error.
    fn move_data(
        &self,
        token: DmbToken,
        index: u8,
        signal: bool,
        offset: usize,
        data: &[u8],
    ) -> Result<(), DeviceError>;

    /// Adds a VLAN to the device.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] on fabrics without VLANs.
    fn add_vlan_id(&self, vlan: VlanId) -> Result<(), DeviceError> {
        let _ = vlan;
        Err(DeviceError::Unsupported)
    }

    /// Removes a VLAN from the device.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] on fabrics without VLANs.
    fn del_vlan_id(&self, vlan: VlanId) -> Result<(), DeviceError> {
        let _ = vlan;
        Err(DeviceError::Unsupported)
    }

    /// Sends a software event to the clients of the device `gid`.
    ///
    /// # Errors
    /// [`DeviceError::Unreachable`]; [`DeviceError::Unsupported`] on fabrics without events, [`DeviceError::Busy`] if the last
    /// one was not taken yet.
    fn signal_event(&self, gid: Gid, code: u32, data: u64) -> Result<(), DeviceError> {
        let _ = (gid, code, data);
        Err(DeviceError::Unsupported)
    }

    /// Takes the oldest event that has come and was not taken.
    fn take_event(&self) -> Option<Event> {
        None
    }
}

/// What a device hears of others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Sent by [`Device::signal_event`].
    Software {
        /// The device that has sent it.
        from: Gid,
        /// What it means, for the clients of the devices to agree on.
        code: u32,
        /// What belongs to it.
        data: u64,
    },
    /// This device is gone, or has been taken away from whoever had it. The next to have it knows nothing of what was before.
    Gone(Gid),
}

/// What an endpoint can wait for at its DMB.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The peer wrote into the ring, or changed its connection state.
    Data,
    /// The peer consumed, so that there is room in its ring.
    Space,
}

impl Cause {
    /// Both causes.
    pub const ALL: [Self; 2] = [Self::Data, Self::Space];
}

/// The receiving end of a DMB's signals, at its owner.
///
/// A fabric that suppresses needless signals does so behind [`Interrupt::arm`]; elsewhere every signal arrives.
pub trait Interrupt: Send + Sync + fmt::Debug {
    /// A descriptor that becomes readable with each signal (edge-triggered; nobody has to read from it), and that
    /// reports hang-up when the user of the DMB has gone.
    fn as_fd(&self) -> BorrowedFd<'_>;

    /// True if the user of the DMB has gone, or has let go of it.
    fn is_hung_up(&self) -> bool;

    /// Asks for a signal with the next news of this kind. The caller must look for news once more afterwards.
    fn arm(&self, cause: Cause);

    /// Takes back the signals that have come so far, so that the descriptor is not readable until the next. For those
    /// who poll it as it is, without edges. Whoever else waits for it may miss a signal that is taken back so.
    fn clear(&self);

    /// If the user of the DMB writes each message as a whole: a number that is odd while it does so, and another after it.
    fn moves(&self) -> Option<u32> {
        None
    }

    /// Waits until no other thread is in the middle of anything here, and keeps it so: for a process that is about to
    /// fork, so that the child gets no lock that nobody releases.
    fn hold(&self) -> Option<MutexGuard<'_, ()>> {
        None
    }

    /// Blocks the thread until a signal of this kind, or until `timeout`. `news` is asked before sleeping.
    ///
    /// May return early; the caller looks for itself. Returns false if the time is over. While a thread waits so for
    /// a cause, nobody else may arm it.
    ///
    /// # Errors
    /// `EINTR` when a signal handler ran, or another error of the system.
    fn wait(
        &self,
        cause: Cause,
        timeout: Option<Duration>,
        news: &mut dyn FnMut() -> bool,
    ) -> std::io::Result<bool>;
}

/// The sending end of a mapped DMB's signals, at its user.
pub trait Doorbell: Send + Sync + fmt::Debug {
    /// Signals the owner after something of this kind was published, unless the owner is awake anyway. True if it had to
    /// be woken.
    ///
    /// Never blocks, whatever the owner does.
    fn ring(&self, cause: Cause) -> bool;

    /// True if the owner of the DMB has gone, or has given the DMB back.
    fn is_hung_up(&self) -> bool;
}

/// A DMB of our own, for a remote user to write into. Given back to its device on drop.
pub struct Dmb {
    /// Names the DMB in its fabric.
    pub(crate) token: DmbToken,
    pub(crate) index: u32,
    pub(crate) len: usize,
    pub(crate) memory: Arc<Memory>,
    pub(crate) interrupt: Box<dyn Interrupt>,
    /// Where in the memory the user marks that it is writing, if it does.
    pub(crate) mark: Option<usize>,
    pub(crate) device: Arc<dyn Device>,
}

impl Dmb {
    /// Names the DMB in its fabric; to be told to its user only.
    pub fn token(&self) -> DmbToken {
        self.token
    }

    /// Position of the DMB on its device, 0 to [`Device::max_dmbs`].
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Bytes in the DMB.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: a DMB has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory itself. The mapping may be longer than the DMB.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Where the user's signals arrive.
    pub fn interrupt(&self) -> &dyn Interrupt {
        &*self.interrupt
    }

    /// Makes sure that a user whose last look was before now is seen writing until it is done ([`Dmb::is_written`]).
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] if the user does not mark its writes, or the system's error.
    pub(crate) fn catch_writer(&self) -> Result<(), DeviceError> {
        let mark = self.mark.ok_or(DeviceError::Unsupported)?;
        Ok(barrier::put_to(Order::of(self.memory.word32(mark)?))?)
    }

    /// True while the user is in the middle of a write, by its own account.
    pub(crate) fn is_written(&self) -> bool {
        let mark = self.mark.and_then(|mark| self.memory.word32(mark).ok());
        mark.is_some_and(|mark| !writing::is_over(mark))
    }
}

impl Drop for Dmb {
    fn drop(&mut self) {
        // The device may have dropped it already, with the peer, or be that of a process that this one was forked from;
        // then there is nothing left to do.
        let _ = self.device.unregister_dmb(self.token);
    }
}

impl fmt::Debug for Dmb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is a secret between owner and user, so it is not shown.
        f.debug_struct("Dmb").field("index", &self.index).field("len", &self.len).finish_non_exhaustive()
    }
}

/// A DMB of a remote owner, mapped for us to write into. Detached on drop.
pub struct RemoteDmb {
    pub(crate) owner: Gid,
    pub(crate) token: DmbToken,
    pub(crate) len: usize,
    pub(crate) memory: Arc<Memory>,
    pub(crate) doorbell: Box<dyn Doorbell>,
    /// Where in the memory we mark that we are writing, and how.
    pub(crate) mark: Option<(usize, Order)>,
}

impl RemoteDmb {
    /// The device that owns the DMB.
    pub fn owner(&self) -> Gid {
        self.owner
    }

    /// Names the DMB in its fabric.
    pub fn token(&self) -> DmbToken {
        self.token
    }

    /// Bytes in the DMB.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: a DMB has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory itself. The mapping may be longer than the DMB.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Marks that we are writing, until what this returns is dropped.
    #[inline]
    pub(crate) fn begin_write(&self) -> Option<Writing<'_>> {
        let (mark, order) = self.mark?;
        self.memory.word32(mark).ok().map(|mark| writing::begin(mark, order))
    }

    /// How to signal the owner.
    pub fn doorbell(&self) -> &dyn Doorbell {
        &*self.doorbell
    }
}

impl fmt::Debug for RemoteDmb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteDmb")
            .field("owner", &self.owner)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
