//! What can go wrong at a DIBS device.

use std::io;

use super::{DmbToken, Gid};

/// Why a device operation failed. Nothing of the operation has taken effect, but for [`DeviceError::StoreRefused`] and
/// [`DeviceError::Lost`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No device with this GID is in reach.
    #[error("no device with GID {0} is in reach")]
    Unreachable(Gid),
    /// All DMBs of the device are in use (`ENOSPC` in Linux).
    #[error("all {0} DMBs of the device are in use")]
    NoFreeDmb(usize),
    /// The memory set aside for DMBs is used up, for the process or for one remote user.
    #[error("{requested} bytes of DMB memory wanted, {available} left")]
    OutOfMemory {
        /// Bytes that were asked for.
        requested: usize,
        /// Bytes that could still be had.
        available: usize,
    },
    /// No DMB of this token is known (never registered, withdrawn, or meant for another device).
    #[error("no DMB has the token {0}")]
    UnknownToken(DmbToken),
    /// An access would leave the DMB, or a DMB of this size cannot exist.
    #[error("{len} bytes at offset {offset} do not lie within the {size} bytes of the DMB")]
    OutOfRange {
        /// First byte of the access.
        offset: usize,
        /// Bytes to access.
        len: usize,
        /// Bytes in the DMB.
        size: usize,
    },
    /// The remote device handed over something that is not a DMB it may share.
    #[error("the remote device shared an unusable DMB: {0}")]
    BadDmb(#[from] BadDmb),
    /// The remote device has not yet taken what was sent to it before; worth another try within milliseconds.
    #[error("the remote device is busy")]
    Busy,
    /// The device belongs to the process that this one was forked from. What it shares can still be used, and let go
    /// of; for anything new this process needs a device of its own.
    #[error("the device belongs to the process that this one was forked from")]
    Inherited,
    /// The device refused a command, by a code of its own.
    #[error("the device refused the command {command:#04x} with code {code:#06x}")]
    Refused {
        /// The command.
        command: u32,
        /// What the device gave for a reason.
        code: u16,
    },
    /// The device refused data for a remote DMB, and does not say why: there is no such DMB (any more), it is for another
    /// device, or the data does not lie within it.
    #[error("the device refused {len} bytes for the DMB {token}, those at offset {offset}")]
    StoreRefused {
        /// The DMB.
        token: DmbToken,
        /// Where in the DMB it was refused. What comes before is written.
        offset: usize,
        /// Bytes in all.
        len: usize,
    },
    /// The device does not answer any more: it was taken away, or has failed.
    #[error("the device does not answer any more")]
    Lost,
    /// The device has no such operation.
    #[error("the device has no such operation")]
    Unsupported,
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for DeviceError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// What is wrong with a DMB that a remote device shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadDmb {
    /// The descriptor is not memory of tmpfs, so touching it might block or raise a signal.
    #[error("the descriptor is not shared memory")]
    NotMemory,
    /// The owner could cut pages away under the reader.
    #[error("the memory is not sealed against shrinking")]
    NotSealed,
    /// The memory is smaller than the DMB that was announced.
    #[error("{have} bytes of memory for {want} bytes")]
    TooSmall {
        /// Bytes that the descriptor has.
        have: u64,
        /// Bytes that the DMB needs.
        want: u64,
    },
    /// Not as many descriptors as a DMB needs came along.
    #[error("{0} descriptors came with the announcement")]
    Descriptors(usize),
    /// The doorbell is not a stream socket of this host.
    #[error("the doorbell is not a unix stream socket")]
    NotDoorbell,
}
