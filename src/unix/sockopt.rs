//! Socket options that no crate reads as they may be.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// Reads an option into `value`; says how many bytes it has.
///
/// # Errors
/// The system's.
fn get(socket: impl AsFd, level: i32, name: i32, value: &mut [u8]) -> io::Result<usize> {
    let mut len = libc::socklen_t::try_from(value.len()).unwrap_or(libc::socklen_t::MAX);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `value` has room for `len` bytes, and the kernel writes no more than that, and no more than it says. The
    // descriptor is borrowed for the time of the call.
    let result = unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut len) };
    if result == 0 { Ok(len as usize) } else { Err(io::Error::last_os_error()) }
}

/// Sets an option that is a number.
///
/// # Errors
/// The system's.
fn set(socket: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads the four bytes of `value`. The descriptor is borrowed for the time of the call.
    let result =
        unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<i32>() as u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The level of SMC, and the option by which a TCP socket asks `cli/bpf/syn_option.bpf.c` for the SMC option.
const SOL_SMC: i32 = 286;
const SMC_OPTION: i32 = 100;

bitflags::bitflags! {
    /// What a TCP socket has to do with the SMC option.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct SmcOption: u32 {
        /// It, or its listener, has asked for the option to be sent.
        const ASKED = 1;
        /// Its peer has sent the option.
        const PEER_SENT = 2;
    }
}

/// Asks for the SMC option to be sent, or not any more.
///
/// # Errors
/// `ENOPROTOOPT` if there are no eBPF programs for this process.
pub(crate) fn ask_for_smc_option(socket: impl AsFd, wanted: bool) -> io::Result<()> {
    set(socket, SOL_SMC, SMC_OPTION, wanted.into())
}

/// What became of it.
///
/// # Errors
/// As for [`ask_for_smc_option`].
pub(crate) fn smc_option(socket: impl AsFd) -> io::Result<SmcOption> {
    let mut flags = [0; 4];
    get(socket, SOL_SMC, SMC_OPTION, &mut flags)?;
    Ok(SmcOption::from_bits_truncate(u32::from_ne_bytes(flags)))
}

/// User id of the process at the other end of a unix socket: when it connected, or began to listen.
///
/// Not by rustix, whose type for this has no place for a process of another pid namespace.
///
/// # Errors
/// The system's.
pub(crate) fn peer_uid(socket: impl AsFd) -> io::Result<u32> {
    let mut credentials = [0; size_of::<libc::ucred>()];
    let len = get(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, &mut credentials)?;
    let uid = credentials.get(4..8).filter(|_| len == credentials.len());
    let uid = uid.and_then(|uid| uid.try_into().ok()).map(u32::from_ne_bytes);
    uid.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Bytes of `struct tcp_info` up to the last that we look at.
const TCP_INFO: usize = 216;

/// What the kernel has counted on a TCP connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TcpCounts {
    /// Bytes that have arrived, read or not. The end counts as one.
    pub(crate) received: u64,
    /// Bytes that were given to the kernel to be sent.
    pub(crate) sent: u64,
}

/// Reads what the kernel has counted.
///
/// # Errors
/// The system's; `Unsupported` if the kernel is older than 4.19.
pub(crate) fn tcp_counts(socket: impl AsFd) -> io::Result<TcpCounts> {
    let mut info = [0; TCP_INFO];
    let len = get(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    info.get(..len).and_then(counts_of).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// What `struct tcp_info` says; `None` if it is too short.
pub(crate) fn counts_of(info: &[u8]) -> Option<TcpCounts> {
    let u64_at = |at: usize| Some(u64::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    let not_sent = u32::from_ne_bytes(*info.get(144..)?.first_chunk()?);
    let (sent, sent_again) = (u64_at(200)?, u64_at(208)?);
    let sent = sent.saturating_add(not_sent.into()).saturating_sub(sent_again);
    Some(TcpCounts { received: u64_at(128)?, sent })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    #[test]
    fn the_kernel_counts_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut b = listener.accept().unwrap().0;
        assert_eq!(tcp_counts(&a).unwrap(), TcpCounts { received: 0, sent: 0 });
        a.write_all(&[7; 300_000]).unwrap();
        b.read_exact(&mut [0; 200_000]).unwrap();
        b.write_all(&[8; 5]).unwrap();
        a.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(tcp_counts(&a).unwrap(), TcpCounts { received: 5, sent: 300_000 });
        b.read_exact(&mut [0; 100_000]).unwrap();
        assert_eq!(tcp_counts(&b).unwrap(), TcpCounts { received: 300_000, sent: 5 });
    }

    #[test]
    fn the_other_end_of_a_pair_is_ours() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(peer_uid(&a).unwrap(), rustix::process::geteuid().as_raw());
    }
}
