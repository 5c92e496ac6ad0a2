//! The SMC option on sockets of somebody else.

use std::{net::IpAddr, os::fd::AsFd};

use crate::{
    SmcConfig,
    tcp_fallback::syn_option::{self, Answer},
};

/// True if the settings want the option to be asked for at all.
pub fn wants_option(config: &SmcConfig) -> bool {
    config.listens_for_option()
}

/// True if the settings want this peer to be asked.
pub fn wants_option_of(config: &SmcConfig, peer: IpAddr) -> bool {
    config.asks_for_option(peer)
}

/// Has a socket ask, before it connects or listens. False if there is no way to ([`syn_option`]).
///
/// Who connects so has to go on with [`RawStream::connecting`](super::RawStream::connecting), and who accepts with
/// [`has_option`].
pub fn ask_for_option(socket: impl AsFd) -> bool {
    syn_option::request(socket).is_ok()
}

/// Takes that back.
pub fn withdraw_option(socket: impl AsFd) {
    // Where it cannot be asked for, it was not.
    let _ = syn_option::withdraw(socket);
}

/// Resets a connection for which nobody can shake hands.
pub fn refuse_option(socket: impl AsFd) {
    // It has ended already if this fails.
    let _ = syn_option::disconnect(socket);
}

/// True if both ends of this connection have sent the option. A handshake is due then
/// ([`RawStream::accepted`](super::RawStream::accepted)).
pub fn has_option(socket: impl AsFd) -> bool {
    Answer::on(socket) == Answer::Agreed
}
