//! Writing.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use libc::{c_int, c_uint, c_void, iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t};

use super::{by_rings, moved, read::total, rights, way_out};
use crate::{
    errno, iov,
    real::hook,
    stream::{Stream, Way},
    table,
};

/// Writes: by the kernel, by the kernel with us looking on, or by the rings.
fn transmit(
    fd: c_int,
    flags: c_int,
    kernel: impl FnOnce() -> ssize_t,
    rings: impl FnOnce(&Arc<Stream>) -> io::Result<usize>,
) -> ssize_t {
    let entry = table::entry(fd);
    let Some(stream) = table::stream_of(entry.as_ref()) else { return kernel() };
    if flags & libc::MSG_OOB != 0 {
        // Signals, marks and the place of the byte are the kernel's.
        errno::quietly(|| stream.leaves_us("it sends urgent data"));
    }
    match way_out(stream, flags) {
        Ok(Way::Counted) => {
            if flags & (libc::MSG_OOB | libc::MSG_ZEROCOPY | libc::MSG_FASTOPEN) != 0 {
                stream.stay();
            }
            let result = kernel();
            errno::quietly(|| stream.was_written(moved(result)));
            result
        }
        Ok(Way::Rings) => by_rings(|| rings(stream)),
        Ok(_) => kernel(),
        Err(error) => errno::bytes(Err(error)),
    }
}

/// Memory to write from, in pieces, sent by the rings.
fn send_vector(stream: &Stream, iov: *const iovec, count: c_int, flags: c_int) -> io::Result<usize> {
    // SAFETY: the program leaves this memory to us until we return.
    let mut data = unsafe { iov::data_of(iov, count) }?;
    stream.send(&mut data, flags)
}

/// One piece of memory, sent by the rings.
fn send_one(stream: &Stream, base: *const c_void, len: size_t, flags: c_int) -> io::Result<usize> {
    // SAFETY: the program leaves this memory to us until we return.
    let data: IoSlice<'_> = unsafe { iov::data(base, len) }?;
    if data.is_empty() {
        return Ok(0);
    }
    stream.send(&mut [data], flags)
}

hook! {
    /// `write`
    fn write(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t, kernel => transmit(
        fd, 0, || kernel(fd, buf, len),
        |stream| send_one(stream, buf, len, 0),
    )
}

hook! {
    /// `writev`
    fn writev(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t, kernel => transmit(
        fd, 0, || kernel(fd, iov, count),
        |stream| send_vector(stream, iov, count, 0),
    )
}

hook! {
    /// `send`
    fn send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t, kernel => transmit(
        fd, flags, || kernel(fd, buf, len, flags),
        |stream| send_one(stream, buf, len, flags),
    )
}

hook! {
    /// `sendto`; a connected TCP socket ignores the address
    fn sendto(fd: c_int, buf: *const c_void, len: size_t, flags: c_int, addr: *const sockaddr, addr_len: socklen_t)
        -> ssize_t, kernel => transmit(
        fd, flags, || kernel(fd, buf, len, flags, addr, addr_len),
        |stream| send_one(stream, buf, len, flags),
    )
}

/// Sends what a message header describes. Nothing goes beside the bytes.
fn send_message(stream: &Stream, message: *const msghdr, flags: c_int) -> io::Result<usize> {
    // SAFETY: the program leaves the header to us until we return.
    let message = unsafe { message.as_ref() }.ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))?;
    let count = c_int::try_from(message.msg_iovlen).unwrap_or(c_int::MAX);
    send_vector(stream, message.msg_iov, count, flags)
}

hook! {
    /// `sendmsg`
    fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t, kernel => transmit(
        fd, flags,
        // SAFETY: the program passes it to `sendmsg`.
        || match unsafe { rights::hand_over(message) } {
            Ok(()) => kernel(fd, message, flags),
            Err(error) => errno::bytes(Err(error)),
        },
        |stream| send_message(stream, message, flags),
    )
}

hook! {
    /// `sendmmsg`
    fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int, kernel => {
        let Some(stream) = table::stream(fd) else {
            for at in 0..count as usize {
                // SAFETY: the program passes so many to `sendmmsg`.
                if let Err(error) = unsafe { rights::hand_over(&raw const (*messages.add(at)).msg_hdr) } {
                    return errno::fail(errno::of(&error));
                }
            }
            return kernel(fd, messages, count, flags);
        };
        match way_out(&stream, flags) {
            Ok(Way::Counted) => {
                let result = kernel(fd, messages, count, flags);
                errno::quietly(|| stream.was_written(total(messages, result)));
                result
            }
            Ok(Way::Rings) => {
                c_int::try_from(by_rings(|| send_messages(&stream, messages, count, flags))).unwrap_or(-1)
            }
            Ok(_) => kernel(fd, messages, count, flags),
            Err(error) => errno::fail(errno::of(&error)),
        }
    }
}

fn send_messages(stream: &Stream, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> io::Result<usize> {
    for done in 0..count as usize {
        // SAFETY: the program leaves so many to us until we return.
        let message = unsafe { &mut *messages.add(done) };
        match send_message(stream, &raw const message.msg_hdr, flags) {
            Ok(n) => message.msg_len = c_uint::try_from(n).unwrap_or(c_uint::MAX),
            Err(_) if done > 0 => return Ok(done),
            Err(error) => return Err(error),
        }
    }
    Ok(count as usize)
}
