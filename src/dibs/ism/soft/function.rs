//! A function that was opened.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use rustix::io::Errno;

use super::SoftIsm;
use crate::dibs::{
    DeviceError, Memory,
    eventfd::Eventfd,
    ism::{
        Transport,
        transport::{Description, region, split},
    },
};

/// A function of a [`SoftIsm`]. Closed on drop, which the others hear of.
#[derive(Debug)]
pub struct SoftFunction {
    pub(super) fabric: SoftIsm,
    number: usize,
    end: Arc<Eventfd>,
}

impl SoftFunction {
    pub(super) fn new(fabric: SoftIsm, number: usize, end: Arc<Eventfd>) -> Self {
        Self { fabric, number, end }
    }

    /// Maps memory of the caller's.
    pub(super) fn map_memory(&self, iova: u64, memory: Arc<Memory>) -> io::Result<()> {
        self.fabric.model().map(self.number, iova, memory)
    }

    /// Where interrupts are signalled.
    pub(super) fn ring_at(&self, eventfd: Option<Eventfd>) {
        self.fabric.model().set_interrupt(self.number, eventfd);
    }

    /// Where the end of the function is signalled, in place of [`Transport::end`].
    #[cfg(feature = "vfio-user")]
    pub(super) fn ring_at_end(&self, eventfd: Option<Eventfd>) {
        self.fabric.model().set_end(self.number, eventfd);
    }

    /// Which function of the fabric it is.
    pub fn number(&self) -> usize {
        self.number
    }
}

impl Transport for SoftFunction {
    fn description(&self) -> Description {
        self.fabric.model().description().clone()
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let mut model = self.fabric.model();
        match split(at) {
            (region::CONFIG, offset) => model.read_config(self.number, offset, out),
            (region::MAILBOX, offset) => model.read_mailbox(self.number, offset, out),
            // What can only be stored to cannot be read.
            (region::DATA, _) => Err(Errno::IO.into()),
            _ => Err(Errno::INVAL.into()),
        }
    }

    fn write(&self, at: u64, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let mut model = self.fabric.model();
        match split(at) {
            (region::CONFIG, offset) => model.write_config(self.number, offset, data),
            (region::MAILBOX, offset) => model.write_mailbox(self.number, offset, data),
            (region::DATA, offset) => model.store(self.number, offset, data),
            _ => Err(Errno::INVAL.into()),
        }
    }

    fn map(&self, iova: u64, len: usize) -> Result<Arc<Memory>, DeviceError> {
        let memory = Arc::new(Memory::anonymous(len)?);
        self.map_memory(iova, memory.clone())?;
        Ok(memory)
    }

    fn unmap(&self, iova: u64, len: usize) -> io::Result<()> {
        self.fabric.model().unmap(self.number, iova, len)
    }

    fn set_interrupt(&self, eventfd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let interrupt = match eventfd {
            Some(fd) => Some(Eventfd::of(fd.try_clone_to_owned()?).map_err(|_| Errno::INVAL)?),
            None => None,
        };
        self.ring_at(interrupt);
        Ok(())
    }

    fn end(&self) -> Option<BorrowedFd<'_>> {
        Some(self.end.as_fd())
    }
}

impl Drop for SoftFunction {
    fn drop(&mut self) {
        self.fabric.model().close(self.number);
    }
}
