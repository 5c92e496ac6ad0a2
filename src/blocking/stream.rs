//! `SmcStream`: a stream of `std::net` whose bytes move through shared memory where both ends can reach it.

use std::{
    fmt, io,
    net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::Arc,
    time::Duration,
};

use socket2::SockRef;

use super::{establish, shared::Shared, waits::Waits};
use crate::{
    Handshake, SmcConfig, Transport,
    smc::{
        ByteCounts,
        hybrid::{Counts, Tcp},
    },
};

/// A stream between two sockets, like [`std::net::TcpStream`]: its bytes move through shared memory if both ends are on
/// one host and use this library, else through TCP.
///
/// It is TCP at once, and is promoted when it has carried enough to be worth it ([`Promotion`](crate::Promotion)).
/// Before and after that it behaves as TCP, as far as an application can see; the TCP connection stays open below and
/// says when the peer has gone.
///
/// Any number of threads may read and write at the same time, by [`SmcStream::try_clone`] or a shared reference. When
/// the last clone is dropped, the stream is closed in both directions. If data is left unread, the peer sees a reset.
///
/// # Examples
///
/// ```no_run
/// use std::io::prelude::*;
/// use smcd::blocking::SmcStream;
///
/// # fn main() -> std::io::Result<()> {
/// let mut stream = SmcStream::connect("127.0.0.1:8080")?;
/// stream.write_all(&[1])?;
/// stream.read_exact(&mut [0; 128])?;
/// println!("connected by {}", stream.transport());
/// # Ok(())
/// # }
/// ```
pub struct SmcStream(pub(super) Arc<Shared>);

impl SmcStream {
    /// Connects to a remote host, with the default settings. If there are several addresses, each is tried until one
    /// answers.
    ///
    /// # Errors
    /// Those of [`TcpStream::connect`].
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        Self::connect_with(addr, &SmcConfig::default())
    }

    /// Connects to a remote host, with these settings. One of [`SmcConfig::option_peers`] is asked by the SMC option, and
    /// the handshake in band, if it answers, is over when this returns.
    ///
    /// # Errors
    /// Those of [`TcpStream::connect`]; `Unsupported` with [`Handshake::InBand`].
    pub fn connect_with<A: ToSocketAddrs>(addr: A, config: &SmcConfig) -> io::Result<Self> {
        check(config)?;
        let config = Arc::new(config.clone());
        if !config.listens_for_option() {
            return Ok(Self::fresh(TcpStream::connect(addr)?, &config));
        }
        let mut last = None;
        for addr in addr.to_socket_addrs()? {
            let connected = if config.asks_for_option(addr.ip()) {
                establish::connect(addr, &config).map(|shared| Self(Arc::new(shared)))
            } else {
                TcpStream::connect(addr).map(|tcp| Self::fresh(tcp, &config))
            };
            match connected {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no address to connect to")))
    }

    /// Connects to a remote host, with the default settings, and waits no longer than `timeout` for it.
    ///
    /// # Errors
    /// Those of [`TcpStream::connect_timeout`]: `InvalidInput` if the time is zero, `TimedOut` if it is over.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<Self> {
        let tcp = TcpStream::connect_timeout(addr, timeout)?;
        Ok(Self::fresh(tcp, &Arc::new(SmcConfig::default())))
    }

    /// A connection on which nothing was read or written yet.
    pub(super) fn fresh(tcp: TcpStream, config: &Arc<SmcConfig>) -> Self {
        Self(Arc::new(Shared::new(tcp, config, Ok(Counts::default()))))
    }

    /// Makes a stream of a connected one of the standard library, with the default settings. What was read and written
    /// before does not matter, if nobody else reads or writes it any more. Timeouts and non-blocking mode are kept.
    pub fn from_std(stream: TcpStream) -> Self {
        Self::from_std_with(stream, &SmcConfig::default())
    }

    /// As [`SmcStream::from_std`], with these settings. In band there is no handshake: it would come too late.
    pub fn from_std_with(stream: TcpStream, config: &SmcConfig) -> Self {
        let counts = stream.counts();
        Self(Arc::new(Shared::new(stream, &Arc::new(config.clone()), counts)))
    }

    /// Makes a stream of the standard library of this one. From now on the connection stays TCP, for other clones too;
    /// they read and write the same stream.
    ///
    /// # Errors
    /// `Unsupported` if the bytes go through shared memory, which the standard library knows nothing of; this clone is
    /// dropped then. Ask [`SmcStream::transport`] before.
    pub fn into_std(self) -> io::Result<TcpStream> {
        self.0.waits.hybrid.leave_to_application(true, true)?;
        match Arc::try_unwrap(self.0) {
            Ok(Shared { waits: Waits { hybrid, tcp, .. }, .. }) => {
                drop(hybrid);
                Arc::try_unwrap(tcp).or_else(|tcp| tcp.try_clone())
            }
            Err(shared) => shared.waits.tcp.try_clone(),
        }
    }

    /// Another handle to the same stream. Options, timeouts and non-blocking mode are those of all.
    ///
    /// # Errors
    /// None; the signature is that of the standard library.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.clone()))
    }

    /// How the bytes travel at present, and why if it is TCP.
    pub fn transport(&self) -> Transport {
        self.0.waits.hybrid.transport()
    }

    /// Payload bytes that went through shared memory so far.
    pub fn byte_counts(&self) -> ByteCounts {
        self.0.waits.hybrid.byte_counts()
    }

    /// The remote address of the TCP connection.
    ///
    /// # Errors
    /// The system's.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.waits.tcp.peer_addr()
    }

    /// The local address of the TCP connection.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.waits.tcp.local_addr()
    }

    /// Shuts down reading, writing, or both, for all clones. Threads that are blocked in what is shut down wake up:
    /// at once if they read, within a tenth of a second if they write to shared memory that is full.
    ///
    /// After reading was shut down, reads get what was there, then the end. After writing was shut down, the peer reads
    /// what was written before, then the end.
    ///
    /// # Errors
    /// The system's, as `NotConnected` if the peer has reset the connection.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    /// Reads into `buf` without taking the bytes away.
    ///
    /// # Errors
    /// As for reading.
    pub fn peek(&self, mut buf: &mut [u8]) -> io::Result<usize> {
        self.0.peek(&mut buf)
    }

    /// Sets how long a read may wait; without a limit by default. One that takes longer fails with `WouldBlock`.
    ///
    /// # Errors
    /// `InvalidInput` if the time is zero.
    pub fn set_read_timeout(&self, dur: Option<Duration>) -> io::Result<()> {
        self.0.waits.tcp.set_read_timeout(dur)?;
        *self.0.reading.get() = dur;
        Ok(())
    }

    /// Sets how long a write may wait; without a limit by default. One that takes longer fails with `WouldBlock`.
    ///
    /// # Errors
    /// `InvalidInput` if the time is zero.
    pub fn set_write_timeout(&self, dur: Option<Duration>) -> io::Result<()> {
        self.0.waits.tcp.set_write_timeout(dur)?;
        *self.0.writing.get() = dur;
        Ok(())
    }

    /// How long a read may wait.
    ///
    /// # Errors
    /// None; the signature is that of the standard library.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(*self.0.reading.get())
    }

    /// How long a write may wait.
    ///
    /// # Errors
    /// None; the signature is that of the standard library.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(*self.0.writing.get())
    }

    /// Moves all clones into or out of non-blocking mode, in which reads and writes fail with `WouldBlock` in place of
    /// waiting. Calls that wait already go on waiting.
    ///
    /// # Errors
    /// The system's.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }
}

