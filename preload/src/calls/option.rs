//! The SMC option of TCP, for peers that the settings name: sockets that ask for it, and the handshake that then comes first.
//!
//! As long as it is under way the program finds the connection as it would on a slow network: one that it opens is still
//! being opened, one that it accepted has no data and no room. Steps are taken in the calls that the program makes.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
    sync::Arc,
};

use libc::{c_int, sockaddr, socklen_t};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_getfl},
    net::getpeername,
};
use smcd::raw::{self, Patience};

use super::life::{begin, goes_beside};
use crate::{
    errno, process, settings,
    stream::{Grace, Stream},
    table::{self, Entry, Kind},
    watchers::Watchers,
};

/// A descriptor of the program, in a call on it.
fn borrow<'a>(fd: c_int) -> BorrowedFd<'a> {
    // SAFETY: the number goes to the kernel alone, as the program has given it to us, for the time of a call.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Has a listener answer those who ask. What it accepts then has to come to [`serve`].
pub(super) fn listens(fd: c_int) {
    if fd >= 0 && process::is_ours() && !settings::is_off() {
        // What is none of TCP's does not know how.
        errno::quietly(|| raw::ask_for_option(borrow(fd)));
    }
}

/// Connects, and asks if the settings say so.
///
/// # Safety
/// The address is null, or may be read as far as `len` says.
pub(super) unsafe fn connect(
    fd: c_int,
    addr: *const sockaddr,
    len: socklen_t,
    kernel: impl Fn() -> c_int,
) -> c_int {
    if !process::is_ours() {
        return kernel();
    }
    if let Some(stream) = table::stream(fd) {
        return connect_again(fd, &stream, kernel);
    }
    let kind = table::kind(fd);
    let may_ask = matches!(kind, Kind::Socket | Kind::Watched);
    // SAFETY: the caller promises it.
    let peer = may_ask.then(|| unsafe { address(addr, len) }).flatten();
    let asking = peer.and_then(|peer| errno::quietly(|| ask(fd, peer)).flatten());
    let result = kernel();
    let code = errno::get();
    let is_begun = result == 0 || matches!(code, libc::EINPROGRESS | libc::EINTR);
    match asking {
        Some(stream) if is_begun => {
            errno::quietly(|| stream.begins_to_shake());
            match result {
                0 => wait_and_connect(fd, &stream, kernel),
                _ => result,
            }
        }
        Some(stream) => {
            errno::quietly(|| is_not_connected(fd, &stream));
            result
        }
        None => {
            if is_begun && matches!(kind, Kind::Socket | Kind::Watched) {
                errno::quietly(|| begin(fd));
            }
            result
        }
    }
}

/// What goes beside a socket that asks; `None` if it does not.
fn ask(fd: c_int, peer: SocketAddr) -> Option<Arc<Stream>> {
    // First what costs nothing: to know what there is to propose takes the devices, and so descriptors.
    let is_wanted = settings::may_promote()
        && !connects_later(fd)
        && raw::wants_option_of(&settings::config(), peer.ip());
    if !is_wanted || !raw::ask_for_option(borrow(fd)) {
        return None;
    }
    let Some(stream) = Stream::connecting(fd, peer) else {
        raw::withdraw_option(borrow(fd));
        return None;
    };
    // Before the kernel connects it: from then on another thread may be told that it can write.
    goes_beside(fd, &stream);
    stream.watchers.take_over(&stream);
    Some(stream)
}

/// The kernel could not even begin.
fn is_not_connected(fd: c_int, stream: &Arc<Stream>) {
    raw::withdraw_option(borrow(fd));
    stream.is_ended();
    let watchers = Watchers::default();
    watchers.take_from(&stream.watchers);
    table::is_socket_again(fd, watchers);
}

/// True if the socket connects with the first data that the program sends.
fn connects_later(fd: c_int) -> bool {
    let mut value: c_int = 0;
    let mut len = size_of::<c_int>() as socklen_t;
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT);
    // SAFETY: `value` has room for `len` bytes.
    let result = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) };
    result == 0 && value != 0
}

