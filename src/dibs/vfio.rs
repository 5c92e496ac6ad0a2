//! PCI functions by the kernel's VFIO: a function is opened, its regions are found, it rings eventfds, and finds memory of this
//! process.
//!
//! A function has to be bound to a driver of VFIO, and the descriptors have to be this user's: of its group
//! (`/dev/vfio/NUMBER`), or of the function itself (`/dev/vfio/devices/vfioNUMBER`) and `/dev/iommu`.
//!
//! Group and container are those of the crate `vfio-ioctls`. With iommufd it needs crates of KVM, which do not know s390x; and
//! its table of regions is shifted where the kernel lacks one, as that of ISM functions does. So these calls are made here.
#![allow(unsafe_code)]

use std::{
    error::Error,
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    io::Errno,
    ioctl::{Opcode, Updater, ioctl, opcode},
};
use vfio_ioctls::{VfioContainer, VfioDevice};

use super::Memory;

const GET_INFO: Opcode = opcode::none(b';', 107);
const GET_REGION_INFO: Opcode = opcode::none(b';', 108);
const GET_IRQ_INFO: Opcode = opcode::none(b';', 109);
const SET_IRQS: Opcode = opcode::none(b';', 110);
const BIND_IOMMUFD: Opcode = opcode::none(b';', 118);
const ATTACH_PT: Opcode = opcode::none(b';', 119);
const IOAS_ALLOC: Opcode = opcode::none(b';', 0x81);
const IOAS_MAP: Opcode = opcode::none(b';', 0x85);
const IOAS_UNMAP: Opcode = opcode::none(b';', 0x86);

/// Words in what a function tells of itself.
const INFO: usize = 256;

/// At a fixed address, readable and writable.
const MAP_FLAGS: u32 = 7;
const EVENTFD_TRIGGER: u32 = 0x24;
const NONE_TRIGGER: u32 = 0x21;

/// What a call of the kernel is given, and gives back. Its first word says how many bytes it has, but where another does.
#[repr(C, align(8))]
struct Words<const N: usize>([u32; N]);

/// Makes a call that changes nothing but these words.
///
/// # Safety
/// The kernel reads and writes no more for this call than the words, or than their first one says; and what it does with
/// memory and descriptors that they name is all right.
unsafe fn call<const CALL: Opcode, const N: usize>(fd: impl AsFd, words: [u32; N]) -> io::Result<[u32; N]> {
    let mut words = Words(words);
    // SAFETY: promised by the caller.
    unsafe { ioctl(fd, Updater::<CALL, Words<N>>::new(&mut words)) }?;
    Ok(words.0)
}

/// A region of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Region {
    /// Where it is in the file.
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// How a function comes to memory.
enum Iommu {
    /// By the group that it is in.
    Container(Arc<VfioContainer>, VfioDevice),
    /// By itself.
    Iommufd { function: File, iommufd: File, space: u32 },
}

/// A function. When it is dropped, it lets go of all memory.
pub(super) struct Function(Iommu);

impl Function {
    /// Opens the function at this address, such as `0000:00:05.0`: by its group, or else by iommufd.
    ///
    /// # Errors
    /// If neither can be had: the error of the group.
    pub(super) fn open(address: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let path = Path::new("/sys/bus/pci/devices").join(address);
        Self::by_group(&path).or_else(|error| Self::by_iommufd(&path).map_err(|_| error))
    }

