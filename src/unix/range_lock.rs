//! A lock on one byte of a file, which belongs to the open file and ends with it.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use rustix::io::Errno;

/// Tries to lock this byte for writing. False if another open file has a lock there.
pub(crate) fn try_lock(file: impl AsFd, byte: u64) -> io::Result<bool> {
    match call(file, libc::F_OFD_SETLK, byte) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// True if another open file has a lock on this byte.
pub(crate) fn is_locked(file: impl AsFd, byte: u64) -> io::Result<bool> {
    Ok(i32::from(call(file, libc::F_OFD_GETLK, byte)?.l_type) != libc::F_UNLCK)
}

fn call(file: impl AsFd, operation: libc::c_int, byte: u64) -> Result<libc::flock, Errno> {
    let start = libc::off_t::try_from(byte).map_err(|_| Errno::INVAL)?;
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is borrowed for the call, both operations take a `flock` and nothing else, and it lives on
    // our stack. Neither of them waits.
    let done = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), operation, &raw mut lock) };
    if done < 0 {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
    } else {
        Ok(lock)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_byte_is_locked_once_and_as_long_as_its_file_is_open() {
        let path = std::env::temp_dir().join(format!("smcd-lock-{}", std::process::id()));
        let open =
            || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let (ours, theirs) = (open(), open());
        assert!(try_lock(&ours, 5).unwrap() && try_lock(&ours, 5).unwrap());
        assert!(!try_lock(&theirs, 5).unwrap());
        assert!(try_lock(&theirs, 6).unwrap());
        assert!(is_locked(&theirs, 5).unwrap() && !is_locked(&ours, 5).unwrap());
        drop(ours);
        assert!(!is_locked(&theirs, 5).unwrap());
        assert!(try_lock(&theirs, 5).unwrap());
        std::fs::remove_file(path).unwrap();
    }
}
