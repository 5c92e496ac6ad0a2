//! `epoll`.

use std::{os::fd::BorrowedFd, sync::Arc, time::Duration};

use libc::{c_int, epoll_event, sigset_t, timespec};

use super::poll::{from_milliseconds, from_timespec, milliseconds, to_timespec};
use crate::{
    epoll::{Epoll, without_inherited},
    errno,
    real::hook,
    settings,
    table::{self, Entry, Kind},
    watch::Interest,
};

/// Goes beside a new instance.
fn made(fd: c_int) -> c_int {
    if fd >= 0 && settings::is_wanted() {
        errno::quietly(|| {
            // SAFETY: the program has just made it, and cannot have closed it.
            let instance = unsafe { BorrowedFd::borrow_raw(fd) };
            table::put(fd, Entry::Epoll(Epoll::new(instance)));
        });
    }
    fd
}

hook! {
    /// `epoll_create`
    fn epoll_create(size: c_int) -> c_int, kernel => made(kernel(size))
}

hook! {
    /// `epoll_create1`
    fn epoll_create1(flags: c_int) -> c_int, kernel => made(kernel(flags))
}

hook! {
    /// `epoll_ctl`
    fn epoll_ctl(instance: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int, kernel => {
        let entry = table::entry(fd);
        let stream = table::stream_of(entry.as_ref());
        if entry.is_none() && matches!(table::kind(fd), Kind::Socket | Kind::Watched) {
            let result = kernel(instance, op, fd, event);
            if result == 0 {
                // SAFETY: the program gives us an event or null.
                errno::quietly(|| before_connect(instance, op, fd, unsafe { event.as_ref() }.copied()));
            }
            return result;
        }
        if entry.is_none() || stream.is_some_and(|stream| stream.stays_tcp()) {
            return kernel(instance, op, fd, event);
        }
        let watching = table::entry(instance);
        let Some(epoll) = table::epoll_of(watching.as_ref()) else {
            if let Some(stream) = stream {
                // An instance that we do not know cannot be told of rings.
                errno::quietly(|| stream.leaves_us("an epoll instance from elsewhere watches it"));
            }
            return kernel(instance, op, fd, event);
        };
        let Some(stream) = stream else {
            let result = kernel(instance, op, fd, event);
            if result == 0 && let Some(other) = table::epoll_of(entry.as_ref()) {
                errno::quietly(|| epoll.nest(op, fd, other));
            }
            return result;
        };
        // SAFETY: the program gives us an event or null.
        let wanted = unsafe { event.as_ref() }.copied();
        let before = errno::get();
        match errno::quietly(|| epoll.control(op, fd, wanted, stream, || {
            let result = kernel(instance, op, fd, event);
            if result < 0 { -errno::get() } else { result }
        })) {
            Some(Ok(result)) if result >= 0 => {
                errno::set(before);
                result
            }
            Some(Ok(code)) => errno::fail(-code),
            Some(Err(code)) => errno::fail(code.raw_os_error()),
            None => errno::fail(libc::ENOMEM),
        }
    }
}

/// The kernel has done this with a socket that is not connected yet; whoever connects it finds it here.
fn before_connect(instance: c_int, op: c_int, fd: c_int, event: Option<epoll_event>) {
    let Some(epoll) = table::epoll(instance) else {
        // Nobody could tell the instance of rings: it will be none of ours.
        drop(table::take(fd));
        return;
    };
    if let Some(entry) = table::watched(fd)
        && let Entry::Watched(watchers) = &*entry
    {
        let interest = event.map(|event| Interest { events: event.events, data: event.u64 });
        watchers.hold().controlled(&epoll, op, fd, interest);
    }
}

/// Waits, if there is anything that the kernel does not know of.
fn wait(
    instance: c_int,
    events: *mut epoll_event,
    count: c_int,
    limit: impl FnOnce() -> Option<Duration>,
    mut kernel: impl FnMut(*mut epoll_event, c_int, Option<Duration>) -> c_int,
    all_kernel: impl FnOnce() -> c_int,
) -> c_int {
    let epoll: Option<Arc<Epoll>> = table::epoll(instance).filter(|epoll| epoll.is_involved());
    let Some(room @ 1..) = usize::try_from(count).ok().filter(|_| !events.is_null()) else {
        return all_kernel();
    };
    let Some(epoll) = epoll else {
        let found = all_kernel();
        // SAFETY: the kernel has filled in so many.
        let out = unsafe { std::slice::from_raw_parts_mut(events, usize::try_from(found).unwrap_or(0)) };
        return if found > 0 { c_int::try_from(without_inherited(out)).unwrap_or(found) } else { found };
    };
    // SAFETY: the program gives us room for so many until we return; all values are valid for the plain structure.
    let out = unsafe { std::slice::from_raw_parts_mut(events, room) };
    let before = errno::get();
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        epoll.wait(out, limit(), |out, limit| {
            kernel(out.as_mut_ptr(), c_int::try_from(out.len()).unwrap_or(c_int::MAX), limit)
        })
    }));
    match waited {
        Ok(result) if result >= 0 => {
            errno::set(before);
            result
        }
        Ok(result) => result,
        Err(_) => errno::fail(libc::EINTR),
    }
}

hook! {
    /// `epoll_wait`
    fn epoll_wait(instance: c_int, events: *mut epoll_event, count: c_int, limit: c_int) -> c_int, kernel => wait(
        instance, events, count, || from_milliseconds(limit),
        |events, count, limit| kernel(instance, events, count, milliseconds(limit)),
        || kernel(instance, events, count, limit),
    )
}

hook! {
    /// `epoll_pwait`
    fn epoll_pwait(instance: c_int, events: *mut epoll_event, count: c_int, limit: c_int, mask: *const sigset_t)
        -> c_int, kernel => wait(
        instance, events, count, || from_milliseconds(limit),
        |events, count, limit| kernel(instance, events, count, milliseconds(limit), mask),
        || kernel(instance, events, count, limit, mask),
    )
}

hook! {
    /// `epoll_pwait2`
    fn epoll_pwait2(instance: c_int, events: *mut epoll_event, count: c_int, limit: *const timespec,
        mask: *const sigset_t) -> c_int, kernel => wait(
        instance, events, count,
        // SAFETY: the program gives us a time or null.
        || unsafe { from_timespec(limit) },
        |events, count, limit| {
            let limit = limit.map(to_timespec);
            let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            kernel(instance, events, count, limit, mask)
        },
        || kernel(instance, events, count, limit, mask),
    )
}
