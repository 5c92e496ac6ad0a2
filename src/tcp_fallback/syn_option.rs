//! The SMC option of TCP: by it two ends tell each other in their first segments that they speak SMC.
//!
//! No program can put options into segments of the kernel's TCP. eBPF programs do it for sockets that ask; an
//! administrator attaches them to a cgroup by `smcdctl syn-option enable`. Without them the kernel knows no such socket
//! option, and connections are what they would be without the SMC option.
//!
//! Who has sent the option and got it back owes a Proposal or a Decline, and must not send data before. That the peer has
//! sent it proves little: some hosts and middleboxes echo options that they do not know. A valid answer by CLC does.

use std::{io, os::fd::AsFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::unix::sockopt::{SmcOption, ask_for_smc_option, smc_option};

/// True if sockets of this process can ask for the option.
pub fn can_ask() -> bool {
    let flags = SocketFlags::CLOEXEC;
    [AddressFamily::INET, AddressFamily::INET6]
        .into_iter()
        .filter_map(|family| socket_with(family, SocketType::STREAM, flags, None).ok())
        .any(|socket| ask(socket).is_ok())
}

/// Has a socket send the option with its SYN, or a listener with its SYN-ACKs to those who sent it. Not connected, and
/// not listening yet; later it has no effect.
///
/// # Errors
/// If there are no eBPF programs for this process.
pub(crate) fn ask(socket: impl AsFd) -> io::Result<()> {
    ask_for_smc_option(socket, true)
}

/// Has it sent no longer.
///
/// # Errors
/// As for [`ask`].
pub(crate) fn withdraw(socket: impl AsFd) -> io::Result<()> {
    ask_for_smc_option(socket, false)
}

/// True if both ends of this connection have sent the option.
pub(crate) fn is_agreed(socket: impl AsFd) -> bool {
    // What cannot be asked was not agreed on either.
    smc_option(socket).is_ok_and(|option| option.contains(SmcOption::ASKED | SmcOption::PEER_SENT))
}
