//! Reading.

use std::{io, sync::Arc, time::Duration};

use bytes::BufMut as _;
use libc::{c_int, c_uint, c_void, iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};

use super::{by_rings, moved, settle_read, way_in};
use crate::{
    errno,
    iov::Room,
    real::hook,
    stream::{Stream, Way},
    table,
};

/// Reads: by the kernel, by the kernel with us looking on, or by the rings.
fn receive(
    fd: c_int,
    flags: c_int,
    kernel: impl FnOnce() -> ssize_t,
    rings: impl FnOnce(&Arc<Stream>) -> io::Result<usize>,
) -> ssize_t {
    let entry = table::entry(fd);
    let Some(stream) = table::stream_of(entry.as_ref()) else { return kernel() };
    match way_in(stream, flags) {
        Ok(Way::Counted) => {
            let result = kernel();
            let is_counted = flags & (libc::MSG_PEEK | libc::MSG_ERRQUEUE) == 0;
            if flags & libc::MSG_OOB != 0 {
                // An urgent byte has no certain place among the others.
                stream.stay();
            }
            settle_read(stream, if is_counted { moved(result) } else { 0 });
            result
        }
        Ok(Way::Rings) if flags & libc::MSG_ERRQUEUE == 0 => by_rings(|| rings(stream)),
        Ok(_) => kernel(),
        Err(error) => errno::bytes(Err(error)),
    }
}

hook! {
    /// `read`
    fn read(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t, kernel => receive(
        fd, 0, || kernel(fd, buf, len),
        // SAFETY: the program gives us this memory to write to until we return.
        |stream| if len == 0 { Ok(0) } else { stream.receive(&mut unsafe { Room::one(buf, len) }, 0) },
    )
}

hook! {
    /// `read`, fortified
    fn __read_chk(fd: c_int, buf: *mut c_void, len: size_t, room: size_t) -> ssize_t, kernel => {
        if len > room {
            // Says so, and ends the program.
            return kernel(fd, buf, len, room);
        }
        receive(
            fd, 0, || kernel(fd, buf, len, room),
            // SAFETY: as for `read`.
            |stream| stream.receive(&mut unsafe { Room::one(buf, len) }, 0),
        )
    }
}

hook! {
    /// `readv`
    fn readv(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t, kernel => receive(
        fd, 0, || kernel(fd, iov, count),
        |stream| {
            let mut room = room(iov, count)?;
            if room.has_remaining_mut() { stream.receive(&mut room, 0) } else { Ok(0) }
        },
    )
}

/// Memory to read into, in pieces.
fn room(iov: *const iovec, count: c_int) -> io::Result<Room> {
    // SAFETY: the program gives us this memory until we return.
    unsafe { Room::many(iov, count) }
}

hook! {
    /// `recv`
    fn recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t, kernel => receive(
        fd, flags, || kernel(fd, buf, len, flags),
        // SAFETY: as for `read`.
        |stream| stream.receive(&mut unsafe { Room::one(buf, len) }, flags),
    )
}

hook! {
    /// `recv`, fortified
    fn __recv_chk(fd: c_int, buf: *mut c_void, len: size_t, room: size_t, flags: c_int) -> ssize_t, kernel => {
        if len > room {
            return kernel(fd, buf, len, room, flags);
        }
        receive(
            fd, flags, || kernel(fd, buf, len, room, flags),
            // SAFETY: as for `read`.
            |stream| stream.receive(&mut unsafe { Room::one(buf, len) }, flags),
        )
    }
}

/// As the kernel does for TCP: it has no address to give.
fn no_address(len: *mut socklen_t) {
    if !len.is_null() {
        // SAFETY: the program gives us a place for the length, or null.
        unsafe { *len = 0 };
    }
}

hook! {
    /// `recvfrom`
    fn recvfrom(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int, addr: *mut sockaddr, addr_len: *mut socklen_t)
        -> ssize_t, kernel => receive(
        fd, flags, || kernel(fd, buf, len, flags, addr, addr_len),
        |stream| {
            // SAFETY: as for `read`.
            let n = stream.receive(&mut unsafe { Room::one(buf, len) }, flags)?;
            no_address(if addr.is_null() { std::ptr::null_mut() } else { addr_len });
            Ok(n)
        },
    )
}

hook! {
    /// `recvfrom`, fortified
    fn __recvfrom_chk(fd: c_int, buf: *mut c_void, len: size_t, room: size_t, flags: c_int, addr: *mut sockaddr,
        addr_len: *mut socklen_t) -> ssize_t, kernel => {
        if len > room {
            return kernel(fd, buf, len, room, flags, addr, addr_len);
        }
        receive(
            fd, flags, || kernel(fd, buf, len, room, flags, addr, addr_len),
            |stream| {
                // SAFETY: as for `read`.
                let n = stream.receive(&mut unsafe { Room::one(buf, len) }, flags)?;
                no_address(if addr.is_null() { std::ptr::null_mut() } else { addr_len });
                Ok(n)
            },
        )
    }
}

/// Reads into what a message header describes. Nothing comes beside the bytes.
fn receive_message(stream: &Stream, message: *mut msghdr, flags: c_int) -> io::Result<usize> {
    // SAFETY: the program gives us the header until we return.
    let message = unsafe { message.as_mut() }.ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))?;
    let count = c_int::try_from(message.msg_iovlen).unwrap_or(c_int::MAX);
    let n = stream.receive(&mut room(message.msg_iov, count)?, flags)?;
    message.msg_namelen = 0;
    message.msg_controllen = 0;
    message.msg_flags = flags & libc::MSG_OOB;
    Ok(n)
}

