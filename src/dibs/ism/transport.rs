//! How the driver reaches a function.

use std::{fmt, io, ops::Range, os::fd::BorrowedFd, sync::Arc};

use crate::dibs::{Chid, DeviceError, Memory, PnetId};

/// Regions of a function, by VFIO's numbers.
pub(super) mod region {
    /// Where data is stored to.
    pub(in super::super) const DATA: u32 = 0;
    /// Where commands are given.
    pub(in super::super) const MAILBOX: u32 = 2;
    pub(in super::super) const CONFIG: u32 = 7;
}

/// Kinds of interrupts, by VFIO's numbers.
#[cfg(any(feature = "vfio", feature = "vfio-user"))]
pub(super) mod irq {
    /// That of signals and events.
    pub(in super::super) const MSI: u32 = 1;
    #[cfg(feature = "vfio")]
    pub(in super::super) const MSI_X: u32 = 2;
    /// The function has failed.
    pub(in super::super) const ERROR: u32 = 3;
    /// The function is wanted back.
    #[cfg(feature = "vfio")]
    pub(in super::super) const REQUEST: u32 = 4;
}

/// In the configuration space, little-endian.
pub(super) mod config {
    /// Vendor and device.
    pub(in super::super) const IDENTITY: u64 = 0;
    pub(in super::super) const COMMAND: u64 = 4;
    pub(in super::super) const STATUS: usize = 6;
    /// In the status.
    pub(in super::super) const HAS_CAPABILITIES: u8 = 0x10;
    /// The place of the first capability.
    pub(in super::super) const CAPABILITIES: usize = 0x34;
    /// To be set in the command: answers at its regions, and reaches our memory.
    pub(in super::super) const MEMORY: u16 = 2;
    pub(in super::super) const MASTER: u16 = 4;
    /// The identity of an ISM function.
    pub(in super::super) const ISM: u32 = 0x04ed_1014;
}

/// The address of a byte of a region, as Linux' driver of ISM functions has them.
pub(super) const fn at(region: u32, offset: u64) -> u64 {
    (region as u64) << REGION_SHIFT | offset
}

/// The region and the offset that are at an address.
pub(super) const fn split(at: u64) -> (u32, u64) {
    ((at >> REGION_SHIFT) as u32, at & ((1 << REGION_SHIFT) - 1))
}

/// BAR 0 has 2^48 bytes.
pub(super) const REGION_SHIFT: u32 = 48;

/// What is known of a function before it is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// Its fabric, the PCHID.
    pub fabric: Chid,
    /// Addresses at which it can be given memory.
    pub window: Range<u64>,
    /// Bytes of the longest store block.
    pub max_store: usize,
    /// The physical network that it belongs to.
    pub pnetid: Option<PnetId>,
}

/// A way to a function, which belongs to whoever has it: by VFIO, or into a model.
pub trait Transport: Send + Sync + fmt::Debug {
    /// What is known of the function.
    fn description(&self) -> Description;

    /// Reads at an address, which is `region << 48 | offset`.
    ///
    /// # Errors
    /// If the function refuses, or is gone.
    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes at an address, all at once: one call is one store block.
    ///
    /// # Errors
    /// As [`Transport::read`].
    fn write(&self, at: u64, data: &[u8]) -> io::Result<()>;

    /// Makes `len` bytes of memory, all zero, that the function finds at `iova`.
    ///
    /// # Errors
    /// If there is no memory, or something is there already.
    fn map(&self, iova: u64, len: usize) -> Result<Arc<Memory>, DeviceError>;

    /// Takes the memory away from the function. Who holds it can still use it.
    ///
    /// # Errors
    /// If it was not mapped so; then the function may still write there.
    fn unmap(&self, iova: u64, len: usize) -> io::Result<()>;

    /// Has the interrupt of the function signalled at this eventfd, or nowhere.
    ///
    /// # Errors
    /// If that cannot be.
    fn set_interrupt(&self, eventfd: Option<BorrowedFd<'_>>) -> io::Result<()>;

    /// A descriptor that becomes readable, or hangs up, when the function is lost.
    fn end(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_have_their_addresses() {
        assert_eq!(at(region::CONFIG, 4), 0x0007_0000_0000_0004);
        assert_eq!(at(region::MAILBOX, 8), 0x0002_0000_0000_0008);
        assert_eq!(at(region::DATA, 0xa1_0080_0000), 0xa1_0080_0000);
        assert_eq!(split(at(region::MAILBOX, 8)), (2, 8));
    }
}
