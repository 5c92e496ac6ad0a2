//! The life of a socket: made, connected, accepted, shut down.

use std::{net::Shutdown, sync::Arc};

use libc::{c_int, sa_family_t, sockaddr, sockaddr_storage, socklen_t};

use super::option;
use crate::{
    errno, process,
    real::hook,
    settings,
    stream::{Grace, Stream},
    table::{self, Entry, Kind},
};

hook! {
    /// `socket`
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int, kernel => {
        let fd = kernel(domain, kind, protocol);
        let is_tcp = matches!(domain, libc::AF_INET | libc::AF_INET6)
            && kind & !(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) == libc::SOCK_STREAM
            && matches!(protocol, 0 | libc::IPPROTO_TCP);
        // A child that borrows our memory may have the number for something of its own; then ours stays.
        if fd >= 0 && is_tcp && table::kind(fd) == Kind::Other {
            table::is_socket(fd);
        }
        fd
    }
}

hook! {
    /// `connect`
    fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int, kernel => {
        if settings::asks() {
            // SAFETY: the program gives us an address of this length, or none.
            return unsafe { option::connect(fd, addr, len, || kernel(fd, addr, len)) };
        }
        let is_fresh = matches!(table::kind(fd), Kind::Socket | Kind::Watched) && process::is_ours();
        let result = kernel(fd, addr, len);
        if is_fresh && (result == 0 || matches!(errno::get(), libc::EINPROGRESS | libc::EINTR)) {
            errno::quietly(|| begin(fd));
        }
        result
    }
}

/// A connection of ours begins.
pub(super) fn begin(fd: c_int) {
    if settings::is_wanted() {
        goes_beside(fd, &Stream::new(fd));
    }
}

/// Puts a stream beside a socket, with those that have watched it before.
pub(super) fn goes_beside(fd: c_int, stream: &Arc<Stream>) {
    let before = table::put(fd, Entry::Stream(stream.clone()));
    if let Some(Entry::Watched(watchers)) = before.as_deref() {
        stream.watchers.take_from(watchers);
    }
}

hook! {
    /// `listen`
    fn listen(fd: c_int, backlog: c_int) -> c_int, kernel => {
        if settings::asks() {
            option::listens(fd);
        }
        kernel(fd, backlog)
    }
}

hook! {
    /// `accept`
    fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int, kernel =>
        accepted(fd, addr, len, |addr, len| kernel(fd, addr, len))
}

hook! {
    /// `accept4`
    fn accept4(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int, kernel =>
        accepted(fd, addr, len, |addr, len| kernel(fd, addr, len, flags))
}

/// Accepts, and goes beside what comes of it if that is TCP. The address tells, at no further cost.
fn accepted(
    listener: c_int,
    addr: *mut sockaddr,
    len: *mut socklen_t,
    kernel: impl FnOnce(*mut sockaddr, *mut socklen_t) -> c_int,
) -> c_int {
    // SAFETY: all zeroes is a value of this plain structure.
    let mut own: sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut own_len = size_of::<sockaddr_storage>() as socklen_t;
    let is_ours = addr.is_null() || len.is_null();
    let fd = if is_ours { kernel((&raw mut own).cast(), &raw mut own_len) } else { kernel(addr, len) };
    if fd < 0 || !process::is_ours() {
        return fd;
    }
    let family = if is_ours {
        own.ss_family
    } else {
        // SAFETY: the program has given us a place for an address of this length; the kernel has filled it in.
        unsafe { if (*len as usize) < size_of::<sa_family_t>() { 0 } else { (*addr).sa_family } }
    };
    if matches!(c_int::from(family), libc::AF_INET | libc::AF_INET6) {
        errno::quietly(|| {
            if !settings::asks() || !option::serve(listener, fd) {
                begin(fd);
            }
        });
    }
    fd
}

hook! {
    /// `shutdown`
    fn shutdown(fd: c_int, how: c_int) -> c_int, kernel => {
        if let Some(stream) = table::stream(fd).filter(|stream| stream.raw.is_shaking()) {
            // One that is to go on in one direction has to know how.
            errno::quietly(|| match how {
                libc::SHUT_RDWR => stream.is_ended(),
                _ => stream.settle_within(&Grace::begin()),
            });
        }
        let Some(stream) = table::stream(fd).filter(|stream| stream.raw.has_rings()) else { return kernel(fd, how) };
        let how = match how {
            libc::SHUT_RD => Shutdown::Read,
            libc::SHUT_WR => Shutdown::Write,
            libc::SHUT_RDWR => Shutdown::Both,
            _ => return errno::fail(libc::EINVAL),
        };
        let before = errno::get();
        match stream.raw.shutdown(how) {
            Ok(()) => {
                stream.tcp_has_news();
                errno::set(before);
                0
            }
            Err(error) => errno::fail(errno::of(&error)),
        }
    }
}
