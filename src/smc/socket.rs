//! `SmcSocket`: a TCP socket whose options are set before it becomes a stream or a listener.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd},
    time::Duration,
};

use tokio::net::TcpSocket;

use super::{SmcConfig, SmcListener, SmcStream, establish};
use crate::tcp_fallback::syn_option;

/// A socket that is not yet connected and does not yet listen, like [`tokio::net::TcpSocket`].
///
/// The options are those of the TCP connection; [`SmcSocket::with_config`] says how it becomes SMC-D.
///
/// # Examples
///
/// ```no_run
/// use smcd::SmcSocket;
///
/// # #[tokio::main]
/// # async fn main() -> std::io::Result<()> {
/// let socket = SmcSocket::new_v4()?;
/// socket.set_reuseaddr(true)?;
/// socket.bind("127.0.0.1:8080".parse().unwrap())?;
/// let listener = socket.listen(1024)?;
/// # drop(listener);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SmcSocket {
    tcp: TcpSocket,
    config: SmcConfig,
}

impl SmcSocket {
    /// Makes a socket for IPv4, with the default settings.
    ///
    /// # Errors
    /// The system's.
    pub fn new_v4() -> io::Result<Self> {
        TcpSocket::new_v4().map(Self::from)
    }

    /// Makes a socket for IPv6, with the default settings.
    ///
    /// # Errors
    /// The system's.
    pub fn new_v6() -> io::Result<Self> {
        TcpSocket::new_v6().map(Self::from)
    }

    /// Takes over a socket of the standard library, which need not be connected. It must be in non-blocking mode.
    pub fn from_std_stream(std_stream: std::net::TcpStream) -> Self {
        TcpSocket::from_std_stream(std_stream).into()
    }

    /// Sets how the stream or listener becomes SMC-D, and how it waits.
    pub fn with_config(mut self, config: SmcConfig) -> Self {
        self.config = config;
        self
    }

    /// Binds the socket to a local address.
    ///
    /// # Errors
    /// The system's.
    pub fn bind(&self, addr: SocketAddr) -> io::Result<()> {
        self.tcp.bind(addr)
    }

