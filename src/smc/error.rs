//! What can go wrong on an established connection.

use std::io;

use crate::dibs::DeviceError;

/// The peer wrote something into our DMB that a correct peer never writes. The connection is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// A cursor that is no position, or lies more than a ring ahead or behind.
    #[error("the peer's cursor {seen:?} cannot follow {from:?} in a ring of {ring} bytes")]
    Cursor {
        /// Lap and offset as the peer wrote them.
        seen: (u16, u32),
        /// Lap and offset that they are measured from.
        from: (u16, u32),
        /// Bytes in the ring.
        ring: u32,
    },
    /// The peer confirmed more than it was sent.
    #[error("the peer confirmed {confirmed} bytes where {outstanding} were outstanding")]
    Confirmed {
        /// Bytes confirmed.
        confirmed: u32,
        /// Bytes that could be.
        outstanding: u32,
    },
    /// The peer took back bytes that it had published.
    #[error("the peer published {now} unread bytes where there were {before}")]
    TakenBack {
        /// Unread bytes by the new cursor.
        now: u32,
        /// Unread bytes by the old one.
        before: u32,
    },
}

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer broke the protocol.
    #[error("the peer broke the SMC-D protocol")]
    PeerMisbehaved(#[from] PeerMisbehaved),
    /// The peer aborted the connection, for example by closing it with unread data.
    #[error("the peer aborted the connection")]
    Aborted,
    /// The peer's process ended without closing the connection.
    #[error("the peer has gone without closing the connection")]
    PeerGone,
    /// This side aborted the connection, for its link group was terminated.
    #[error("the link group of the connection was terminated")]
    Terminated,
    /// The peer closed the connection and will read no more.
    #[error("the peer has closed the connection")]
    PeerClosed,
    /// This side has shut down writing.
    #[error("writing was shut down")]
    ShutDown,
    /// The device failed.
    #[error("the DIBS device failed")]
    Device(#[from] DeviceError),
}

impl From<ConnectionError> for io::Error {
    fn from(error: ConnectionError) -> Self {
        let kind = match &error {
            ConnectionError::PeerMisbehaved(_) => io::ErrorKind::InvalidData,
            ConnectionError::Aborted | ConnectionError::PeerGone => io::ErrorKind::ConnectionReset,
            ConnectionError::Terminated => io::ErrorKind::ConnectionAborted,
            ConnectionError::PeerClosed | ConnectionError::ShutDown => io::ErrorKind::BrokenPipe,
            ConnectionError::Device(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