    /// By the group that the function is in.
    pub(super) fn by_group(path: &Path) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let container = Arc::new(VfioContainer::new(None)?);
        let device = VfioDevice::new(path, container.clone(), false)?;
        Ok(Self(Iommu::Container(container, device)))
    }

    /// By iommufd.
    pub(super) fn by_iommufd(path: &Path) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let open = |path: &Path| File::options().read(true).write(true).open(path);
        let (function, iommufd) = (open(&own_device(path)?)?, open(Path::new("/dev/iommu"))?);
        // A descriptor is not negative.
        let number = iommufd.as_raw_fd() as u32;
        // SAFETY: `vfio_device_bind_iommufd`, `iommu_ioas_alloc` and `vfio_device_attach_iommufd_pt`, whose lengths are these;
        // the one descriptor they name is open.
        let space = unsafe {
            call::<BIND_IOMMUFD, 4>(&function, [16, 0, number, 0])?;
            let [_, _, space] = call::<IOAS_ALLOC, 3>(&iommufd, [12, 0, 0])?;
            call::<ATTACH_PT, 3>(&function, [12, 0, space])?;
            space
        };
        Ok(Self(Iommu::Iommufd { function, iommufd, space }))
    }

    /// What the function tells of itself: `vfio_device_info`, and capabilities.
    pub(super) fn info(&self) -> io::Result<Vec<u8>> {
        let mut words = [0; INFO];
        words[0] = size_of_val(&words) as u32;
        // SAFETY: `vfio_device_info`, with room for capabilities, as long as it says.
        let words = unsafe { call::<GET_INFO, INFO>(self, words)? };
        Ok(words.iter().flat_map(|word| word.to_ne_bytes()).collect())
    }

    /// A region, by VFIO's number.
    pub(super) fn region(&self, index: u32) -> io::Result<Region> {
        // SAFETY: `vfio_region_info`, as long as it says.
        let [_, _, _, _, s0, s1, o0, o1] =
            unsafe { call::<GET_REGION_INFO, 8>(self, [32, 0, index, 0, 0, 0, 0, 0])? };
        Ok(Region { size: joined(s0, s1), offset: joined(o0, o1) })
    }

    /// Interrupts of this kind.
    pub(super) fn irqs(&self, index: u32) -> io::Result<u32> {
        // SAFETY: `vfio_irq_info`, as long as it says.
        let [_, _, _, count] = unsafe { call::<GET_IRQ_INFO, 4>(self, [16, 0, index, 0])? };
        Ok(count)
    }

    /// Has the first interrupt of a kind ring an eventfd, or nothing.
    pub(super) fn set_irq(&self, index: u32, eventfd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let words = match eventfd {
            // A descriptor is not negative.
            Some(fd) => [24, EVENTFD_TRIGGER, index, 0, 1, fd.as_raw_fd() as u32],
            None => [20, NONE_TRIGGER, index, 0, 0, 0],
        };
        // SAFETY: `vfio_irq_set` with a descriptor, which is open, or without; as long as it says.
        unsafe { call::<SET_IRQS, 6>(self, words) }.map(|_| ())
    }

    /// Has the function find memory at an address. It is to be kept until the function is dropped, or has let go of it.
    pub(super) fn map(&self, iova: u64, memory: &Memory) -> io::Result<()> {
        let ([i0, i1], [l0, l1]) = (split(iova), split(memory.len() as u64));
        match &self.0 {
            // SAFETY: the memory is a shared mapping, which is only touched as if others wrote to it at any time (see
            // `memory.rs`). Its pages stay with the function as long as it has them, whatever becomes of the mapping.
            Iommu::Container(container, _) => unsafe {
                container.vfio_dma_map(iova, memory.len(), memory.address()).map_err(io::Error::other)
            },
            Iommu::Iommufd { iommufd, space, .. } => {
                let [a0, a1] = split(memory.address() as u64);
                let words = [40, MAP_FLAGS, *space, 0, a0, a1, l0, l1, i0, i1];
                // SAFETY: `iommu_ioas_map`, as long as it says; of the memory as above.
                unsafe { call::<IOAS_MAP, 10>(iommufd, words) }.map(|_| ())
            }
        }
    }

    /// Takes memory away from the function.
    pub(super) fn unmap(&self, iova: u64, len: usize) -> io::Result<()> {
        let ([i0, i1], [l0, l1]) = (split(iova), split(len as u64));
        match &self.0 {
            Iommu::Container(container, _) => container.vfio_dma_unmap(iova, len).map_err(io::Error::other),
            Iommu::Iommufd { iommufd, space, .. } => {
                // SAFETY: `iommu_ioas_unmap`, as long as it says.
                unsafe { call::<IOAS_UNMAP, 6>(iommufd, [24, *space, i0, i1, l0, l1]) }.map(|_| ())
            }
        }
    }
}

impl AsFd for Function {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Iommu::Container(_, device) => borrow(device),
            Iommu::Iommufd { function, .. } => function.as_fd(),
        }
    }
}

/// The descriptor of something that gives its number only.
pub(super) fn borrow(of: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is that of `of`, which has it open as long as it lives, and so as long as this is borrowed.
    unsafe { BorrowedFd::borrow_raw(of.as_raw_fd()) }
}

/// `/dev/vfio/devices/vfioNUMBER` of a function.
fn own_device(path: &Path) -> io::Result<PathBuf> {
    let entry = fs::read_dir(path.join("vfio-dev"))?.next().ok_or(Errno::NODEV)??;
    Ok(Path::new("/dev/vfio/devices").join(entry.file_name()))
}

/// True for addresses such as `0000:00:05.0`.
pub(super) fn is_address(text: &str) -> bool {
    let shape: Vec<_> = text.split([':', '.']).map(str::len).collect();
    shape == [4, 2, 2, 1] && text.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte))
}

/// A number as two words in memory.
fn split(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

/// The number of two words in memory.
fn joined(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_shape() {
        assert!(is_address("0000:00:05.0") && is_address("00fF:ab:1f.7"));
        for wrong in
            ["", "00:05.0", "0000:00:05", "../0000:00:05.0", "0000:00:05.0/", "0000.00.05.00", "000g:00:05.0"]
        {
            assert!(!is_address(wrong), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_words() {
        let number = 0x0123_4567_89ab_cdef;
        let [first, second] = split(number);
        assert_eq!(joined(first, second), number);
    }
}
