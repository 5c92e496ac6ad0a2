//! `SmcListener`: a listener of `std::net` whose connections are promoted where the client wants and can.

use std::{
    fmt, io,
    iter::FusedIterator,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::Arc,
};

use super::{SmcStream, establish, stream::check};
use crate::SmcConfig;

/// A listener, like [`std::net::TcpListener`], that serves SMC-D and plain TCP clients on one port.
///
/// # Examples
///
/// ```no_run
/// use std::io;
/// use smcd::blocking::SmcListener;
///
/// # fn main() -> io::Result<()> {
/// let listener = SmcListener::bind("127.0.0.1:8080")?;
/// for stream in listener.incoming() {
///     let stream = stream?;
///     io::copy(&mut &stream, &mut &stream)?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct SmcListener {
    tcp: TcpListener,
    config: Arc<SmcConfig>,
}

impl SmcListener {
    /// Listens on this address, with the default settings. If there are several, each is tried until one is free.
    ///
    /// # Errors
    /// Those of [`TcpListener::bind`].
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        Self::bind_with(addr, SmcConfig::default())
    }

    /// Listens on this address, with these settings.
    ///
    /// # Errors
    /// Those of [`TcpListener::bind`]; `Unsupported` with [`Handshake::InBand`](crate::Handshake::InBand).
    pub fn bind_with<A: ToSocketAddrs>(addr: A, config: SmcConfig) -> io::Result<Self> {
        check(&config)?;
        if !config.listens_for_option() {
            return Self::from_std_with(TcpListener::bind(addr)?, config);
        }
        let mut last = None;
        for addr in addr.to_socket_addrs()? {
            match establish::bind(addr) {
                Ok(listener) => return Self::from_std_with(listener, config),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on")))
    }

    /// Listens on a listener of the standard library, with these settings. It is too late to have it answer the SMC option
    /// ([`SmcConfig::option_peers`]).
    ///
    /// # Errors
    /// `Unsupported` with [`Handshake::InBand`](crate::Handshake::InBand).
    pub fn from_std_with(listener: TcpListener, config: SmcConfig) -> io::Result<Self> {
        check(&config)?;
        Ok(Self { tcp: listener, config: Arc::new(config) })
    }

    /// Makes a listener of the standard library of this one. Connections that were accepted stay what they are.
    pub fn into_std(self) -> TcpListener {
        self.tcp
    }

    /// Accepts a connection. With [`SmcConfig::option_peers`], a client that has sent the SMC option owes a message, which
    /// is waited for here, for [`SmcConfig::handshake_timeout`] at most; one that breaks the protocol is dropped and
    /// logged. One that says nothing is taken for a TCP client that wants the server to speak first; should it begin to speak
    /// CLC later, reading fails with `InvalidData`.
    ///
    /// # Errors
    /// The system's; `WouldBlock` in non-blocking mode if there is none.
    pub fn accept(&self) -> io::Result<(SmcStream, SocketAddr)> {
        loop {
            let (tcp, peer) = self.tcp.accept()?;
            match establish::accept(tcp, peer, &self.config) {
                Ok(shared) => return Ok((SmcStream(Arc::new(shared)), peer)),
                Err(error) => tracing::warn!(%peer, %error, "connection dropped in its handshake"),
            }
        }
    }

    /// The connections, one after the other, without an end.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming(self)
    }

    /// Another handle to the same listener.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { tcp: self.tcp.try_clone()?, config: self.config.clone() })
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Sets the time-to-live of packets sent.
    ///
    /// # Errors
    /// The system's.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.tcp.set_ttl(ttl)
    }

    /// The time-to-live of packets sent.
    ///
    /// # Errors
    /// The system's.
    pub fn ttl(&self) -> io::Result<u32> {
        self.tcp.ttl()
    }

    /// Takes the pending error of the socket (`SO_ERROR`).
    ///
    /// # Errors
    /// The system's.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.tcp.take_error()
    }

    /// Moves all clones into or out of non-blocking mode, in which accepting fails with `WouldBlock` in place of waiting.
    /// Streams that are accepted block.
    ///
    /// # Errors
    /// The system's.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.tcp.set_nonblocking(nonblocking)
    }
}

/// With the default settings.
impl From<TcpListener> for SmcListener {
    fn from(listener: TcpListener) -> Self {
        Self { tcp: listener, config: Arc::default() }
    }
}

impl fmt::Debug for SmcListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("SmcListener");
        if let Ok(addr) = self.local_addr() {
            shown.field("addr", &addr);
        }
        shown.field("fd", &self.as_raw_fd()).finish()
    }
}

/// The socket, for its options, and to wait for connections.
impl AsFd for SmcListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

/// As `AsFd`.
impl AsRawFd for SmcListener {
    fn as_raw_fd(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }
}

/// The connections of a listener, from [`SmcListener::incoming`]. Never ends.
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Incoming<'a>(&'a SmcListener);

impl Iterator for Incoming<'_> {
    type Item = io::Result<SmcStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.accept().map(|(stream, _)| stream))
    }
}

impl FusedIterator for Incoming<'_> {}
