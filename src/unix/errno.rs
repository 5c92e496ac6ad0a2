//! Errors as numbers.

use std::io;

use rustix::io::Errno;

/// The number of this error: the system's, or that of its kind.
pub(crate) fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_else(|| errno_of_kind(error.kind()))
}

/// The number for errors of this kind.
pub(crate) fn errno_of_kind(kind: io::ErrorKind) -> i32 {
    let errno = match kind {
        io::ErrorKind::AddrInUse => Errno::ADDRINUSE,
        io::ErrorKind::BrokenPipe => Errno::PIPE,
        io::ErrorKind::ConnectionAborted => Errno::CONNABORTED,
        io::ErrorKind::ConnectionRefused => Errno::CONNREFUSED,
        io::ErrorKind::ConnectionReset => Errno::CONNRESET,
        io::ErrorKind::HostUnreachable => Errno::HOSTUNREACH,
        io::ErrorKind::Interrupted => Errno::INTR,
        io::ErrorKind::InvalidInput => Errno::INVAL,
        io::ErrorKind::NetworkUnreachable => Errno::NETUNREACH,
        io::ErrorKind::NotConnected => Errno::NOTCONN,
        io::ErrorKind::NotFound => Errno::NOENT,
        io::ErrorKind::OutOfMemory => Errno::NOMEM,
        io::ErrorKind::PermissionDenied => Errno::ACCESS,
        io::ErrorKind::TimedOut => Errno::TIMEDOUT,
        io::ErrorKind::Unsupported => Errno::OPNOTSUPP,
        io::ErrorKind::WouldBlock => Errno::AGAIN,
        // Nothing that TCP has a number for: what the peer sent broke the protocol, or the unforeseen.
        io::ErrorKind::InvalidData => Errno::PROTO,
        _ => Errno::IO,
    };
    errno.raw_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_for_their_kinds() {
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::TimedOut] {
            let number = errno_of(&io::Error::new(kind, "with a source"));
            assert_eq!(io::Error::from_raw_os_error(number).kind(), kind);
        }
        assert_eq!(errno_of(&io::Error::from_raw_os_error(71)), 71);
    }
}
