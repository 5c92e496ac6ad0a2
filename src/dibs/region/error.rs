//! Why there is no device on a region.

use std::io;

use super::LayoutError;
use crate::dibs::DeviceError;

/// Why an endpoint cannot be in a region, or a region cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// The memory is no region, or cannot be divided so.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Others have all slots, or the one that was asked for.
    #[error("all slots of the region are taken")]
    NoFreeSlot,
    /// Where several machines share a region, each endpoint has to be told its slot.
    #[error("the region is shared by several machines, so a slot has to be named")]
    SlotNeeded,
    /// Endpoints of this machine are in it, who would lose their memory.
    #[error("the region is in use")]
    InUse,
    /// The region has no such slot.
    #[error("the region has no slot {0}")]
    NoSuchSlot(usize),
    /// The region is that of a server, and is reached by its socket.
    #[error("the region belongs to a server")]
    OfServer,
    /// The device cannot be made.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for RegionError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}
