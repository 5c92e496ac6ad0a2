//! Which number is what: closing and duplicating descriptors.

use std::{ffi::c_uint, sync::Arc};

use libc::c_int;
use smcd::raw;

use crate::{
    errno, process,
    real::hook,
    stream::Stream,
    table::{self, Entry, Kind},
};

/// A descriptor is about to be closed, or to become something else.
pub(super) fn leave(fd: c_int) {
    if table::kind(fd) == Kind::Other || !process::is_ours() {
        return;
    }
    errno::quietly(|| {
        if let Some(entry) = table::take(fd)
            && let Entry::Stream(stream) = &*entry
        {
            stream.remove_number(fd);
        }
    });
}

/// A descriptor has become the same as another.
pub(super) fn join(old: c_int, new: c_int) {
    if table::kind(old) == Kind::Other {
        return;
    }
    if !process::is_ours() {
        // Not a descriptor of ours, but one that a child makes of it for another program.
        if let Some(stream) = table::stream(old) {
            errno::quietly(|| stream.leaves_us("a child makes a copy of it"));
        }
        return;
    }
    errno::quietly(|| match table::entry(old).as_deref().and_then(|entry| entry.as_deref()) {
        Some(Entry::Stream(stream)) => {
            stream.add_number(new);
            table::put(new, Entry::Stream(stream.clone()));
            is_stdio(new, stream);
        }
        Some(Entry::Epoll(epoll)) => {
            table::put(new, Entry::Epoll(epoll.clone()));
        }
        Some(Entry::Watched(_)) | None => table::is_socket(new),
    });
}

/// What the C library does to its standard streams passes us by.
fn is_stdio(fd: c_int, stream: &Arc<Stream>) {
    if (0..=2).contains(&fd) {
        stream.leaves_us("it is a standard stream");
    }
}

hook! {
    /// `close`. Descriptors of ours are not open, as far as the program knows.
    fn close(fd: c_int) -> c_int, kernel => {
        if raw::is_kept(fd) {
            return errno::fail(libc::EBADF);
        }
        leave(fd);
        kernel(fd)
    }
}

hook! {
    /// `dup`
    fn dup(fd: c_int) -> c_int, kernel => {
        let new = kernel(fd);
        if new >= 0 {
            join(fd, new);
        }
        new
    }
}

hook! {
    /// `dup2`
    fn dup2(fd: c_int, new: c_int) -> c_int, kernel => replace(fd, new, || kernel(fd, new))
}

hook! {
    /// `dup3`
    fn dup3(fd: c_int, new: c_int, flags: c_int) -> c_int, kernel => replace(fd, new, || kernel(fd, new, flags))
}

/// Makes `new` the same as `fd`. One of ours in the way moves elsewhere first.
fn replace(fd: c_int, new: c_int, kernel: impl FnOnce() -> c_int) -> c_int {
    if fd == new {
        return kernel();
    }
    if raw::is_kept(new) {
        return errno::fail(libc::EBUSY);
    }
    // SAFETY: asks whether the descriptor is open.
    let is_open = errno::quietly(|| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0) == Some(true);
    if is_open {
        leave(new);
    }
    let result = kernel();
    if result >= 0 {
        join(fd, result);
    }
    result
}

/// The parts of a range that have no descriptor of ours in it.
fn gaps(first: c_uint, last: c_uint) -> Vec<(c_uint, c_uint)> {
    let mut gaps = Vec::new();
    let mut start = first;
    for fd in raw::kept_within(first, last) {
        if fd > start {
            gaps.push((start, fd - 1));
        }
        start = fd + 1;
    }
    if start <= last {
        gaps.push((start, last));
    }
    gaps
}

hook! {
    /// `close_range`
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int, kernel => {
        if first > last {
            return kernel(first, last, flags);
        }
        if flags & (libc::CLOSE_RANGE_CLOEXEC as c_int) == 0 {
            table::within(first as usize, last as usize).for_each(leave);
        }
        let mut result = 0;
        for (from, to) in errno::quietly(|| gaps(first, last)).unwrap_or_default() {
            result = kernel(from, to, flags);
            if result != 0 {
                break;
            }
        }
        result
    }
}

/// `closefrom`
///
/// # Safety
/// As the function of this name in the C library.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn closefrom(first: c_int) {
    // SAFETY: the program wants these closed.
    unsafe { close_range(c_uint::try_from(first).unwrap_or(0), c_uint::MAX, 0) };
}
