//! `SmcStream`: a TCP stream whose bytes move through shared memory where both ends can reach it.

use std::{
    io::{self, IoSlice},
    net::{Shutdown, SocketAddr},
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, ready},
};

use bytes::BufMut;
use rustix::net::{RecvFlags, SendFlags};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready},
    net::{TcpStream, ToSocketAddrs},
};

use super::{
    ByteCounts, ConnectionError, SmcConfig, Transport,
    connection::Progress,
    establish,
    smcd::Smcd,
    split::{self, ReadHalf, WriteHalf},
    split_owned::{self, OwnedReadHalf, OwnedWriteHalf},
};
use crate::{
    dibs::Cause,
    tcp_fallback::{
        FallbackReason,
        detect::{First, late_bytes},
    },
};

/// A stream between two sockets, like [`tokio::net::TcpStream`]: its bytes move through shared memory if both ends
/// speak SMC-D and can reach common memory, else through TCP.
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
    pub(super) tcp: TcpStream,
    /// The client was silent for so long that it was taken for plain TCP; its first bytes will tell.
    undecided: AtomicBool,
}

/// Which way the bytes take.
#[derive(Debug)]
pub(super) enum Path {
    Smcd(Box<Smcd>),
    Tcp(FallbackReason),
}

impl SmcStream {
    /// Connects to a remote host with the default settings.
    ///
    /// With [`Handshake::InBand`](super::Handshake::InBand) the host must be known to speak CLC; one that does not
    /// would take the Proposal for data.
    ///
    /// # Errors
    /// Those of [`TcpStream::connect`]; and, if the peer answers with something that is not CLC, or not in time, an
    /// error whose source says what came. A refusal of SMC-D by either side is no error: the stream is TCP then.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        Self::connect_with(addr, &SmcConfig::default()).await
    }

    /// Connects to a remote host with these settings.
    ///
    /// # Errors
    /// As [`SmcStream::connect`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect_with<A: ToSocketAddrs>(addr: A, config: &SmcConfig) -> io::Result<Self> {
        establish::client(TcpStream::connect(addr).await?, config).await
    }

    pub(crate) fn smcd(tcp: TcpStream, smcd: Smcd) -> Self {
        Self { tcp, path: Path::Smcd(Box::new(smcd)), undecided: AtomicBool::new(false) }
    }

    pub(crate) fn tcp(tcp: TcpStream, reason: FallbackReason) -> Self {
        Self { tcp, path: Path::Tcp(reason), undecided: AtomicBool::new(false) }
    }

    /// Of a client that has not sent anything in time.
    pub(crate) fn tcp_undecided(tcp: TcpStream) -> Self {
        Self { tcp, path: Path::Tcp(FallbackReason::PeerNotSmc), undecided: AtomicBool::new(true) }
    }

    /// Makes sure, before the first byte of a late client is read as data, that it is data: an SMC client whose
    /// Proposal came too late would otherwise be taken for an application that speaks gibberish.
    pub(super) fn check_late(&self) -> io::Result<()> {
        if !self.undecided.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Nothing yet: whoever asks has to wait, and look again when something has come.
        match self.tcp.try_io(Interest::READABLE, || late_bytes(&self.tcp))? {
            First::Data => {}
            First::Clc => return Err(io::Error::new(io::ErrorKind::InvalidData, LateProposal)),
            First::Silence => return Err(io::ErrorKind::WouldBlock.into()),
        }
        self.undecided.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// How the bytes travel, and why if it is TCP.
    pub fn transport(&self) -> Transport {
        match &self.path {
            Path::Tcp(reason) => Transport::Tcp(*reason),
            Path::Smcd(smcd) => Transport::Smcd {
                chid: smcd.chid(),
                gid: smcd.gid(),
                peer_gid: smcd.peer(),
                receive_buffer: smcd.connection().receive_buffer(),
                send_buffer: smcd.connection().send_buffer(),
            },
        }
    }

    /// Payload bytes that went through shared memory so far; zero for a TCP connection.
    pub fn byte_counts(&self) -> ByteCounts {
        match &self.path {
            Path::Smcd(smcd) => smcd.connection().byte_counts(),
            Path::Tcp(_) => ByteCounts::default(),
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

    /// Waits until the stream can be read from (the end included).
    ///
    /// # Errors
    /// If the runtime has gone.
    ///
    /// # Cancel safety
    /// Nothing is lost; readiness stays.
    pub async fn readable(&self) -> io::Result<()> {
        match &self.path {
            Path::Smcd(smcd) => smcd.ready(Cause::Data).await,
            Path::Tcp(_) => self.tcp.readable().await,
        }
    }

    /// Waits until the stream can be written to, or writing would fail.
    ///
    /// # Errors
    /// If the runtime has gone.
    ///
    /// # Cancel safety
    /// Nothing is lost; readiness stays.
    pub async fn writable(&self) -> io::Result<()> {
        match &self.path {
            Path::Smcd(smcd) => smcd.ready(Cause::Space).await,
            Path::Tcp(_) => self.tcp.writable().await,
        }
    }

    /// Waits for any of the requested readiness states.
    ///
    /// # Errors
    /// If the runtime has gone, or the interest is neither reading nor writing.
    ///
    /// # Cancel safety
    /// Nothing is lost; readiness stays.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        let Path::Smcd(smcd) = &self.path else { return self.tcp.ready(interest).await };
        match (interest.is_readable(), interest.is_writable()) {
            (true, true) => {
                tokio::select! {
                    ready = smcd.ready(Cause::Data) => ready?,
                    ready = smcd.ready(Cause::Space) => ready?,
                }
            }
            (true, false) => smcd.ready(Cause::Data).await?,
            (false, true) => smcd.ready(Cause::Space).await?,
            (false, false) => return Err(io::ErrorKind::InvalidInput.into()),
        }
        let mut ready = Ready::EMPTY;
        if interest.is_readable() && smcd.connection().is_readable() {
            ready |= Ready::READABLE;
        }
        if interest.is_writable() && smcd.connection().is_writable() {
            ready |= Ready::WRITABLE;
        }
        Ok(ready)
    }

    /// Reads what is there into `buf`. Zero means the end (or an empty `buf`).
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing yet; otherwise as for reading.
    pub fn try_read(&self, mut buf: &mut [u8]) -> io::Result<usize> {
        match &self.path {
            Path::Smcd(smcd) => at_once(smcd.connection().try_read(&mut buf)),
            Path::Tcp(_) => self.check_late().and_then(|()| self.tcp.try_read(buf)),
        }
    }

    /// Reads what is there into `buf`, advancing it. Zero means the end (or a full `buf`).
    ///
    /// # Errors
    /// As [`SmcStream::try_read`].
    pub fn try_read_buf<B: BufMut>(&self, buf: &mut B) -> io::Result<usize> {
        match &self.path {
            // Bounded: a vector would grow for as long as the peer writes.
            Path::Smcd(smcd) => {
                let mut room = buf.limit(usize::from(u16::MAX) + 1);
                at_once(smcd.connection().try_read(&mut room))
            }
            Path::Tcp(_) => self.check_late().and_then(|()| self.tcp.try_read_buf(buf)),
        }
    }

    /// Writes as much of `buf` as there is room for.
    ///
    /// # Errors
    /// `WouldBlock` if there is no room; otherwise as for writing.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.try_write_vectored(&[IoSlice::new(buf)])
    }

    /// Writes as much of the buffers as there is room for.
    ///
    /// # Errors
    /// As [`SmcStream::try_write`].
    pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.path {
            Path::Smcd(smcd) => at_once(smcd.connection().try_write(bufs)),
            Path::Tcp(_) => self.tcp.try_write_vectored(bufs),
        }
    }

    /// Sends an urgent byte, as `MSG_OOB` does on TCP.
    ///
    /// # Errors
    /// `WouldBlock` if there is no room, or an urgent byte is still under way; otherwise as for writing.
    pub fn try_send_urgent(&self, byte: u8) -> io::Result<()> {
        match &self.path {
            Path::Smcd(smcd) => at_once(smcd.connection().try_write_urgent(byte)).map(drop),
            Path::Tcp(_) => Ok(rustix::net::send(
                &self.tcp,
                &[byte],
                SendFlags::OOB | SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            )
            .map(drop)?),
        }
    }

    /// Reads the urgent byte that the peer sent, ahead of normal data, as `MSG_OOB` does on TCP. Normal reading skips
    /// it.
    ///
    /// # Errors
    /// `InvalidInput` if there is none, or it was read before; otherwise as for reading.
    pub fn try_recv_urgent(&self) -> io::Result<u8> {
        match &self.path {
            Path::Smcd(smcd) => {
                smcd.connection().try_read_urgent()?.ok_or_else(|| io::ErrorKind::InvalidInput.into())
            }
            Path::Tcp(_) => {
                let mut byte = [0];
                rustix::net::recv(&self.tcp, &mut byte, RecvFlags::OOB | RecvFlags::DONTWAIT)?;
                Ok(byte[0])
            }
        }
    }

    /// Reads into `buf` without taking the bytes away.
    ///
    /// # Errors
    /// As for reading.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        // Not by polling, which would take the place of a reader's waker.
        loop {
            self.readable().await?;
            if let Err(error) = self.check_late() {
                if error.kind() == io::ErrorKind::WouldBlock {
                    continue;
                }
                return Err(error);
            }
            let peeked = match &self.path {
                Path::Smcd(smcd) => at_once(smcd.connection().try_peek(&mut &mut *buf)),
                Path::Tcp(_) => self.tcp.try_io(Interest::READABLE, || {
                    Ok(rustix::net::recv(&self.tcp, &mut *buf, RecvFlags::PEEK | RecvFlags::DONTWAIT)?.0)
                }),
            };
            match peeked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    /// Polls for bytes to read without taking them away; says how many were copied to `buf`.
    ///
    /// # Errors
    /// As for reading.
    pub fn poll_peek(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        match &self.path {
            Path::Smcd(smcd) => smcd.poll_peek(cx, buf),
            Path::Tcp(_) => loop {
                ready!(self.tcp.poll_read_ready(cx))?;
                match self.check_late() {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                    Ok(()) => return self.tcp.poll_peek(cx, buf),
                }
            },
        }
    }

    /// Splits into borrowed halves, to be used by one task at once.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        split::split(self)
    }

    /// Splits into owned halves, which may go to different tasks.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        split_owned::split(self)
    }

    /// Polls for reading on a shared reference; one task at a time may wait for each direction.
    pub(crate) fn poll_read_shared(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &self.path {
            Path::Smcd(smcd) => smcd.poll_read(cx, buf).map_ok(drop),
            Path::Tcp(_) => loop {
                ready!(self.tcp.poll_read_ready(cx))?;
                match self.check_late().and_then(|()| self.tcp.try_read_buf(buf)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return Poll::Ready(other.map(drop)),
                }
            },
        }
    }

    /// Polls for writing on a shared reference; one task at a time may wait for each direction.
    pub(crate) fn poll_write_shared(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &self.path {
            Path::Smcd(smcd) => smcd.poll_write(cx, bufs),
            Path::Tcp(_) => loop {
                ready!(self.tcp.poll_write_ready(cx))?;
                match self.tcp.try_write_vectored(bufs) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return Poll::Ready(other),
                }
            },
        }
    }

    /// Shuts down writing. What was written before reaches the peer.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        if let Path::Smcd(smcd) = &self.path {
            smcd.connection().shutdown_write()?;
        }
        // Linux' SMC-D sends its FIN here too.
        match socket2::SockRef::from(&self.tcp).shutdown(Shutdown::Write) {
            // The peer has gone already; what it had to say about that was or will be read.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }
}

/// A client's Proposal came after it had been taken for a plain TCP client.
#[derive(Debug, thiserror::Error)]
#[error("the client's CLC Proposal came too late")]
struct LateProposal;

fn at_once(progress: Result<Progress, ConnectionError>) -> io::Result<usize> {
    match progress? {
        Progress::Done(n) => Ok(n),
        Progress::Eof => Ok(0),
        Progress::Blocked => Err(io::ErrorKind::WouldBlock.into()),
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