hook! {
    /// `recvmsg`
    fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t, kernel => receive(
        fd, flags, || kernel(fd, message, flags),
        |stream| receive_message(stream, message, flags),
    )
}

hook! {
    /// `recvmmsg`
    fn recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, limit: *mut timespec) -> c_int,
        kernel => {
        let Some(stream) = table::stream(fd) else { return kernel(fd, messages, count, flags, limit) };
        match way_in(&stream, flags) {
            Ok(Way::Counted) => {
                let result = kernel(fd, messages, count, flags, limit);
                settle_read(&stream, if flags & libc::MSG_PEEK == 0 { total(messages, result) } else { 0 });
                result
            }
            Ok(Way::Rings) => c_int::try_from(by_rings(|| receive_messages(&stream, messages, count, flags, limit)))
                .unwrap_or(-1),
            Ok(_) => kernel(fd, messages, count, flags, limit),
            Err(error) => errno::fail(errno::of(&error)),
        }
    }
}

/// Bytes in the first messages of a vector.
pub(super) fn total(messages: *const mmsghdr, done: c_int) -> usize {
    let done = usize::try_from(done).unwrap_or(0);
    // SAFETY: the kernel has filled in so many.
    (0..done).map(|at| unsafe { (*messages.add(at)).msg_len as usize }).sum()
}

fn receive_messages(
    stream: &Stream,
    messages: *mut mmsghdr,
    count: c_uint,
    mut flags: c_int,
    limit: *mut timespec,
) -> io::Result<usize> {
    // SAFETY: the program gives us a time or null.
    let limit = unsafe { limit.as_ref() }
        .map(|limit| Duration::new(limit.tv_sec.cast_unsigned(), limit.tv_nsec.try_into().unwrap_or(0)));
    let start = std::time::Instant::now();
    let mut done = 0;
    while done < count as usize {
        // SAFETY: the program gives us so many until we return.
        let message = unsafe { &mut *messages.add(done) };
        match receive_message(stream, &raw mut message.msg_hdr, flags & !libc::MSG_WAITFORONE) {
            Ok(n) => {
                message.msg_len = c_uint::try_from(n).unwrap_or(c_uint::MAX);
                done += 1;
                if n == 0 {
                    break;
                }
            }
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
        if flags & libc::MSG_WAITFORONE != 0 {
            flags |= libc::MSG_DONTWAIT;
        }
        if limit.is_some_and(|limit| start.elapsed() >= limit) {
            break;
        }
    }
    Ok(done)
}
