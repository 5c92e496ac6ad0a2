//! Why a connection is TCP.

use std::fmt;

use crate::clc::DeclineCode;

/// Why a connection stayed TCP. An outcome, not an error: the connection works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FallbackReason {
    /// SMC-D was not tried: the configuration says so.
    Disabled,
    /// The peer sent no CLC message: it is a plain TCP program.
    PeerNotSmc,
    /// This side declined, for this reason.
    Declined(DeclineCode),
    /// The peer declined, for this reason.
    PeerDeclined(DeclineCode),
}

impl FallbackReason {
    /// The code as Linux reports it for its sockets (`smcss`): zero if SMC was not tried.
    pub fn code(self) -> DeclineCode {
        match self {
            Self::Disabled => DeclineCode(0),
            Self::PeerNotSmc => DeclineCode::PEER_NO_SMC,
            Self::Declined(code) => code,
            Self::PeerDeclined(_) => DeclineCode::PEER_DECLINED,
        }
    }

    /// The diagnosis that the peer sent, if it declined.
    pub fn peer_diagnosis(self) -> Option<DeclineCode> {
        match self {
            Self::PeerDeclined(code) => Some(code),
            _ => None,
        }
    }
}

impl fmt::Display for FallbackReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("SMC-D is switched off"),
            Self::PeerNotSmc => f.write_str("the peer does not speak SMC"),
            Self::Declined(code) => write!(f, "declined: {code}"),
            Self::PeerDeclined(code) => write!(f, "declined by the peer: {code}"),
        }
    }
}
