//! `poll` and `select`.

use std::time::Duration;

use libc::{c_int, fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval};

use crate::{
    errno, poll,
    real::hook,
    select::Sets,
    table::{self, Kind},
};

/// The descriptors of a `poll`, if one is ours.
///
/// # Safety
/// There are so many, as long as the result lives.
unsafe fn ours<'a>(fds: *mut pollfd, count: nfds_t) -> Option<&'a mut [pollfd]> {
    let count = usize::try_from(count).ok().filter(|count| *count > 0 && !fds.is_null())?;
    // SAFETY: the caller promises it.
    let fds = unsafe { std::slice::from_raw_parts_mut(fds, count) };
    fds.iter().any(|fd| table::kind(fd.fd) == Kind::Entry).then_some(fds)
}

/// A time in milliseconds, as `poll` and `epoll_wait` have it: nothing if negative. Rounded up, so as not to ask too
/// early.
pub(super) fn milliseconds(limit: Option<Duration>) -> c_int {
    limit.map_or(-1, |limit| c_int::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX))
}

/// The other way.
pub(super) fn from_milliseconds(limit: c_int) -> Option<Duration> {
    u64::try_from(limit).ok().map(Duration::from_millis)
}

pub(super) fn to_timespec(limit: Duration) -> timespec {
    timespec {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    }
}

/// True if the kernel refuses this time.
///
/// # Safety
/// It may be read.
pub(super) unsafe fn is_wrong(limit: *const timespec) -> bool {
    // SAFETY: the caller promises it.
    unsafe { limit.as_ref() }
        .is_some_and(|limit| limit.tv_sec < 0 || !(0..1_000_000_000).contains(&limit.tv_nsec))
}

/// A time that the program has given, or none.
///
/// # Safety
/// It may be read.
pub(super) unsafe fn from_timespec(limit: *const timespec) -> Option<Duration> {
    // SAFETY: the caller promises it.
    let limit = unsafe { limit.as_ref() }?;
    Some(Duration::new(u64::try_from(limit.tv_sec).unwrap_or(0), u32::try_from(limit.tv_nsec).unwrap_or(0)))
}

/// Does what does not change `errno` unless it fails.
fn keeping(work: impl FnOnce() -> c_int) -> c_int {
    let before = errno::get();
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(result) if result >= 0 => {
            errno::set(before);
            result
        }
        Ok(result) => result,
        Err(_) => errno::fail(libc::ENOMEM),
    }
}

hook! {
    /// `poll`
    fn poll(fds: *mut pollfd, count: nfds_t, limit: c_int) -> c_int, kernel => {
        // SAFETY: the program gives us these until we return.
        let Some(fds) = (unsafe { ours(fds, count) }) else { return kernel(fds, count, limit) };
        keeping(|| poll::poll(fds, from_milliseconds(limit), |fds, limit| {
            kernel(fds.as_mut_ptr(), fds.len() as nfds_t, milliseconds(limit))
        }))
    }
}

hook! {
    /// `poll`, fortified
    fn __poll_chk(fds: *mut pollfd, count: nfds_t, limit: c_int, room: size_t) -> c_int, kernel => {
        if room / size_of::<pollfd>() < count as usize {
            return kernel(fds, count, limit, room);
        }
        // SAFETY: it is a function of ours, and takes what the program gives.
        unsafe { self::poll(fds, count, limit) }
    }
}

hook! {
    /// `ppoll`
    fn ppoll(fds: *mut pollfd, count: nfds_t, limit: *const timespec, mask: *const sigset_t) -> c_int, kernel => {
        // SAFETY: the program gives us these until we return.
        let ours = unsafe { ours(fds, count) };
        // SAFETY: the program gives us a time or null.
        let Some(fds) = ours.filter(|_| !unsafe { is_wrong(limit) }) else { return kernel(fds, count, limit, mask) };
        // SAFETY: as above.
        let limit = unsafe { from_timespec(limit) };
        keeping(|| poll::poll(fds, limit, |fds, limit| {
            let limit = limit.map(to_timespec);
            let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            kernel(fds.as_mut_ptr(), fds.len() as nfds_t, limit, mask)
        }))
    }
}

hook! {
    /// `ppoll`, fortified
    fn __ppoll_chk(fds: *mut pollfd, count: nfds_t, limit: *const timespec, mask: *const sigset_t, room: size_t)
        -> c_int, kernel => {
        if room / size_of::<pollfd>() < count as usize {
            return kernel(fds, count, limit, mask, room);
        }
        // SAFETY: it is a function of ours, and takes what the program gives.
        unsafe { self::ppoll(fds, count, limit, mask) }
    }
}

/// Has `ppoll` of ours do the work of a `select`.
fn by_poll(fds: &mut [pollfd], limit: Option<Duration>, mask: *const sigset_t) -> c_int {
    let limit = limit.map(to_timespec);
    let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: it is a function of ours; the pointers are to what we have here, and the mask is the program's.
    unsafe { self::ppoll(fds.as_mut_ptr(), fds.len() as nfds_t, limit, mask) }
}

hook! {
    /// `select`
    fn select(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, limit: *mut timeval) -> c_int,
        kernel => {
        // SAFETY: the program gives us these until we return.
        let sets = unsafe { Sets::new(count, [read, write, except]) };
        // SAFETY: the program gives us a time or null.
        let is_wrong = unsafe { limit.as_ref() }.is_some_and(|limit| limit.tv_sec < 0 || limit.tv_usec < 0);
        if !sets.has_ours() || is_wrong {
            return kernel(count, read, write, except, limit);
        }
        let start = std::time::Instant::now();
        // SAFETY: the program gives us a time or null.
        let time = unsafe { limit.as_ref() }.map(|limit| {
            Duration::from_secs(u64::try_from(limit.tv_sec).unwrap_or(0))
                + Duration::from_micros(u64::try_from(limit.tv_usec).unwrap_or(0))
        });
        let result = sets.wait(time, |fds, limit| by_poll(fds, limit, std::ptr::null()));
        // SAFETY: as above. The kernel says so, too, how much is left.
        if let (Some(time), Some(limit)) = (time, unsafe { limit.as_mut() }) {
            let left = time.saturating_sub(start.elapsed());
            limit.tv_sec = libc::time_t::try_from(left.as_secs()).unwrap_or(0);
            limit.tv_usec = left.subsec_micros().into();
        }
        result
    }
}

hook! {
    /// `pselect`
    fn pselect(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, limit: *const timespec,
        mask: *const sigset_t) -> c_int, kernel => {
        // SAFETY: the program gives us these until we return.
        let sets = unsafe { Sets::new(count, [read, write, except]) };
        // SAFETY: the program gives us a time or null.
        if !sets.has_ours() || unsafe { is_wrong(limit) } {
            return kernel(count, read, write, except, limit, mask);
        }
        // SAFETY: as above.
        let limit = unsafe { from_timespec(limit) };
        sets.wait(limit, |fds, limit| by_poll(fds, limit, mask))
    }
}