    /// Connects to a remote host, as [`SmcStream::connect`] does.
    ///
    /// # Errors
    /// As [`SmcStream::connect`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect(self, addr: SocketAddr) -> io::Result<SmcStream> {
        establish::connect_socket(self.tcp, addr, &self.config).await
    }

    /// Listens on the address that the socket is bound to. At most `backlog` connections wait in the kernel.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn listen(self, backlog: u32) -> io::Result<SmcListener> {
        if self.config.listens_for_option() {
            syn_option::ask(&self.tcp);
        }
        Ok(SmcListener::from_tcp(self.tcp.listen(backlog)?, self.config))
    }

    /// The address that the socket is bound to.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Takes the pending error of the socket (`SO_ERROR`).
    ///
    /// # Errors
    /// The system's.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.tcp.take_error()
    }

    /// Whether `SO_KEEPALIVE` is set.
    ///
    /// # Errors
    /// The system's.
    pub fn keepalive(&self) -> io::Result<bool> {
        self.tcp.keepalive()
    }

    /// Sets `SO_KEEPALIVE`.
    ///
    /// # Errors
    /// The system's.
    pub fn set_keepalive(&self, keepalive: bool) -> io::Result<()> {
        self.tcp.set_keepalive(keepalive)
    }

    /// Whether `SO_REUSEADDR` is set.
    ///
    /// # Errors
    /// The system's.
    pub fn reuseaddr(&self) -> io::Result<bool> {
        self.tcp.reuseaddr()
    }

    /// Sets `SO_REUSEADDR`: an address that is in use may be bound to, as far as the system allows.
    ///
    /// # Errors
    /// The system's.
    pub fn set_reuseaddr(&self, reuseaddr: bool) -> io::Result<()> {
        self.tcp.set_reuseaddr(reuseaddr)
    }

    /// Whether `SO_REUSEPORT` is set.
    ///
    /// # Errors
    /// The system's.
    pub fn reuseport(&self) -> io::Result<bool> {
        self.tcp.reuseport()
    }

    /// Sets `SO_REUSEPORT`: several sockets may listen on one port.
    ///
    /// # Errors
    /// The system's.
    pub fn set_reuseport(&self, reuseport: bool) -> io::Result<()> {
        self.tcp.set_reuseport(reuseport)
    }

    /// Bytes of the TCP send buffer (`SO_SNDBUF`). Those of shared memory are the peer's to choose.
    ///
    /// # Errors
    /// The system's.
    pub fn send_buffer_size(&self) -> io::Result<u32> {
        self.tcp.send_buffer_size()
    }

    /// Sets the bytes of the TCP send buffer (`SO_SNDBUF`).
    ///
    /// # Errors
    /// The system's.
    pub fn set_send_buffer_size(&self, size: u32) -> io::Result<()> {
        self.tcp.set_send_buffer_size(size)
    }

    /// Bytes of the TCP receive buffer (`SO_RCVBUF`). Those of shared memory are in
    /// [`SmcConfig::receive_buffer`].
    ///
    /// # Errors
    /// The system's.
    pub fn recv_buffer_size(&self) -> io::Result<u32> {
        self.tcp.recv_buffer_size()
    }

    /// Sets the bytes of the TCP receive buffer (`SO_RCVBUF`).
    ///
    /// # Errors
    /// The system's.
    pub fn set_recv_buffer_size(&self, size: u32) -> io::Result<()> {
        self.tcp.set_recv_buffer_size(size)
    }

    /// How long closing waits for unsent data (`SO_LINGER`).
    ///
    /// # Errors
    /// The system's.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.tcp.linger()
    }

    /// Sets `SO_LINGER`.
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

    /// Whether `TCP_NODELAY` is set. Shared memory never delays.
    ///
    /// # Errors
    /// The system's.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.tcp.nodelay()
    }

    /// Sets `TCP_NODELAY`.
    ///
    /// # Errors
    /// The system's.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.tcp.set_nodelay(nodelay)
    }

    /// The traffic class of IPv6 packets (`IPV6_TCLASS`).
    ///
    /// # Errors
    /// The system's.
    pub fn tclass_v6(&self) -> io::Result<u32> {
        self.tcp.tclass_v6()
    }

    /// Sets the traffic class of IPv6 packets (`IPV6_TCLASS`).
    ///
    /// # Errors
    /// The system's.
    pub fn set_tclass_v6(&self, tclass: u32) -> io::Result<()> {
        self.tcp.set_tclass_v6(tclass)
    }

    /// The type of service of IPv4 packets (`IP_TOS`).
    ///
    /// # Errors
    /// The system's.
    pub fn tos_v4(&self) -> io::Result<u32> {
        self.tcp.tos_v4()
    }

    /// Sets the type of service of IPv4 packets (`IP_TOS`).
    ///
    /// # Errors
    /// The system's.
    pub fn set_tos_v4(&self, tos: u32) -> io::Result<()> {
        self.tcp.set_tos_v4(tos)
    }

    /// As [`SmcSocket::tos_v4`].
    ///
    /// # Errors
    /// The system's.
    #[deprecated(note = "`tos` related methods have been renamed `tos_v4` since they are IPv4-specific.")]
    #[doc(hidden)]
    pub fn tos(&self) -> io::Result<u32> {
        self.tos_v4()
    }

    /// As [`SmcSocket::set_tos_v4`].
    ///
    /// # Errors
    /// The system's.
    #[deprecated(note = "`tos` related methods have been renamed `tos_v4` since they are IPv4-specific.")]
    #[doc(hidden)]
    pub fn set_tos(&self, tos: u32) -> io::Result<()> {
        self.set_tos_v4(tos)
    }

    /// The interface that the socket is bound to (`SO_BINDTODEVICE`).
    ///
    /// # Errors
    /// The system's.
    pub fn device(&self) -> io::Result<Option<Vec<u8>>> {
        self.tcp.device()
    }

    /// Binds the socket to an interface (`SO_BINDTODEVICE`), or to none.
    ///
    /// # Errors
    /// The system's.
    pub fn bind_device(&self, interface: Option<&[u8]>) -> io::Result<()> {
        self.tcp.bind_device(interface)
    }
}

/// With the default settings.
impl From<TcpSocket> for SmcSocket {
    fn from(tcp: TcpSocket) -> Self {
        Self { tcp, config: SmcConfig::default() }
    }
}

/// Takes over a stream socket, which must be in non-blocking mode, with the default settings.
impl From<OwnedFd> for SmcSocket {
    fn from(socket: OwnedFd) -> Self {
        Self::from_std_stream(socket.into())
    }
}

impl AsFd for SmcSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

impl AsRawFd for SmcSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }
}

impl IntoRawFd for SmcSocket {
    fn into_raw_fd(self) -> RawFd {
        self.tcp.into_raw_fd()
    }
}
