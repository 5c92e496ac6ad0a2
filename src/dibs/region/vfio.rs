//! A region in a virtual machine, without a driver of its own: the ivshmem-doorbell function of QEMU, by VFIO.
//!
//! The function has to be handed to `vfio-pci`, as root and once, and the group of its IOMMU (`/dev/vfio/NUMBER`) to whoever
//! runs the program:
//!
//! ```sh
//! address=0000:00:05.0
//! echo vfio-pci >/sys/bus/pci/devices/$address/driver_override
//! echo $address >/sys/bus/pci/drivers_probe
//! chown user /dev/vfio/"$(basename "$(readlink /sys/bus/pci/devices/$address/iommu_group)")"
//! ```
//!
//! The machine needs an IOMMU (`-device intel-iommu,intremap=on` before the others, on `-M q35`). The function itself reads
//! and writes no memory of the machine.
//!
//! The server of the fabric sees the virtual machine, not the process in it. A process that is killed has not left the
//! region, and the others notice when another takes the function, or the machine ends.
use std::{error::Error, fmt, os::fd::AsFd, path::Path, sync::Arc, time::Duration};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_BAR2_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX,
    VFIO_REGION_INFO_FLAG_MMAP,
};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{
    LayoutError, Region, RegionError, attachment::Attachment, device::Manner, file::geometry_of,
    ivshmem::connections, layout::Liveness,
};
use crate::dibs::{
    DeviceError, Memory,
    eventfd::Eventfd,
    vfio::{borrow, is_address},
};

/// Vendor and device of the function.
const IVSHMEM: u32 = 0x1110_1af4;
/// Its revision, since QEMU 2.6.
const REVISION: u8 = 1;

/// In the configuration space.
const COMMAND: u64 = 4;
const CLASS: u64 = 8;
/// To be set in the command: answers at its memory, and may send interrupts.
const MEMORY_AND_MASTER: u16 = 6;

/// Registers.
const IV_POSITION: u64 = 8;
const DOORBELL: u64 = 12;

/// Why the region of a PCI function cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VfioRegionError {
    /// Not the address of a PCI function.
    #[error("a PCI address is needed, such as 0000:00:05.0")]
    Address,
    /// VFIO does not hand it out.
    #[error("the function cannot be had by VFIO: {0}")]
    Vfio(#[source] Box<dyn Error + Send + Sync>),
    /// The function is another device.
    #[error("the function is no ivshmem-doorbell of revision {REVISION}")]
    OtherDevice,
    /// The endpoint cannot be in the region.
    #[error(transparent)]
    Region(#[from] RegionError),
}

impl From<VfioError> for VfioRegionError {
    fn from(error: VfioError) -> Self {
        Self::Vfio(error.into())
    }
}

impl From<rustix::io::Errno> for VfioRegionError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Region(errno.into())
    }
}

impl From<DeviceError> for VfioRegionError {
    fn from(error: DeviceError) -> Self {
        Self::Region(error.into())
    }
}

impl Region {
    /// Joins the region of an ivshmem-doorbell function that is bound to `vfio-pci`. `address` is its PCI address, such as
    /// `0000:00:05.0`.
    ///
    /// # Errors
    /// If the function cannot be had, or has no region of a server.
    pub fn open_vfio(address: &str) -> Result<Self, VfioRegionError> {
        let function = Function::open(address)?;
        let geometry = geometry_of(&function.memory)?;
        if geometry.liveness() != Liveness::Server {
            return Err(RegionError::Layout(LayoutError::Liveness(0)).into());
        }
        if function.slot >= geometry.slots() {
            return Err(RegionError::NoSuchSlot(function.slot).into());
        }
        Ok(Self::join(Arc::new(function), geometry, Manner::Mapping)?)
    }
}

/// The function.
struct Function {
    memory: Arc<Memory>,
    device: VfioDevice,
    slot: usize,
    /// Signalled by interrupts.
    own: Eventfd,
    /// Rung by [`Attachment::wake`].
    call: Eventfd,
}

