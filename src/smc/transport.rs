//! How a connection's bytes travel.

use std::fmt;

use super::connection::Connection;
use crate::{
    dibs::{Chid, Gid},
    observe::Tally,
    tcp_fallback::FallbackReason,
};

/// How a connection's bytes travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Transport {
    /// Through shared memory.
    #[non_exhaustive]
    Smcd {
        /// Fabric of both devices.
        chid: Chid,
        /// Our device.
        gid: Gid,
        /// The peer's device.
        peer_gid: Gid,
        /// Bytes of the ring that we read from.
        receive_buffer: usize,
        /// Bytes of the ring that we write to.
        send_buffer: usize,
    },
    /// Through TCP.
    Tcp(FallbackReason),
}

impl Transport {
    /// True if the bytes go through shared memory.
    pub fn is_smcd(&self) -> bool {
        matches!(self, Self::Smcd { .. })
    }

    /// Makes known that both ends have agreed on it.
    pub(crate) fn announce(&self, tally: &Tally, connection: &Connection, in_band: bool) {
        if let Self::Smcd { gid, peer_gid, receive_buffer, send_buffer, .. } = *self {
            tally.agree(connection.meter(), (gid, peer_gid), (receive_buffer, send_buffer), in_band);
        }
    }

    /// Why the connection is TCP, if it is.
    pub fn fallback_reason(&self) -> Option<FallbackReason> {
        match self {
            Self::Smcd { .. } => None,
            Self::Tcp(reason) => Some(*reason),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Smcd { gid, peer_gid, .. } => write!(f, "SMC-D ({gid} to {peer_gid})"),
            Self::Tcp(reason) => write!(f, "TCP ({reason})"),
        }
    }
}
