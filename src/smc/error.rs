//! What can go wrong on an established connection.

use std::io;

use super::PeerMisbehaved;
use crate::dibs::DeviceError;

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
    /// The peer closed the connection and will read no more.
    #[error("the peer has closed the connection")]
    PeerClosed,
    /// This side has shut down writing.
    #[error("writing was shut down")]
    ShutDown,
    /// The connection began as TCP, and has gone back to it in this direction.
    #[error("the connection has gone back to TCP")]
    BackOnTcp,
    /// The connection began as TCP, and the peer asks to go back to it. Nothing is to be read here now.
    #[error("the peer asks for TCP")]
    AsksForTcp,
    /// The device failed.
    #[error("the DIBS device failed")]
    Device(#[from] DeviceError),
}

impl From<ConnectionError> for io::Error {
    fn from(error: ConnectionError) -> Self {
        let kind = match &error {
            // Where there is no way back, the peer has no business with it.
            ConnectionError::PeerMisbehaved(_) | ConnectionError::BackOnTcp | ConnectionError::AsksForTcp => {
                io::ErrorKind::InvalidData
            }
            ConnectionError::Aborted | ConnectionError::PeerGone => io::ErrorKind::ConnectionReset,
            ConnectionError::PeerClosed | ConnectionError::ShutDown => io::ErrorKind::BrokenPipe,
            ConnectionError::Device(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