impl Function {
    fn open(address: &str) -> Result<Self, VfioRegionError> {
        if !is_address(address) {
            return Err(VfioRegionError::Address);
        }
        let container = Arc::new(VfioContainer::new(None)?);
        let path = Path::new("/sys/bus/pci/devices").join(address);
        let device = VfioDevice::new(&path, container, false)?;
        check_identity(&device)?;
        let command = u16::from_le_bytes(read(&device, VFIO_PCI_CONFIG_REGION_INDEX, COMMAND));
        let command = command | MEMORY_AND_MASTER;
        device.region_write(VFIO_PCI_CONFIG_REGION_INDEX, &command.to_le_bytes(), COMMAND);
        let memory = Arc::new(map(&device)?);
        let own = take_interrupts(&device)?;
        let slot = u32::from_le_bytes(read(&device, VFIO_PCI_BAR0_REGION_INDEX, IV_POSITION));
        // What is no number of a client is no slot either.
        let slot = usize::try_from(slot).unwrap_or(usize::MAX);
        Ok(Self { memory, device, slot, own, call: Eventfd::new()? })
    }
}

fn check_identity(device: &VfioDevice) -> Result<(), VfioRegionError> {
    let identity = u32::from_le_bytes(read(device, VFIO_PCI_CONFIG_REGION_INDEX, 0));
    let [revision] = read(device, VFIO_PCI_CONFIG_REGION_INDEX, CLASS);
    if (identity, revision) == (IVSHMEM, REVISION) { Ok(()) } else { Err(VfioRegionError::OtherDevice) }
}

/// Maps the region, the memory of BAR 2.
fn map(device: &VfioDevice) -> Result<Memory, VfioRegionError> {
    let bar = VFIO_PCI_BAR2_REGION_INDEX;
    let len = usize::try_from(device.get_region_size(bar)).unwrap_or(0);
    if len == 0 || device.get_region_flags(bar) & VFIO_REGION_INFO_FLAG_MMAP == 0 {
        return Err(VfioRegionError::OtherDevice);
    }
    Ok(Memory::map_at(borrow(device), device.get_region_offset(bar), len)?)
}

/// Has the first interrupt of the function signalled here.
fn take_interrupts(device: &VfioDevice) -> Result<Eventfd, VfioRegionError> {
    let interrupt = EventFd::new(EFD_NONBLOCK).map_err(RegionError::Io)?;
    device.enable_msix(vec![&interrupt])?;
    let fd = borrow(&interrupt).try_clone_to_owned().map_err(RegionError::Io)?;
    Eventfd::of(fd).map_err(|_| VfioRegionError::OtherDevice)
}

/// What stands there. All bits set if it cannot be read, as by a function that is not there.
fn read<const N: usize>(device: &VfioDevice, region: u32, offset: u64) -> [u8; N] {
    let mut bytes = [0xff; N];
    device.region_read(region, &mut bytes, offset);
    bytes
}

impl Attachment for Function {
    fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    fn slot(&self) -> usize {
        self.slot
    }

    fn is_belled(&self) -> bool {
        true
    }

    fn ring(&self, slot: usize) {
        if let Ok(slot) = u16::try_from(slot) {
            // Vector 0. QEMU drops it if there is no such client.
            let ring = u32::from(slot) << 16;
            self.device.region_write(VFIO_PCI_BAR0_REGION_INDEX, &ring.to_le_bytes(), DOORBELL);
        }
    }

    fn wait(&self, timeout: Duration) {
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut fds =
            [&self.own, &self.call].map(|bell| PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN));
        let _ = poll(&mut fds, Some(&timeout));
        self.own.clear();
        self.call.clear();
    }

    fn wake(&self) {
        self.call.ring();
    }

    fn connection(&self, slot: usize) -> Option<u64> {
        connections::look(&self.memory, slot)
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("slot", &self.slot).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_refused() {
        assert!(matches!(Region::open_vfio("5"), Err(VfioRegionError::Address)));
    }
}