/// Options of the TCP connection below. Shared memory has none of them.
impl SmcStream {
    /// Sets `TCP_NODELAY`. Shared memory never delays.
    ///
    /// # Errors
    /// The system's.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.0.waits.tcp.set_nodelay(nodelay)
    }

    /// Whether `TCP_NODELAY` is set.
    ///
    /// # Errors
    /// The system's.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.0.waits.tcp.nodelay()
    }

    /// Sets the time-to-live of packets sent.
    ///
    /// # Errors
    /// The system's.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.0.waits.tcp.set_ttl(ttl)
    }

    /// The time-to-live of packets sent.
    ///
    /// # Errors
    /// The system's.
    pub fn ttl(&self) -> io::Result<u32> {
        self.0.waits.tcp.ttl()
    }

    /// Sets how long closing waits for unsent data (`SO_LINGER`). What was written to shared memory is never unsent.
    /// With a time of zero, closing is a reset, by whichever way the bytes go.
    ///
    /// # Errors
    /// The system's.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        SockRef::from(&*self.0.waits.tcp).set_linger(linger)
    }

    /// How long closing waits for unsent data.
    ///
    /// # Errors
    /// The system's.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        SockRef::from(&*self.0.waits.tcp).linger()
    }

    /// Takes the pending error of the TCP connection (`SO_ERROR`).
    ///
    /// # Errors
    /// The system's.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.waits.tcp.take_error()
    }
}

/// Refuses settings that have no blocking implementation.
pub(super) fn check(config: &SmcConfig) -> io::Result<()> {
    if config.handshake == Handshake::InBand {
        return Err(io::Error::new(io::ErrorKind::Unsupported, InBand));
    }
    Ok(())
}

/// There is no handshake in band without a runtime yet.
#[derive(Debug, thiserror::Error)]
#[error("blocking streams cannot do the handshake in band")]
struct InBand;

/// As [`SmcStream::from_std`].
impl From<TcpStream> for SmcStream {
    fn from(stream: TcpStream) -> Self {
        Self::from_std(stream)
    }
}

impl fmt::Debug for SmcStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("SmcStream");
        if let Ok(addr) = self.local_addr() {
            shown.field("addr", &addr);
        }
        if let Ok(peer) = self.peer_addr() {
            shown.field("peer", &peer);
        }
        shown.field("fd", &self.as_raw_fd()).finish()
    }
}

/// The TCP socket, for its options. Timeouts and non-blocking mode are those that the stream's own methods set; reading,
/// writing or waiting for it knows nothing of shared memory.
impl AsFd for SmcStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.waits.tcp.as_fd()
    }
}

/// As `AsFd`.
impl AsRawFd for SmcStream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.waits.tcp.as_raw_fd()
    }
}
