//! How a handshake ends without SMC-D.

use std::time::Duration;

use crate::{
    clc::{
        DeclineCode,
        wire::{Decline, Eid, MsgType, Version},
    },
    dibs::{Chid, Gid},
};

/// A handshake that ended without SMC-D, and by whose decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer declined: go on with TCP, from the byte after its Decline.
    #[error("the peer declined: {diagnosis}")]
    PeerDeclined {
        /// Why, in the peer's words.
        diagnosis: DeclineCode,
        /// True if the link group with this peer must be given up, with all its connections.
        out_of_sync: bool,
    },
    /// This side declines: send the Decline, then go on with TCP.
    #[error("declined: {}", .0.diagnosis)]
    Declined(Decline),
    /// The peer broke the protocol. Send nothing; the connection is of no more use. Linux 7.3 closes it.
    #[error("the peer broke the protocol: {0}")]
    Protocol(#[from] Violation),
    /// The peer did not answer. Send nothing; the connection is of no more use. Linux 7.3 fails a `connect` with
    /// ETIMEDOUT, and closes the connection as a server.
    #[error("no {expected} within {timeout:?}")]
    TimedOut {
        /// The message waited for.
        expected: MsgType,
        /// How long.
        timeout: Duration,
    },
}

impl HandshakeError {
    pub(super) const fn declined(version: Version, code: DeclineCode) -> Self {
        Self::Declined(Decline::new(version, code))
    }

    /// The Decline to send, with its diagnosis; `None` where a Decline has no place: the peer has declined
    /// already, or cannot be expected to understand one.
    pub const fn decline(&self) -> Option<&Decline> {
        match self {
            Self::Declined(decline) => Some(decline),
            Self::PeerDeclined { .. } | Self::Protocol(_) | Self::TimedOut { .. } => None,
        }
    }

    /// True if the connection goes on as TCP, once [`HandshakeError::decline`] is sent.
    pub const fn falls_back(&self) -> bool {
        matches!(self, Self::Declined(_) | Self::PeerDeclined { .. })
    }
}

/// What a peer did that the protocol does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Another message than the one whose turn it is.
    #[error("a {got} in place of a {expected}")]
    Message {
        /// The message whose turn it is.
        expected: MsgType,
        /// The message received.
        got: MsgType,
    },
    /// A DMB element above 1 MiB.
    #[error("DMB element of size code {0}, above 6")]
    DmbeSize(u8),
    /// First contact, but the message is too short for the extension that its release calls for.
    #[error("no room for the first contact extension")]
    FirstContactExtension,
    /// An Accept of a fabric that was not proposed.
    #[error("CHID {0} was not proposed")]
    ChidNotProposed(Chid),
    /// An Accept with an EID that was not proposed.
    #[error("EID {0} was not proposed")]
    EidNotProposed(Eid),
    /// A Confirm in another version than the Accept.
    #[error("Confirm of version {got} after an Accept of version {accepted}")]
    Version {
        /// Version of the Accept.
        accepted: Version,
        /// Version of the Confirm.
        got: Version,
    },
    /// A Confirm from another device than the one that was accepted.
    #[error("Confirm of device {got} on {got_chid} after an Accept of {accepted} on {accepted_chid}")]
    Device {
        /// GID of the accepted device.
        accepted: Gid,
        /// Fabric of the accepted device.
        accepted_chid: Chid,
        /// GID in the Confirm.
        got: Gid,
        /// Fabric in the Confirm.
        got_chid: Chid,
    },
    /// A Confirm with another EID than the one that was accepted.
    #[error("Confirm of EID {got} after an Accept of {accepted}")]
    Eid {
        /// EID in the Accept.
        accepted: Eid,
        /// EID in the Confirm.
        got: Eid,
    },
}
