//! `SmcStream`: a TCP stream whose bytes move through shared memory where both ends can reach it.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::AsFd,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, ToSocketAddrs},
};

use super::{
    ByteCounts, SmcConfig, Transport, establish,
    promoted::{Promoted, promoted},
    smcd::Smcd,
    split::{self, ReadHalf, WriteHalf},
    split_owned::{self, OwnedReadHalf, OwnedWriteHalf},
};
use crate::tcp_fallback::{FallbackReason, Promotion, detect::check_late};

/// A stream between two sockets, like [`tokio::net::TcpStream`]: its bytes move through shared memory if both ends
/// speak SMC-D and can reach common memory, else through TCP.
///
/// While it is TCP, and while it moves from one to the other, it behaves as TCP. Afterwards it does so too, as far as
/// an application can see; the TCP connection stays open below and says when the peer has gone.
///
/// Dropping the stream closes it in both directions. If data is left unread, the peer sees a reset.
///
/// # Examples
///
/// ```no_run
/// use smcd::SmcStream;
/// use tokio::io::AsyncWriteExt;
///
/// # #[tokio::main]
/// # async fn main() -> std::io::Result<()> {
/// let mut stream = SmcStream::connect("127.0.0.1:8080").await?;
/// println!("connected by {}", stream.transport());
/// stream.write_all(b"hello world!").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SmcStream {
    /// First, so that the peer finds the connection closed when it sees the end of the TCP connection.
    pub(super) path: Path,
    pub(super) tcp: Arc<TcpStream>,
    /// The client was silent for so long that it was taken for plain TCP; its first bytes will tell.
    undecided: AtomicBool,
}

/// Which way the bytes take.
#[derive(Debug)]
pub(super) enum Path {
    /// Shared memory, since before the first byte.
    Smcd(Box<Smcd>),
    /// TCP, at least at first.
    Promoted(Box<Promoted>),
}

impl SmcStream {
    /// Connects to a remote host with the default settings: by TCP at once. If the host is this one and its end is an
    /// `SmcStream` too, the connection moves to shared memory when it has carried enough to be worth it
    /// ([`Promotion`]).
    ///
    /// # Errors
    /// Those of [`TcpStream::connect`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        // Not as with other settings: these need not be copied, which a short connection would feel.
        Ok(establish::tcp_first(TcpStream::connect(addr).await?, SmcConfig::shared()))
    }

    /// Connects to a remote host with these settings.
    ///
    /// With [`Handshake::InBand`](super::Handshake::InBand) the host must be known to speak CLC; one that does not
    /// would take the Proposal for data. One of [`SmcConfig::option_peers`] is asked by the SMC option; what only echoes it
    /// costs a handshake timeout at worst, and is then connected to anew.
    ///
    /// # Errors
    /// Those of [`TcpStream::connect`]; and in band, if the peer answers with something that is not CLC, or not in
    /// time, an error whose source says what came. A refusal of SMC-D by either side is no error: the stream is TCP
    /// then.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect_with<A: ToSocketAddrs>(addr: A, config: &SmcConfig) -> io::Result<Self> {
        establish::connect(addr, config).await
    }

    pub(super) fn with_path(path: Path, tcp: Arc<TcpStream>) -> Self {
        Self { path, tcp, undecided: AtomicBool::new(false) }
    }

    /// A stream that was shared memory before its first byte.
    pub(crate) fn smcd(tcp: TcpStream, smcd: Smcd) -> Self {
        smcd.announce(tcp.as_fd());
        Self::with_path(Path::Smcd(Box::new(smcd)), Arc::new(tcp))
    }

    /// A stream that will be promoted when it is worth it.
    pub(crate) fn promoted(tcp: TcpStream, config: Arc<SmcConfig>) -> Self {
        let tcp = Arc::new(tcp);
        Self::with_path(Path::Promoted(Box::new(promoted(tcp.clone(), config))), tcp)
    }

    /// A stream that stays TCP.
    pub(crate) fn tcp(tcp: TcpStream, reason: FallbackReason) -> Self {
        static OFF: OnceLock<Arc<SmcConfig>> = OnceLock::new();
        let config = OFF.get_or_init(|| Arc::new(SmcConfig::new().promotion(Promotion::Off)));
        Self::tcp_with(tcp, reason, config.clone())
    }

    /// As [`SmcStream::tcp`], with these settings.
    pub(crate) fn tcp_with(tcp: TcpStream, reason: FallbackReason, config: Arc<SmcConfig>) -> Self {
        let stream = Self::promoted(tcp, config);
        if let Path::Promoted(hybrid) = &stream.path {
            hybrid.stay(reason);
        }
        stream
    }

    /// Of a client that has not sent anything in time.
    pub(crate) fn tcp_undecided(tcp: TcpStream) -> Self {
        Self { undecided: AtomicBool::new(true), ..Self::tcp(tcp, FallbackReason::PeerNotSmc) }
    }

    /// Makes sure, before the first byte of a late client is read as data, that it is data.
    #[inline]
    pub(super) fn check_late(&self) -> io::Result<()> {
        if !self.undecided.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Nothing yet: whoever asks has to wait, and look again when something has come.
        self.tcp.try_io(Interest::READABLE, || check_late(&self.tcp))?;
        self.undecided.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// How the bytes travel at present, and why if it is TCP.
    pub fn transport(&self) -> Transport {
        match &self.path {
            Path::Smcd(smcd) => smcd.transport(),
            Path::Promoted(hybrid) => hybrid.transport(),
        }
    }

    /// Payload bytes that went through shared memory so far.
    pub fn byte_counts(&self) -> ByteCounts {
        match &self.path {
            Path::Smcd(smcd) => smcd.connection().byte_counts(),
            Path::Promoted(hybrid) => hybrid.byte_counts(),
        }
    }

    /// The local address of the TCP connection.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The remote address of the TCP connection.
    ///
    /// # Errors
    /// The system's.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.peer_addr()
    }

    /// Whether `TCP_NODELAY` is set. Shared memory never delays.
    ///
    /// # Errors
    /// The system's.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.tcp.nodelay()
    }

    /// Sets `TCP_NODELAY` on the TCP connection.
    ///
    /// # Errors
    /// The system's.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.tcp.set_nodelay(nodelay)
    }

    /// Splits into borrowed halves, to be used by one task at once.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        split::split(self)
    }

    /// Splits into owned halves, which may go to different tasks.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        split_owned::split(self)
    }
}

/// # Cancel safety
/// A read that was not polled to completion has taken nothing.
impl AsyncRead for SmcStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_read_shared(cx, buf)
    }
}

/// Written data is at once in the peer's ring (or the kernel's buffer): flushing does nothing.
///
/// # Cancel safety
/// A write that was not polled to completion has written nothing.
impl AsyncWrite for SmcStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_shared(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_shared(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
    }
}
