//! Memory that somebody else has handed over.

use std::os::fd::AsFd;

use rustix::{
    fs::{SealFlags, fcntl_get_seals, fstat, fstatfs},
    io::Errno,
};

use super::{BadDmb, DeviceError};

/// File system type of memfds with ordinary pages. Those of hugetlbfs may lack pages, and touching them kills.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Makes sure that the descriptor is memory of at least `want` bytes and stays so.
pub(super) fn check_memory(fd: impl AsFd, want: u64) -> Result<(), DeviceError> {
    let fd = fd.as_fd();
    // First: it asks no file system, which might be one of the peer's and never answer.
    match fcntl_get_seals(fd) {
        Ok(seals) if seals.contains(SealFlags::SHRINK) => {}
        Ok(_) => return Err(BadDmb::NotSealed.into()),
        Err(Errno::INVAL) => return Err(BadDmb::NotMemory.into()),
        Err(errno) => return Err(errno.into()),
    }
    if fstatfs(fd)?.f_type as u64 != TMPFS_MAGIC {
        return Err(BadDmb::NotMemory.into());
    }
    // Only now: before the seal the size could still change.
    let have = u64::try_from(fstat(fd)?.st_size).unwrap_or(0);
    if have < want { Err(BadDmb::TooSmall { have, want }.into()) } else { Ok(()) }
}
