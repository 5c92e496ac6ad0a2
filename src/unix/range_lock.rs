//! A lock on bytes of a file, which belongs to the open file and ends with it.
#![allow(unsafe_code)]

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd},
};

use rustix::io::Errno;

/// Tries to lock these bytes for writing. False, and none is locked, if another open file has a lock on any of them.
pub(crate) fn try_lock(file: impl AsFd, bytes: Range<u64>) -> io::Result<bool> {
    match call(file, libc::F_OFD_SETLK, libc::F_WRLCK, bytes) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Ends locks on these bytes. Closing the file does so too, but not before a process that was forked meanwhile closes it.
pub(crate) fn unlock(file: impl AsFd, bytes: Range<u64>) -> io::Result<()> {
    call(file, libc::F_OFD_SETLK, libc::F_UNLCK, bytes)?;
    Ok(())
}

/// True if another open file has a lock on any of these bytes.
pub(crate) fn is_locked(file: impl AsFd, bytes: Range<u64>) -> io::Result<bool> {
    Ok(i32::from(call(file, libc::F_OFD_GETLK, libc::F_WRLCK, bytes)?.l_type) != libc::F_UNLCK)
}

fn call(
    file: impl AsFd,
    operation: libc::c_int,
    kind: libc::c_int,
    bytes: Range<u64>,
) -> Result<libc::flock, Errno> {
    let place = |at: u64| libc::off_t::try_from(at).map_err(|_| Errno::INVAL);
    let mut lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: place(bytes.start)?,
        // 0 would be all there are.
        l_len: place(bytes.end.saturating_sub(bytes.start).max(1))?,
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
        assert!(try_lock(&ours, 5..6).unwrap() && try_lock(&ours, 5..6).unwrap());
        assert!(!try_lock(&theirs, 5..6).unwrap() && !try_lock(&theirs, 0..8).unwrap());
        assert!(!is_locked(&ours, 0..8).unwrap());
        assert!(try_lock(&theirs, 6..7).unwrap());
        assert!(is_locked(&theirs, 5..6).unwrap() && !is_locked(&ours, 5..6).unwrap());
        drop(ours);
        assert!(!is_locked(&theirs, 5..6).unwrap());
        assert!(try_lock(&theirs, 5..6).unwrap());
        let other_descriptor = theirs.try_clone().unwrap();
        unlock(&theirs, 5..6).unwrap();
        assert!(!is_locked(open(), 5..6).unwrap() && is_locked(open(), 6..7).unwrap());
        drop(other_descriptor);
        std::fs::remove_file(path).unwrap();
    }
}
