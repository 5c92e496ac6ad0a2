//! The SMC option of TCP: by it two ends tell each other in their first segments that they speak SMC.
//!
//! No program can put options into segments of the kernel's TCP. eBPF programs do it for sockets that ask; an
//! administrator attaches them to a cgroup by `smcdctl syn-option enable`. Without them the kernel knows no such socket
//! option, and connections are what they would be without the SMC option.
//!
//! Who has sent the option and got it back owes a Proposal or a Decline, and must not send data before. That the peer has
//! sent it proves little: some hosts and middleboxes echo options that they do not know. A valid answer by CLC does.

use std::{io, os::fd::AsFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect_unspec, socket_with};

use super::FallbackReason;
use crate::unix::sockopt::{SmcOption, ask_for_smc_option, smc_option};

/// True if sockets of this process can ask for the option.
pub fn can_ask() -> bool {
    let flags = SocketFlags::CLOEXEC;
    [AddressFamily::INET, AddressFamily::INET6]
        .into_iter()
        .filter_map(|family| socket_with(family, SocketType::STREAM, flags, None).ok())
        .any(|socket| ask_for_smc_option(socket, true).is_ok())
}

/// Has a socket send the option with its SYN, or a listener with its SYN-ACKs to those who sent it; before it connects or
/// listens. Without the eBPF programs it is a socket as any other, and [`Answer::on`] says so.
pub(crate) fn ask(socket: impl AsFd) {
    if let Err(error) = request(socket) {
        tracing::debug!(%error, "the SMC option is not enabled on this system");
    }
}

/// As [`ask`], for who wants to know.
///
/// # Errors
/// If there are no eBPF programs for this process.
pub(crate) fn request(socket: impl AsFd) -> io::Result<()> {
    ask_for_smc_option(socket, true)
}

/// Takes that back: the next time that the socket connects, it is as any other.
///
/// # Errors
/// As [`request`].
pub(crate) fn withdraw(socket: impl AsFd) -> io::Result<()> {
    ask_for_smc_option(socket, false)
}

/// Gives up a connection, so that the same socket can be connected again, with all that was set on it but the option.
///
/// # Errors
/// The system's.
pub(crate) fn disconnect(socket: impl AsFd) -> io::Result<()> {
    connect_unspec(&socket)?;
    withdraw(socket)
}

/// What came of asking for the option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// Both ends have sent it.
    Agreed,
    /// They have not, for this reason.
    None(FallbackReason),
}

impl Answer {
    /// That on a connection whose socket, or listener, has asked.
    pub(crate) fn on(socket: impl AsFd) -> Self {
        match smc_option(socket) {
            Ok(option) if option.contains(SmcOption::ASKED | SmcOption::PEER_SENT) => Self::Agreed,
            Ok(_) => Self::None(FallbackReason::PeerNotSmc),
            Err(_) => Self::None(FallbackReason::OptionUnavailable),
        }
    }
}