/// Waits for the handshake, as for the end of the connecting that it is for the program.
fn wait(stream: &Arc<Stream>) -> c_int {
    let over = errno::quietly(|| stream.settle(stream.patience_out(0)));
    match over {
        Some(Ok(Ok(()))) | None => 0,
        Some(Ok(Err(error))) => errno::fail(errno::of(&error)),
        Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => errno::fail(libc::EINTR),
        Some(Err(_)) => errno::fail(libc::EINPROGRESS),
    }
}

/// As [`wait`], for a call that is to come back with a connection. Another thread may have ended the handshake, and left it to
/// the kernel to connect the socket anew.
fn wait_and_connect(fd: c_int, stream: &Arc<Stream>, kernel: impl FnOnce() -> c_int) -> c_int {
    match wait(stream) {
        0 if errno::quietly(|| is_connecting(fd)) == Some(true) => kernel(),
        result => result,
    }
}

fn is_connecting(fd: c_int) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(borrow(fd), PollFlags::OUT)];
    poll(&mut fds, Some(&Timespec::default())) == Ok(0)
}

/// The program has called `connect` before, or got the connection by `accept`.
fn connect_again(fd: c_int, stream: &Arc<Stream>, kernel: impl FnOnce() -> c_int) -> c_int {
    if !stream.raw.is_shaking() {
        if !stream.raw.has_rings() {
            // Only once there is a handshake.
            errno::quietly(|| raw::withdraw_option(borrow(fd)));
        }
        return kernel();
    }
    match wait(stream) {
        0 => kernel(),
        result => {
            if errno::get() == libc::EINPROGRESS {
                errno::set(libc::EALREADY);
            }
            result
        }
    }
}

/// An internet address of the program's.
///
/// # Safety
/// It is null, or may be read as far as `len` says.
unsafe fn address(addr: *const sockaddr, len: socklen_t) -> Option<SocketAddr> {
    if addr.is_null() {
        return None;
    }
    let len = len as usize;
    if len >= size_of::<libc::sockaddr_in>() {
        // SAFETY: the caller promises it, and it is long enough.
        let address = unsafe { addr.cast::<libc::sockaddr_in>().read_unaligned() };
        if c_int::from(address.sin_family) == libc::AF_INET {
            let ip = u32::from_be(address.sin_addr.s_addr);
            return Some((IpAddr::from(ip.to_be_bytes()), u16::from_be(address.sin_port)).into());
        }
    }
    if len >= size_of::<libc::sockaddr_in6>() {
        // SAFETY: as above.
        let address = unsafe { addr.cast::<libc::sockaddr_in6>().read_unaligned() };
        if c_int::from(address.sin6_family) == libc::AF_INET6 {
            return Some(SocketAddr::V6(std::net::SocketAddrV6::new(
                address.sin6_addr.s6_addr.into(),
                u16::from_be(address.sin6_port),
                address.sin6_flowinfo,
                address.sin6_scope_id,
            )));
        }
    }
    None
}

/// Goes beside a connection that was accepted, if it has the option; false if it has not. A listener that waits gives the
/// handshake a moment, so that it is mostly over then.
pub(super) fn serve(listener: c_int, fd: c_int) -> bool {
    if !raw::has_option(borrow(fd)) {
        return false;
    }
    // Nothing is known of a peer that has gone already.
    let peer = getpeername(borrow(fd)).ok().flatten().and_then(|peer| SocketAddr::try_from(peer).ok());
    let may_agree = peer.is_some() && settings::may_promote() && table::has_room_for(fd);
    let peer = peer.map_or(IpAddr::from([0; 4]), |peer| peer.ip());
    let Some(stream) = Stream::accepted(fd, peer, may_agree) else {
        raw::refuse_option(borrow(fd));
        return true;
    };
    table::put(fd, Entry::Stream(stream.clone()));
    if settings::is_off() || !table::has_room_for(fd) {
        // Nobody would look at it later.
        stream.settle_within(&Grace::begin());
        return true;
    }
    let waits = fcntl_getfl(borrow(listener)).is_ok_and(|flags| !flags.contains(OFlags::NONBLOCK));
    let patience =
        if waits { Patience::of(Some(settings::config().detect_timeout)) } else { Patience::Never };
    // What is not over yet goes on later.
    let _ = stream.settle(patience);
    true
}
