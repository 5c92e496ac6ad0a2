//! Options of the TCP connection below a stream, and its descriptor.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::Duration,
};

use super::SmcStream;

/// Options of the TCP connection. Shared memory has none: it never delays, and needs neither packets nor their
/// acknowledgement.
impl SmcStream {
    /// Takes the pending error of the TCP connection (`SO_ERROR`).
    ///
    /// # Errors
    /// The system's.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.tcp.take_error()
    }

    /// Whether `TCP_QUICKACK` is set.
    ///
    /// # Errors
    /// The system's.
    pub fn quickack(&self) -> io::Result<bool> {
        self.tcp.quickack()
    }

    /// Sets `TCP_QUICKACK`: acknowledgements go out at once.
    ///
    /// # Errors
    /// The system's.
    pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        self.tcp.set_quickack(quickack)
    }

    /// How long closing waits for unsent data (`SO_LINGER`).
    ///
    /// # Errors
    /// The system's.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.tcp.linger()
    }

    /// Sets `SO_LINGER`. What is written to shared memory is never unsent, so closing does not wait for it.
    ///
    /// # Errors
    /// The system's.
    #[deprecated = "`SO_LINGER` causes the socket to block the thread on drop"]
    pub fn set_linger(&self, dur: Option<Duration>) -> io::Result<()> {
        #[expect(deprecated, reason = "tokio has it so")]
        self.tcp.set_linger(dur)
    }

    /// Sets `SO_LINGER` to zero: closing resets the TCP connection and drops what it has not sent.
    ///
    /// # Errors
    /// The system's.
    pub fn set_zero_linger(&self) -> io::Result<()> {
        self.tcp.set_zero_linger()
    }

    /// The time-to-live of packets sent (`IP_TTL`).
    ///
    /// # Errors
    /// The system's.
    pub fn ttl(&self) -> io::Result<u32> {
        self.tcp.ttl()
    }

    /// Sets the time-to-live of packets sent (`IP_TTL`).
    ///
    /// # Errors
    /// The system's.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.tcp.set_ttl(ttl)
    }
}

/// For code that is generic over the stream and its halves.
impl AsRef<Self> for SmcStream {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// The TCP socket, for its options only: bytes that are read or written through the descriptor bypass the shared
/// memory.
impl AsFd for SmcStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

/// As [`AsFd`]: for socket options only.
impl AsRawFd for SmcStream {
    fn as_raw_fd(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }
}
