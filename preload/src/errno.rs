//! How the C library reports errors.

use std::io;

use libc::{c_int, ssize_t};

/// Sets `errno` of this thread.
pub(crate) fn set(code: c_int) {
    // SAFETY: the address is that of this thread's `errno`, and valid as long as the thread is.
    unsafe { *libc::__errno_location() = code };
}

/// `errno` of this thread.
pub(crate) fn get() -> c_int {
    // SAFETY: as in `set`.
    unsafe { *libc::__errno_location() }
}

/// The code of an error.
pub(crate) fn of(error: &io::Error) -> c_int {
    error.raw_os_error().unwrap_or(match error.kind() {
        io::ErrorKind::WouldBlock => libc::EAGAIN,
        io::ErrorKind::Interrupted => libc::EINTR,
        io::ErrorKind::BrokenPipe => libc::EPIPE,
        io::ErrorKind::NotConnected => libc::ENOTCONN,
        io::ErrorKind::TimedOut => libc::ETIMEDOUT,
        io::ErrorKind::Unsupported => libc::EOPNOTSUPP,
        io::ErrorKind::InvalidInput => libc::EINVAL,
        io::ErrorKind::OutOfMemory => libc::ENOMEM,
        // What a peer did that no TCP peer could do.
        _ => libc::ECONNRESET,
    })
}

/// Reports an error as the C library does.
pub(crate) fn fail(code: c_int) -> c_int {
    set(code);
    -1
}

/// Reports the result of a call that moves bytes.
pub(crate) fn bytes(result: io::Result<usize>) -> ssize_t {
    match result {
        Ok(n) => ssize_t::try_from(n).unwrap_or(ssize_t::MAX),
        Err(error) => {
            set(of(&error));
            -1
        }
    }
}

/// Runs what the program has not asked for: whatever happens in it, `errno` is as before. It may not unwind into the
/// program; what panics is a bug of ours, and counts as nothing done.
pub(crate) fn quietly<T>(work: impl FnOnce() -> T) -> Option<T> {
    let before = get();
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok();
    set(before);
    done
}
