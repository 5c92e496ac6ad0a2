//! The socket of a listener: from and to the standard library, and its descriptor.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use tokio::net::TcpListener;

use super::{SmcConfig, SmcListener};

impl SmcListener {
    /// Makes a listener of one of the standard library, which must be in non-blocking mode, with the default
    /// settings. For others there is [`SmcListener::from_tcp`].
    ///
    /// # Errors
    /// If the runtime cannot watch another descriptor.
    ///
    /// # Panics
    /// Outside a tokio runtime, or if the listener is in blocking mode and this is a debug build.
    #[track_caller]
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        Ok(Self::from_tcp(TcpListener::from_std(listener)?, SmcConfig::default()))
    }

    /// Makes a listener of the standard library of this one, in non-blocking mode. The port stays open throughout.
    ///
    /// The listener has taken connections out of the kernel's queue for their handshakes. Those that were not accepted
    /// from it yet are closed.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn into_std(self) -> io::Result<std::net::TcpListener> {
        // The driver may be accepting at this moment and hold the socket for it. A descriptor of its own does not care.
        Ok(self.as_fd().try_clone_to_owned()?.into())
    }
}

/// As [`SmcListener::from_std`].
impl TryFrom<std::net::TcpListener> for SmcListener {
    type Error = io::Error;

    fn try_from(listener: std::net::TcpListener) -> Result<Self, Self::Error> {
        Self::from_std(listener)
    }
}

/// The socket, for its options only: connections that are accepted through the descriptor are plain TCP.
impl AsFd for SmcListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

/// As [`AsFd`]: for socket options only.
impl AsRawFd for SmcListener {
    fn as_raw_fd(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }
}
