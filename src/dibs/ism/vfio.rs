//! A function that Linux hands out, by VFIO: that of `ism-vfio-pci`, on IBM Z. As root and once:
//!
//! ```sh
//! echo ism_vfio_pci >/sys/bus/pci/devices/$address/driver_override
//! echo $address >/sys/bus/pci/drivers_probe
//! ```
//!
//! A function that another driver of VFIO has is taken too if its configuration space describes it
//! ([capability]), as that of a function in software which a virtual machine has.

use std::{
    collections::HashMap,
    fmt, io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::io::{Errno, pread, pwrite};

use super::{
    Ism, IsmError, capability,
    transport::{Description, Transport, irq, region, split},
    zdev,
};
use crate::dibs::{
    DeviceError, Memory,
    eventfd::Eventfd,
    vfio::{Function, Region, is_address},
};

/// Bytes of a configuration space that a description can be in.
const CONFIG_LEN: usize = 256;

/// How a program gets at a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum VfioWay {
    /// By its group (`/dev/vfio/NUMBER`) and a container.
    Group,
    /// By itself (`/dev/vfio/devices/vfioNUMBER`) and `/dev/iommu`.
    Iommufd,
}

impl Ism {
    /// Takes the function into use that is bound to VFIO and has this PCI address, such as `0000:00:00.0`.
    ///
    /// # Errors
    /// If it cannot be had, is no ISM function, or as [`Ism::open`].
    pub fn open_vfio(address: &str) -> Result<Self, IsmError> {
        Self::open(Arc::new(Vfio::open(address)?))
    }
}

/// A function by VFIO.
pub struct Vfio {
    /// Dropped first: then it lets go of all memory.
    function: Function,
    regions: HashMap<u32, Region>,
    description: Description,
    interrupt: u32,
    /// Rung when the function has failed, or is to be given back.
    error: Option<Eventfd>,
    /// What the function can write to, by address.
    memory: Mutex<HashMap<u64, Arc<Memory>>>,
}

impl Vfio {
    /// Opens the function that has this PCI address: by its group, or else by iommufd.
    ///
    /// # Errors
    /// If it cannot be had, or does not say what it is.
    pub fn open(address: &str) -> Result<Self, IsmError> {
        check(address)?;
        Self::of(Function::open(address).map_err(IsmError::Vfio)?, None)
    }

    /// As [`Vfio::open`], by one way alone, and for a function that does not say what it is.
    ///
    /// # Errors
    /// As [`Vfio::open`].
    pub fn open_as(address: &str, way: VfioWay, description: Description) -> Result<Self, IsmError> {
        check(address)?;
        let path = Path::new("/sys/bus/pci/devices").join(address);
        let function = match way {
            VfioWay::Group => Function::by_group(&path),
            VfioWay::Iommufd => Function::by_iommufd(&path),
        };
        Self::of(function.map_err(IsmError::Vfio)?, Some(description))
    }

    fn of(function: Function, description: Option<Description>) -> Result<Self, IsmError> {
        let mut regions = HashMap::new();
        for index in [region::DATA, region::MAILBOX, region::CONFIG] {
            regions.insert(index, function.region(index)?);
        }
        let description = match description.or_else(|| zdev::describe(&function.info().ok()?)) {
            Some(description) => description,
            None => described(&function, &regions)?,
        };
        // An ISM function has one of MSI; others may have those of MSI-X alone.
        let has_msi = function.irqs(irq::MSI).is_ok_and(|count| count > 0);
        let interrupt = if has_msi { irq::MSI } else { irq::MSI_X };
        // Not every driver tells of errors, or that it wants the function back.
        let error = Eventfd::new()?;
        let told_of = |index: &u32| function.set_irq(*index, Some(error.as_fd())).is_ok();
        let is_told = [irq::ERROR, irq::REQUEST].iter().filter(|index| told_of(index)).count() > 0;
        let error = is_told.then_some(error);
        let memory = Mutex::new(HashMap::new());
        Ok(Self { function, regions, description, interrupt, error, memory })
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<u64, Arc<Memory>>> {
        // Nothing panics while it is held.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where so many bytes at an address are in the file.
    fn place(&self, at: u64, len: usize) -> io::Result<u64> {
        let (index, offset) = split(at);
        let region = self.regions.get(&index).ok_or(Errno::INVAL)?;
        let end = offset.checked_add(len as u64).filter(|end| *end <= region.size);
        end.and_then(|_| region.offset.checked_add(offset)).ok_or_else(|| Errno::INVAL.into())
    }
}

fn check(address: &str) -> Result<(), IsmError> {
    if is_address(address) { Ok(()) } else { Err(IsmError::Place) }
}

/// What the configuration space says.
fn described(function: &Function, regions: &HashMap<u32, Region>) -> Result<Description, IsmError> {
    let config = regions.get(&region::CONFIG).ok_or(Errno::NODEV)?;
    let mut space = [0; CONFIG_LEN];
    whole(pread(function, &mut space, config.offset)?, CONFIG_LEN)?;
    let identity = space.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    capability::find(&space).ok_or(IsmError::OtherDevice(identity))
}

fn whole(got: usize, wanted: usize) -> io::Result<()> {
    if got == wanted { Ok(()) } else { Err(Errno::IO.into()) }
}

impl Transport for Vfio {
    fn description(&self) -> Description {
        self.description.clone()
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let (place, len) = (self.place(at, out.len())?, out.len());
        whole(pread(&self.function, out, place)?, len)
    }

    fn write(&self, at: u64, data: &[u8]) -> io::Result<()> {
        let place = self.place(at, data.len())?;
        whole(pwrite(&self.function, data, place)?, data.len())
    }

    fn map(&self, iova: u64, len: usize) -> Result<Arc<Memory>, DeviceError> {
        let memory = Arc::new(Memory::anonymous(len)?);
        self.function.map(iova, &memory)?;
        self.memory().insert(iova, memory.clone());
        Ok(memory)
    }

    fn unmap(&self, iova: u64, len: usize) -> io::Result<()> {
        self.function.unmap(iova, len)?;
        self.memory().remove(&iova);
        Ok(())
    }

    fn set_interrupt(&self, eventfd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.function.set_irq(self.interrupt, eventfd)
    }

    fn end(&self) -> Option<BorrowedFd<'_>> {
        self.error.as_ref().map(Eventfd::as_fd)
    }
}

impl fmt::Debug for Vfio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vfio").field("description", &self.description).finish_non_exhaustive()
    }
}
