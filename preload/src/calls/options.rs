//! Options and modes of sockets.

use std::ffi::c_ulong;

use libc::{c_int, c_void, rlimit, socklen_t};

use super::numbers::join;
use crate::{
    errno,
    real::hook,
    settings,
    table::{self, Kind},
};

/// Bytes that were sent and not yet acknowledged (`SIOCOUTQ`), and those not yet sent (`SIOCOUTQNSD`).
const SIOCOUTQ: c_ulong = 0x5411;
const SIOCOUTQNSD: c_ulong = 0x894b;
/// Whether the next byte is the urgent one.
const SIOCATMARK: c_ulong = 0x8905;

/// `fcntl`, whose third argument is a number or an address: both come in the same register here.
fn control(fd: c_int, command: c_int, argument: usize, kernel: impl FnOnce() -> c_int) -> c_int {
    let result = kernel();
    if result < 0 {
        return result;
    }
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => join(fd, result),
        libc::F_SETFL if argument & libc::O_ASYNC as usize != 0 => leaves(fd, SIGNALS),
        libc::F_SETFL => has_changed(fd),
        // Signals for what comes by the ring are sent by nobody.
        libc::F_SETOWN | F_SETOWN_EX | F_SETSIG => leaves(fd, SIGNALS),
        _ => {}
    }
    result
}

/// Commands that the `libc` crate does not know.
const F_SETSIG: c_int = 10;
const F_SETOWN_EX: c_int = 15;

const SIGNALS: &str = "signals are wanted of it";

/// A socket that is not connected yet will be none of ours.
fn leaves(fd: c_int, why: &str) {
    match table::stream(fd) {
        Some(stream) => drop(errno::quietly(|| stream.leaves_us(why))),
        None if matches!(table::kind(fd), Kind::Socket | Kind::Watched) => drop(table::take(fd)),
        None => {}
    }
}

fn has_changed(fd: c_int) {
    if let Some(stream) = table::stream(fd).filter(|stream| stream.waits_here()) {
        errno::quietly(|| stream.load_options());
    }
}

hook! {
    /// `fcntl`
    fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int, kernel =>
        control(fd, command, argument, || kernel(fd, command, argument))
}

hook! {
    /// `fcntl64`
    fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int, kernel =>
        control(fd, command, argument, || kernel(fd, command, argument))
}

hook! {
    /// `ioctl`
    fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int, kernel => {
        if request == libc::FIOASYNC {
            leaves(fd, SIGNALS);
        }
        let Some(stream) = table::stream(fd).filter(|stream| stream.waits_here()) else {
            return kernel(fd, request, argument);
        };
        let answer = match request {
            // What has come is not for the program.
            libc::FIONREAD if stream.raw.is_shaking() => Some(0),
            libc::FIONREAD => errno::quietly(|| stream.raw.unread()),
            // What is in the ring has arrived.
            SIOCOUTQ | SIOCOUTQNSD if stream.raw.is_writing_ring() => Some(0),
            SIOCATMARK if stream.raw.is_on_rings() => errno::quietly(|| usize::from(stream.raw.is_at_mark())),
            _ => {
                let result = kernel(fd, request, argument);
                if result == 0 && request == libc::FIONBIO {
                    has_changed(fd);
                }
                return result;
            }
        };
        if argument.is_null() {
            return errno::fail(libc::EFAULT);
        }
        // SAFETY: these requests have a place for an `int` as argument.
        unsafe { *argument.cast() = c_int::try_from(answer.unwrap_or(0)).unwrap_or(c_int::MAX) };
        0
    }
}

hook! {
    /// `setsockopt`
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int, kernel => {
        let result = kernel(fd, level, name, value, len);
        if result == 0 && let Some(stream) = table::stream(fd) {
            if level == libc::SOL_SOCKET && matches!(name, libc::SO_OOBINLINE | libc::SO_ZEROCOPY)
                || level == libc::IPPROTO_TCP && matches!(name, libc::TCP_ULP | libc::TCP_REPAIR)
            {
                // Changes what is to be read, in ways that the rings know nothing of.
                errno::quietly(|| stream.leaves_us("of a socket option"));
            } else if stream.waits_here() {
                errno::quietly(|| stream.load_options());
            }
        }
        result
    }
}

hook! {
    /// `setrlimit`
    fn setrlimit(resource: c_int, limit: *const rlimit) -> c_int, kernel => {
        let result = kernel(resource, limit);
        errno::quietly(settings::load_limits);
        result
    }
}

hook! {
    /// `setrlimit64`, which is the same on 64 bits
    fn setrlimit64(resource: c_int, limit: *const rlimit) -> c_int, kernel => {
        let result = kernel(resource, limit);
        errno::quietly(settings::load_limits);
        result
    }
}

hook! {
    /// `prlimit`
    fn prlimit(pid: c_int, resource: c_int, new: *const rlimit, old: *mut rlimit) -> c_int, kernel => {
        let result = kernel(pid, resource, new, old);
        errno::quietly(settings::load_limits);
        result
    }
}

hook! {
    /// `prlimit64`, which is the same on 64 bits
    fn prlimit64(pid: c_int, resource: c_int, new: *const rlimit, old: *mut rlimit) -> c_int, kernel => {
        let result = kernel(pid, resource, new, old);
        errno::quietly(settings::load_limits);
        result
    }
}
