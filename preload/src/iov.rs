//! Memory of the program, as it describes it to the C library.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    slice,
};

use bytes::{BufMut, buf::UninitSlice};
use libc::{c_int, c_void, iovec, size_t};
use smallvec::SmallVec;

/// Pieces that need no memory of their own.
type Few<T> = SmallVec<[T; 16]>;

/// Memory to read into, piece by piece.
///
/// Nothing but the program's word says that the memory is there. The kernel finds out that it is not; here, only a null
/// pointer, or one close to it, is seen for what it is, and any other ends the program.
#[derive(Debug)]
pub(crate) struct Room {
    /// Those that are not full, the next one first. None is empty.
    pieces: Few<iovec>,
    at: usize,
    left: usize,
}

impl Room {
    /// # Safety
    /// The memory belongs to the caller and may be written, as long as this lives.
    pub(crate) unsafe fn one(base: *mut c_void, len: size_t) -> Self {
        let piece = iovec { iov_base: base, iov_len: len.min(isize::MAX as usize) };
        Self::of(slice::from_ref(&piece))
    }

    /// # Errors
    /// `EINVAL` if there are more than the kernel takes, or longer ones.
    ///
    /// # Safety
    /// `pieces` are so many, and as for [`Room::one`] each.
    pub(crate) unsafe fn many(pieces: *const iovec, count: c_int) -> io::Result<Self> {
        // SAFETY: the caller promises it.
        Ok(Self::of(unsafe { vector(pieces, count) }?))
    }

    fn of(pieces: &[iovec]) -> Self {
        let pieces: Few<iovec> = pieces.iter().copied().filter(|piece| piece.iov_len > 0).collect();
        let left = pieces.iter().fold(0usize, |sum, piece| sum.saturating_add(piece.iov_len));
        Self { pieces, at: 0, left }
    }

    /// To be called before anything is written here.
    ///
    /// # Errors
    /// `EFAULT` if nothing can be there.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.pieces.iter().try_for_each(|piece| check(piece.iov_base))
    }
}

// SAFETY: `chunk_mut` gives memory that may be written, and `advance_mut` moves on within it.
unsafe impl BufMut for Room {
    fn remaining_mut(&self) -> usize {
        self.left
    }

    unsafe fn advance_mut(&mut self, mut n: usize) {
        self.left = self.left.saturating_sub(n);
        while let Some(piece) = self.pieces.get_mut(self.at).filter(|_| n > 0) {
            let step = n.min(piece.iov_len);
            piece.iov_base = piece.iov_base.wrapping_byte_add(step);
            piece.iov_len -= step;
            n -= step;
            if piece.iov_len == 0 {
                self.at += 1;
            }
        }
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        match self.pieces.get(self.at) {
            // SAFETY: who made this has promised that the memory may be written; it is not empty, so it is not null
            // either in a program that is right.
            Some(piece) => UninitSlice::uninit(unsafe {
                slice::from_raw_parts_mut(piece.iov_base.cast::<MaybeUninit<u8>>(), piece.iov_len)
            }),
            None => UninitSlice::uninit(&mut []),
        }
    }
}

/// Where no program has memory: the first page, which Linux keeps free.
const NOWHERE: usize = 4096;

/// `EFAULT` if nothing can be there.
fn check(base: *const c_void) -> io::Result<()> {
    if base.addr() < NOWHERE { Err(io::Error::from_raw_os_error(libc::EFAULT)) } else { Ok(()) }
}

/// Memory to write from.
///
/// # Errors
/// As [`Room::check`].
///
/// # Safety
/// It belongs to the caller and stays as it is, as long as the result lives.
pub(crate) unsafe fn data<'a>(base: *const c_void, len: size_t) -> io::Result<IoSlice<'a>> {
    if len == 0 {
        return Ok(IoSlice::new(&[]));
    }
    check(base)?;
    // SAFETY: the caller promises it.
    Ok(IoSlice::new(unsafe { slice::from_raw_parts(base.cast(), len.min(isize::MAX as usize)) }))
}

/// Memory to write from, in pieces.
///
/// # Errors
/// As [`Room::many`] and [`Room::check`].
///
/// # Safety
/// `pieces` are so many, and as for [`data`] each.
pub(crate) unsafe fn data_of<'a>(pieces: *const iovec, count: c_int) -> io::Result<Few<IoSlice<'a>>> {
    // SAFETY: the caller promises it.
    let pieces = unsafe { vector(pieces, count) }?;
    let full = pieces.iter().filter(|piece| piece.iov_len > 0);
    // SAFETY: the caller promises it.
    full.map(|piece| unsafe { data(piece.iov_base, piece.iov_len) }).collect()
}

/// # Safety
/// `pieces` are so many.
unsafe fn vector<'a>(pieces: *const iovec, count: c_int) -> io::Result<&'a [iovec]> {
    let refused = || io::Error::from_raw_os_error(libc::EINVAL);
    let count = usize::try_from(count).ok().filter(|count| *count <= 1024).ok_or_else(refused)?;
    if count > 0 {
        check(pieces.cast())?;
    }
    // SAFETY: the caller promises it.
    let pieces = if count == 0 { &[] } else { unsafe { slice::from_raw_parts(pieces, count) } };
    let total = pieces.iter().try_fold(0usize, |sum, piece| sum.checked_add(piece.iov_len));
    let total = total.ok_or_else(refused)?;
    if total <= isize::MAX as usize { Ok(pieces) } else { Err(refused()) }
}
