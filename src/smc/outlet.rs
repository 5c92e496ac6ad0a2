//! The way into the peer's DMB: mapped where the device can, moved by the device where it cannot.

use std::sync::Arc;

use super::{
    cdc::{CONS, Cdc, PROD, RETURNED},
    cursor::CDC_LEN,
    returning,
};
use crate::dibs::{Cause, Device, DeviceError, DmbToken, RemoteDmb, Writing};

/// Writes payload and CDC messages for the peer.
#[derive(Debug)]
pub(crate) enum Outlet {
    /// The peer's DMB is mapped: memory operations, and a doorbell only if the peer sleeps.
    Mapped(Arc<RemoteDmb>),
    /// The device carries each piece; every CDC message signals.
    Moved {
        /// The device to carry it.
        device: Arc<dyn Device>,
        /// The peer's DMB.
        token: DmbToken,
        /// Element within the DMB (`dmbe_idx`).
        index: u8,
        /// First byte of that element.
        base: usize,
    },
}

impl Outlet {
    /// The way into a DMB that `device` cannot map. `element` is the index of the connection's element in it, and
    /// `len` the bytes of one element.
    pub(crate) fn moved(device: Arc<dyn Device>, token: DmbToken, element: u8, len: usize) -> Self {
        Self::Moved { device, token, index: element, base: usize::from(element) * len }
    }

    /// Marks that we are writing, until what this returns is dropped. Only now is it time to look whether the peer still
    /// reads.
    #[inline]
    pub(crate) fn begin(&self) -> Option<Writing<'_>> {
        match self {
            Self::Mapped(dmb) => dmb.begin_write(),
            Self::Moved { .. } => None,
        }
    }

    /// Puts payload at an offset of the peer's ring. The peer looks at it only after a cursor covers it.
    #[inline]
    pub(crate) fn place(&self, ring_offset: u32, data: &[u8]) -> Result<(), DeviceError> {
        let offset = CDC_LEN + ring_offset as usize;
        match self {
            Self::Mapped(dmb) => dmb.memory().write(offset, data),
            Self::Moved { device, token, index, base } => {
                device.move_data(*token, *index, false, base + offset, data)
            }
        }
    }

    /// Takes the peer's request for what it has not read of its ring, if there is one: says how many bytes of that are to be
    /// left out. To be followed by [`Outlet::finish_request`].
    pub(crate) fn take_request(&self) -> Option<u32> {
        match self {
            Self::Mapped(dmb) => returning::take(dmb.memory().word64(RETURNED).ok()?),
            Self::Moved { .. } => None,
        }
    }

    /// So many bytes were sent to the peer by another way.
    pub(crate) fn finish_request(&self, sent: u32) -> Result<(), DeviceError> {
        match self {
            Self::Mapped(dmb) => returning::finish(dmb.memory().word64(RETURNED)?, sent),
            Self::Moved { .. } => return Err(DeviceError::Unsupported),
        }
        Ok(())
    }

    /// Copies out of the peer's ring what was put there.
    pub(crate) fn read_back(&self, ring_offset: u32, out: &mut [u8]) -> Result<(), DeviceError> {
        match self {
            Self::Mapped(dmb) => dmb.memory().read(CDC_LEN + ring_offset as usize, out),
            Self::Moved { .. } => Err(DeviceError::Unsupported),
        }
    }

    /// Publishes the producer cursor of `cdc`. True if the peer had to be woken.
    #[inline]
    pub(crate) fn publish_prod(&self, cdc: &Cdc) -> Result<bool, DeviceError> {
        match self {
            Self::Mapped(dmb) => {
                dmb.memory().store(PROD, cdc.prod_word())?;
                Ok(dmb.doorbell().ring(Cause::Data))
            }
            Self::Moved { .. } => self.move_cdc(cdc).map(|()| true),
        }
    }

    /// Publishes the consumer cursor and the flags of `cdc`, and wakes the peer for `causes`. True if it had to be woken.
    pub(crate) fn publish_cons(&self, cdc: &Cdc, causes: &[Cause]) -> Result<bool, DeviceError> {
        match self {
            Self::Mapped(dmb) => {
                dmb.memory().store(CONS, cdc.cons_word())?;
                let mut woken = false;
                causes.iter().for_each(|cause| woken |= dmb.doorbell().ring(*cause));
                Ok(woken)
            }
            Self::Moved { .. } => self.move_cdc(cdc).map(|()| true),
        }
    }

    fn move_cdc(&self, cdc: &Cdc) -> Result<(), DeviceError> {
        match self {
            Self::Mapped(dmb) => dmb.memory().write(0, &cdc.to_bytes()),
            Self::Moved { device, token, index, base } => {
                device.move_data(*token, *index, true, *base, &cdc.to_bytes())
            }
        }
    }

    /// The peer's DMB, if it is mapped.
    #[cfg(test)]
    pub(crate) fn clone_mapped(&self) -> Option<Arc<RemoteDmb>> {
        match self {
            Self::Mapped(dmb) => Some(dmb.clone()),
            Self::Moved { .. } => None,
        }
    }

    /// True if one store publishes a cursor, so that the two directions need no common lock.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self, Self::Mapped(_))
    }
}
