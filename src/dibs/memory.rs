//! Memory that another process, or another machine, writes at any time.
//!
//! The rules of this file, the only one in which shared memory is touched:
//! no Rust reference to plain bytes of a mapping ever exists; words that a peer may write are reached as atomics
//! and loaded once; every range is checked against the length of *our* mapping, never against anything in it.
#![allow(unsafe_code)]

use std::{
    ffi::c_void,
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use bytes::BufMut;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::DeviceError;

/// Where a part may begin.
const PAGE: usize = 4096;

/// A shared mapping, or a part of one. Unmapped when the last of its parts is dropped.
pub struct Memory {
    base: NonNull<u8>,
    len: usize,
    _mapping: Arc<Mapping>,
}

/// What was mapped, and is unmapped on drop.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread; this only remembers where it is.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

// SAFETY: the mapping belongs to the process, not to a thread, and all access goes through raw copies or atomics.
unsafe impl Send for Memory {}
// SAFETY: as above; concurrent access yields unspecified bytes at worst, as it does with a writing peer.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps the first `len` bytes of `fd`, readable and writable, shared.
    ///
    /// The caller has made sure that the file has and keeps at least `len` bytes (a sealed memfd), otherwise an
    /// access would raise `SIGBUS`.
    pub(crate) fn map(fd: impl AsFd, len: usize) -> Result<Self, DeviceError> {
        Self::map_at(fd, 0, len)
    }

    /// As [`Memory::map`], for `len` bytes from `offset` on, a multiple of the size of a page.
    pub(crate) fn map_at(fd: impl AsFd, offset: u64, len: usize) -> Result<Self, DeviceError> {
        // SAFETY: no address is asked for, so no existing mapping is replaced.
        let base = unsafe {
            mmap(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, offset)
        }?;
        Self::of_mapping(base, len)
    }

    /// `len` bytes that only this process and its children have, all zero.
    pub(crate) fn anonymous(len: usize) -> Result<Self, DeviceError> {
        // SAFETY: as for `map`.
        let base = unsafe {
            mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)
        }?;
        Self::of_mapping(base, len)
    }

    /// Takes over a new mapping.
    fn of_mapping(base: *mut c_void, len: usize) -> Result<Self, DeviceError> {
        match NonNull::new(base.cast()) {
            Some(base) => Ok(Self { base, len, _mapping: Arc::new(Mapping { base, len }) }),
            None => Err(DeviceError::Io(std::io::ErrorKind::OutOfMemory.into())),
        }
    }

    /// The `len` bytes at `offset`, a multiple of the size of a page, for themselves.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] if they do not all lie within this memory, or do not begin at a page.
    pub(crate) fn part(&self, offset: usize, len: usize) -> Result<Self, DeviceError> {
        self.check(offset, len)?;
        if !offset.is_multiple_of(PAGE) {
            return Err(DeviceError::OutOfRange { offset, len, size: self.len });
        }
        // SAFETY: `offset` is not larger than the length of this memory, which is one allocation.
        let base = unsafe { self.base.add(offset) };
        Ok(Self { base, len, _mapping: self._mapping.clone() })
    }

    /// Where it is, for the kernel to hand it to a device.
    #[cfg(feature = "vfio")]
    pub(crate) fn address(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Length of the mapping in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: a mapping has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn check(&self, offset: usize, len: usize) -> Result<(), DeviceError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(DeviceError::OutOfRange { offset, len, size: self.len }),
        }
    }

    /// Copies the bytes at `offset` to `out`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] if they do not all lie within the mapping.
    #[inline]
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), DeviceError> {
        self.check(offset, out.len())?;
        // SAFETY: `base..base + len` stays mapped while `self` lives; the range was checked above. `out` is a Rust
        // slice, so it cannot overlap the mapping. A peer writing during the copy changes which bytes we get, not
        // where they come from or go to.
        unsafe { ptr::copy_nonoverlapping(self.base.add(offset).as_ptr(), out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    /// Copies `len` bytes at `offset` to the unfilled part of `dst`, or as many as it has room for.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] if they do not all lie within the mapping.
    #[inline]
    pub fn read_to(&self, offset: usize, len: usize, dst: &mut impl BufMut) -> Result<(), DeviceError> {
        self.check(offset, len)?;
        let (mut from, end) = (offset, offset + len);
        while from < end && dst.has_remaining_mut() {
            let chunk = dst.chunk_mut();
            let n = chunk.len().min(end - from);
            // SAFETY: `base..base + len` stays mapped while `self` lives; the range was checked above. `chunk` is
            // memory that `dst` owns, so it cannot overlap the mapping, and has room for `n` bytes. A peer writing
            // during the copy changes which bytes we get, not where they come from or go to.
            unsafe { ptr::copy_nonoverlapping(self.base.add(from).as_ptr(), chunk.as_mut_ptr(), n) };
            // SAFETY: the first `n` bytes of the chunk were just written.
            unsafe { dst.advance_mut(n) };
            from += n;
        }
        Ok(())
    }

    /// Copies `data` to `offset`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] if it does not all fit within the mapping.
    #[inline]
    pub fn write(&self, offset: usize, data: &[u8]) -> Result<(), DeviceError> {
        self.check(offset, data.len())?;
        // SAFETY: `base..base + len` stays mapped while `self` lives; the range was checked above. `data` is a Rust
        // slice, so it cannot overlap the mapping. A peer writing the same bytes meanwhile changes what it finds
        // there later; nothing of ours depends on it.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), self.base.add(offset).as_ptr(), data.len()) };
        Ok(())
    }

    /// Sets `len` bytes at `offset` to zero.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] if they do not all lie within the mapping.
    pub fn zero(&self, offset: usize, len: usize) -> Result<(), DeviceError> {
        self.check(offset, len)?;
        // SAFETY: as for `write`.
        unsafe { ptr::write_bytes(self.base.add(offset).as_ptr(), 0, len) };
        Ok(())
    }

    /// The 64-bit word at `offset`, which must be a multiple of 8.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] if the word is not aligned or not within the mapping.
    #[inline]
    pub fn word64(&self, offset: usize) -> Result<&AtomicU64, DeviceError> {
        self.check(offset, 8)?;
        if !offset.is_multiple_of(8) {
            return Err(DeviceError::OutOfRange { offset, len: 8, size: self.len });
        }
        // SAFETY: in bounds and aligned (memory starts at a page), mapped while `self` lives. Every access that
        // goes through Rust types is atomic; a peer that writes meanwhile gives us one of the values it wrote.
        Ok(unsafe { AtomicU64::from_ptr(self.base.add(offset).cast().as_ptr()) })
    }

    /// The 32-bit word at `offset`, which must be a multiple of 4.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] if the word is not aligned or not within the mapping.
    #[inline]
    pub fn word32(&self, offset: usize) -> Result<&AtomicU32, DeviceError> {
        self.check(offset, 4)?;
        if !offset.is_multiple_of(4) {
            return Err(DeviceError::OutOfRange { offset, len: 4, size: self.len });
        }
        // SAFETY: as for `word64`.
        Ok(unsafe { AtomicU32::from_ptr(self.base.add(offset).cast().as_ptr()) })
    }

    /// `count` 64-bit words from `offset` on, which must be a multiple of 8.
    ///
    /// # Errors
    /// As [`Memory::word64`], for any of them.
    pub(crate) fn words64(&self, offset: usize, count: usize) -> Result<&[AtomicU64], DeviceError> {
        let out_of_range = DeviceError::OutOfRange { offset, len: count, size: self.len };
        let Some(len) = count.checked_mul(8).filter(|_| offset.is_multiple_of(8)) else {
            return Err(out_of_range);
        };
        self.check(offset, len)?;
        // SAFETY: in bounds and aligned, and mapped while `self` lives. The slice is of atomics, so whoever else writes
        // there meanwhile gives us one of the values it wrote.
        Ok(unsafe { std::slice::from_raw_parts(self.base.add(offset).cast().as_ptr(), count) })
    }

    /// Leaves the file to the others that map it: from now on the same addresses are memory of this process alone, all
    /// zero. For a child after `fork`.
    pub(crate) fn detach(&self) -> Result<(), DeviceError> {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: exactly the range of our own mapping is replaced, by one with the same access and length, so all that
        // points into it stays valid. Its content changes, as any peer could change it.
        unsafe {
            mmap_anonymous(self.base.as_ptr().cast(), self.len, ProtFlags::READ | ProtFlags::WRITE, flags)
        }?;
        Ok(())
    }

    /// Takes the one look at the word at `offset`; what was written before it is visible afterwards.
    ///
    /// # Errors
    /// As [`Memory::word64`].
    #[inline]
    pub fn load(&self, offset: usize) -> Result<u64, DeviceError> {
        Ok(self.word64(offset)?.load(Ordering::Acquire))
    }

    /// Stores the word at `offset`, after everything that was written before.
    ///
    /// # Errors
    /// As [`Memory::word64`].
    #[inline]
    pub fn store(&self, offset: usize, value: u64) -> Result<(), DeviceError> {
        self.word64(offset)?.store(value, Ordering::Release);
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are those of a mapping of ours; all memory that lies in it is gone.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Memory({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    fn memory(len: usize) -> Memory {
        let fd = memfd_create("smcd-test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, len as u64).unwrap();
        Memory::map(&fd, len).unwrap()
    }

    #[test]
    fn ranges_outside_the_mapping_are_refused() {
        let m = memory(4096);
        let mut out = [0; 8];
        assert!(m.read(4088, &mut out).is_ok());
        for offset in [4089, 4096, usize::MAX - 3, usize::MAX] {
            assert!(matches!(m.read(offset, &mut out), Err(DeviceError::OutOfRange { .. })));
            assert!(matches!(m.write(offset, &out), Err(DeviceError::OutOfRange { .. })));
            assert!(m.zero(offset, 8).is_err());
            assert!(m.word64(offset).is_err());
            assert!(m.word32(offset).is_err());
            assert!(m.words64(offset & !7, 2).is_err());
        }
        assert_eq!(m.words64(4080, 2).unwrap().len(), 2);
        for count in [3, usize::MAX / 8, usize::MAX] {
            assert!(m.words64(4080, count).is_err());
        }
        assert!(m.words64(4, 1).is_err());
    }

    #[test]
    fn what_is_detached_is_private_and_zero() {
        let fd = memfd_create("smcd-test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, 4096).unwrap();
        let (ours, theirs) = (Memory::map(&fd, 4096).unwrap(), Memory::map(&fd, 4096).unwrap());
        let word = ours.word64(8).unwrap();
        word.store(1, Ordering::Relaxed);
        ours.detach().unwrap();
        assert_eq!(word.swap(2, Ordering::Relaxed), 0);
        assert_eq!(theirs.load(8).unwrap(), 1);
    }

    #[test]
    fn a_part_is_the_same_memory_and_no_more_of_it() {
        let whole = memory(12288);
        let part = whole.part(4096, 4096).unwrap();
        part.write(8, b"part").unwrap();
        let mut out = [0; 4];
        whole.read(4104, &mut out).unwrap();
        assert_eq!(&out, b"part");
        assert!(part.write(4093, b"over").is_err());
        for (offset, len) in [(8192, 4097), (4095, 4096), (12289, 0), (usize::MAX - 4095, 4096)] {
            assert!(whole.part(offset, len).is_err());
        }
        // The part keeps what it lies in.
        drop(whole);
        part.read(8, &mut out).unwrap();
        assert_eq!(&out, b"part");
    }

    #[test]
    fn misaligned_words_are_refused() {
        let m = memory(4096);
        assert!(m.word64(4).is_err());
        assert!(m.word32(2).is_err());
    }

    #[test]
    fn what_is_written_is_read() {
        let m = memory(8192);
        m.write(100, b"hello").unwrap();
        let mut out = [0; 5];
        m.read(100, &mut out).unwrap();
        assert_eq!(&out, b"hello");
        m.zero(101, 3).unwrap();
        m.read(100, &mut out).unwrap();
        assert_eq!(&out, b"h\0\0\0o");
        m.store(8, 7).unwrap();
        assert_eq!(m.load(8).unwrap(), 7);
    }
}
