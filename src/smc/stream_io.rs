//! Reading and writing a stream, by whichever way its bytes take.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::Shutdown,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::BufMut;
use rustix::net::{RecvFlags, SendFlags};
use socket2::SockRef;
use tokio::{
    io::{Interest, ReadBuf, Ready},
    net::TcpStream,
};

use super::{
    SmcConfig, SmcStream,
    connection::Progress,
    hybrid::{Hybrid, Tcp},
    promoted::Home,
    scatter::scatter,
    smcd::Smcd,
    stream::Path,
};
use crate::dibs::Cause;

impl SmcStream {
    /// Makes a stream of a connected stream of the standard library, with the default settings. The stream must be in
    /// non-blocking mode. What was read and written before does not matter, if nobody else reads or writes it any more.
    ///
    /// # Errors
    /// If the runtime cannot watch another descriptor.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<Self> {
        Self::from_std_with(stream, &SmcConfig::default())
    }

    /// As [`SmcStream::from_std`], with these settings. In band there is no handshake: it would come too late.
    ///
    /// # Errors
    /// As [`SmcStream::from_std`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn from_std_with(stream: std::net::TcpStream, config: &SmcConfig) -> io::Result<Self> {
        let tcp = TcpStream::from_std(stream)?;
        Ok(match (config.handshake, tcp.counts()) {
            (super::Handshake::Promotion, Ok(counts)) => {
                let (tcp, config) = (Arc::new(tcp), Arc::new(config.clone()));
                let hybrid = Hybrid::with_counts(tcp.clone(), Home::here(&config), config, counts);
                Self::with_path(Path::Promoted(Box::new(hybrid)), tcp)
            }
            _ => Self::tcp(tcp, crate::FallbackReason::Disabled),
        })
    }

    /// Makes a stream of the standard library of this one, in non-blocking mode.
    ///
    /// # Errors
    /// `Unsupported` if the bytes go through shared memory, which the standard library knows nothing of. The
    /// connection is closed then; ask [`SmcStream::transport`] before.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        self.leave_to_application(Interest::READABLE | Interest::WRITABLE)?;
        let Self { path, tcp, .. } = self;
        drop(path);
        // The path had the only other share.
        Arc::into_inner(tcp).ok_or(io::ErrorKind::ResourceBusy)?.into_std()
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
            Path::Smcd(smcd) => self.smcd_ready(smcd, Cause::Data).await,
            Path::Promoted(hybrid) => hybrid.readable().await,
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
            Path::Smcd(smcd) => self.smcd_ready(smcd, Cause::Space).await,
            Path::Promoted(hybrid) => hybrid.writable().await,
        }
    }

    async fn smcd_ready(&self, smcd: &Smcd, cause: Cause) -> io::Result<()> {
        tokio::select! {
            ready = smcd.ready(cause) => ready,
            () = self.tcp_end() => {
                smcd.tcp_has_ended();
                smcd.ready(cause).await
            }
        }
    }

    /// Waits for any of the requested readiness states. While the bytes go through shared memory, there are only two.
    ///
    /// # Errors
    /// If the runtime has gone; or if the interest is neither reading nor writing, and the stream not TCP.
    ///
    /// # Cancel safety
    /// Nothing is lost; readiness stays.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        if let Path::Promoted(hybrid) = &self.path
            && !hybrid.watches_ring()
            && !hybrid.writes_ring()
            && let Some(ready) = hybrid.tcp_ready(interest).await?
        {
            return Ok(ready);
        }
        match (interest.is_readable(), interest.is_writable()) {
            (true, true) => {
                tokio::select! {
                    ready = self.readable() => ready?,
                    ready = self.writable() => ready?,
                }
            }
            (true, false) => self.readable().await?,
            (false, true) => self.writable().await?,
            (false, false) => return Err(io::ErrorKind::InvalidInput.into()),
        }
        let mut ready = Ready::EMPTY;
        if interest.is_readable() && self.is_readable() {
            ready |= Ready::READABLE;
        }
        if interest.is_writable() && self.is_writable() {
            ready |= Ready::WRITABLE;
        }
        Ok(ready)
    }

    fn is_readable(&self) -> bool {
        match &self.path {
            Path::Smcd(smcd) => smcd.connection().is_readable(),
            Path::Promoted(hybrid) => hybrid.is_readable(),
        }
    }

    fn is_writable(&self) -> bool {
        match &self.path {
            Path::Smcd(smcd) => smcd.connection().is_writable(),
            Path::Promoted(hybrid) => hybrid.is_writable(),
        }
    }

    /// Polls for readiness to be read from. Only the waker of the last call is woken.
    ///
    /// # Errors
    /// If the runtime has gone.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = &mut || Ok(ready_or_blocked(self.is_readable()));
        match &self.path {
            Path::Smcd(smcd) => self.poll_smcd(cx, smcd, Cause::Data, attempt).map_ok(drop),
            Path::Promoted(hybrid) if hybrid.watches_ring() => hybrid.poll_data(cx, attempt).map_ok(drop),
            Path::Promoted(hybrid) => hybrid.poll_tcp(cx),
        }
    }

    /// Polls for readiness to be written to. Only the waker of the last call is woken.
    ///
    /// # Errors
    /// If the runtime has gone.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = &mut || Ok(ready_or_blocked(self.is_writable()));
        match &self.path {
            Path::Smcd(smcd) => self.poll_smcd(cx, smcd, Cause::Space, attempt).map_ok(drop),
            Path::Promoted(hybrid) if hybrid.writes_ring() => hybrid.poll_space(cx, attempt).map_ok(drop),
            Path::Promoted(_) => self.tcp.poll_write_ready(cx),
        }
    }

    fn progress(&self, dst: &mut impl BufMut) -> io::Result<Progress> {
        match &self.path {
            Path::Smcd(smcd) => Ok(smcd.connection().try_read(dst)?),
            Path::Promoted(hybrid) => {
                self.check_late()?;
                hybrid.try_read(dst)
            }
        }
    }

    /// Reads what is there into `buf`. Zero means the end (or an empty `buf`).
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing yet; otherwise as for reading.
    pub fn try_read(&self, mut buf: &mut [u8]) -> io::Result<usize> {
        at_once(self.progress(&mut buf))
    }

    /// Reads what is there into `buf`, advancing it. Zero means the end (or a full `buf`).
    ///
    /// # Errors
    /// As [`SmcStream::try_read`].
    pub fn try_read_buf<B: BufMut>(&self, buf: &mut B) -> io::Result<usize> {
        // Bounded: a vector would grow for as long as the peer writes.
        at_once(self.progress(&mut buf.limit(usize::from(u16::MAX) + 1)))
    }

    /// Reads what is there into the buffers, one after the other. Zero means the end (or empty buffers).
    ///
    /// # Errors
    /// As [`SmcStream::try_read`].
    pub fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        at_once(match &self.path {
            // Its errors stay by themselves.
            Path::Smcd(smcd) => {
                let connection = smcd.connection();
                scatter(bufs, &mut |dst| Ok(connection.try_read(dst)?), drop)
            }
            Path::Promoted(hybrid) => {
                self.check_late()?;
                hybrid.try_read_vectored(bufs)
            }
        })
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
        at_once(match &self.path {
            Path::Smcd(smcd) => smcd.connection().try_write(bufs).map_err(io::Error::from),
            Path::Promoted(hybrid) => hybrid.try_write(bufs),
        })
    }

    /// Calls `f`, which reads or writes the TCP socket itself, if that is ready. From then on the connection stays TCP.
    ///
    /// # Errors
    /// `WouldBlock` if the socket is not ready; `Unsupported` if the bytes go through shared memory already; otherwise
    /// those of `f`.
    pub fn try_io<R>(&self, interest: Interest, f: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.leave_to_application(interest)?;
        self.tcp.try_io(interest, f)
    }

    /// Calls `f`, which reads or writes the TCP socket itself, whenever that is ready, until it does not return
    /// `WouldBlock`. From then on the connection stays TCP.
    ///
    /// # Errors
    /// `Unsupported` if the bytes go through shared memory already; otherwise those of `f`.
    ///
    /// # Cancel safety
    /// `f` is not called after the future was dropped.
    pub async fn async_io<R>(&self, interest: Interest, f: impl FnMut() -> io::Result<R>) -> io::Result<R> {
        self.leave_to_application(interest)?;
        self.tcp.async_io(interest, f).await
    }

    fn leave_to_application(&self, interest: Interest) -> io::Result<()> {
        match &self.path {
            Path::Smcd(_) => Err(io::ErrorKind::Unsupported.into()),
            Path::Promoted(hybrid) => {
                hybrid.leave_to_application(interest.is_readable(), interest.is_writable())
            }
        }
    }

    /// Sends an urgent byte, as `MSG_OOB` does on TCP.
    ///
    /// # Errors
    /// `WouldBlock` if there is no room, or an urgent byte is still under way; otherwise as for writing.
    pub fn try_send_urgent(&self, byte: u8) -> io::Result<()> {
        let by_tcp = || {
            let flags = SendFlags::OOB | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            Ok(rustix::net::send(&self.tcp, &[byte], flags).map(drop)?)
        };
        let sent = match &self.path {
            Path::Smcd(smcd) => smcd.connection().try_write_urgent(byte).map_err(io::Error::from),
            Path::Promoted(hybrid) => hybrid.try_write_urgent(byte, by_tcp),
        };
        at_once(sent).map(drop)
    }

    /// Reads the urgent byte that the peer sent, ahead of normal data, as `MSG_OOB` does on TCP. Normal reading skips
    /// it.
    ///
    /// # Errors
    /// `InvalidInput` if there is none, or it was read before; otherwise as for reading.
    pub fn try_recv_urgent(&self) -> io::Result<u8> {
        let connection = match &self.path {
            Path::Smcd(smcd) => smcd.connection(),
            Path::Promoted(hybrid) => match hybrid.ring().filter(|_| hybrid.reads_ring()) {
                Some(smcd) => smcd.connection(),
                None => {
                    let mut byte = [0];
                    rustix::net::recv(&self.tcp, &mut byte, RecvFlags::OOB | RecvFlags::DONTWAIT)?;
                    return Ok(byte[0]);
                }
            },
        };
        connection.try_read_urgent()?.ok_or_else(|| io::ErrorKind::InvalidInput.into())
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
            let peeked = self.check_late().and_then(|()| match &self.path {
                Path::Smcd(smcd) => Ok(smcd.connection().try_peek(&mut &mut *buf)?),
                Path::Promoted(hybrid) => hybrid.try_peek(&mut &mut *buf),
            });
            match at_once(peeked) {
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
            Path::Smcd(smcd) => {
                self.poll_smcd(cx, smcd, Cause::Data, &mut || Ok(smcd.connection().try_peek(buf)?))
            }
            Path::Promoted(hybrid) => {
                ready!(self.poll_decided(cx))?;
                hybrid.poll_peek(cx, buf)
            }
        }
    }

    fn poll_smcd(
        &self,
        cx: &mut Context<'_>,
        smcd: &Smcd,
        cause: Cause,
        attempt: &mut dyn FnMut() -> io::Result<Progress>,
    ) -> Poll<io::Result<usize>> {
        smcd.poll_progress(cx, cause, attempt, |cx| self.poll_tcp_end(cx, cause))
    }

    /// Waits until the TCP connection below an SMC-D connection has ended, or carries something: nothing belongs there
    /// but a Decline from a server that has given up. Who waits for data and who waits for space may both wait.
    fn poll_tcp_end(&self, cx: &mut Context<'_>, waits_for: Cause) -> Poll<()> {
        loop {
            // The runtime has a place for a reader's waker and one for a writer's. The socket always has room, and `epoll`
            // says so again with all that comes: so a writer is woken too.
            let (seen, interest) = match waits_for {
                Cause::Data => (ready!(self.tcp.poll_read_ready(cx)), Interest::READABLE),
                Cause::Space => (ready!(self.tcp.poll_write_ready(cx)), Interest::WRITABLE),
            };
            // Errors count as the end.
            if seen.is_err() || !self.is_tcp_alive(interest) {
                return Poll::Ready(());
            }
        }
    }

    /// As [`SmcStream::poll_tcp_end`], for any number of tasks.
    async fn tcp_end(&self) {
        while self.tcp.readable().await.is_ok() && self.is_tcp_alive(Interest::READABLE) {}
    }

    /// True if nothing has come by TCP. Then the runtime is told that there is nothing to be had of this kind.
    fn is_tcp_alive(&self, interest: Interest) -> bool {
        let look = || Ok(rustix::net::recv(&self.tcp, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT)?.0);
        self.tcp.try_io(interest, look).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Waits until a late client's first bytes were looked at.
    #[inline]
    fn poll_decided(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.check_late() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_read_ready(cx))?;
                }
                other => return Poll::Ready(other),
            }
        }
    }

    /// Polls for reading on a shared reference; one task at a time may wait for each direction.
    pub(crate) fn poll_read_shared(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &self.path {
            Path::Smcd(smcd) => {
                let attempt = &mut || Ok(smcd.connection().try_read(buf)?);
                self.poll_smcd(cx, smcd, Cause::Data, attempt).map_ok(drop)
            }
            Path::Promoted(hybrid) => {
                ready!(self.poll_decided(cx))?;
                hybrid.poll_read(cx, buf).map_ok(drop)
            }
        }
    }

    /// Polls for writing on a shared reference; one task at a time may wait for each direction.
    pub(crate) fn poll_write_shared(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &self.path {
            Path::Smcd(smcd) => {
                self.poll_smcd(cx, smcd, Cause::Space, &mut || Ok(smcd.connection().try_write(bufs)?))
            }
            Path::Promoted(hybrid) => hybrid.poll_write(cx, bufs),
        }
    }

    /// Shuts down writing. What was written before reaches the peer.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match &self.path {
            Path::Smcd(smcd) => smcd.connection().shutdown_write()?,
            Path::Promoted(hybrid) => hybrid.shutdown_write()?,
        }
        // Linux' SMC-D sends its FIN here too.
        match SockRef::from(&*self.tcp).shutdown(Shutdown::Write) {
            // The peer has gone already; what it had to say about that was or will be read.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }
}

fn at_once(progress: io::Result<Progress>) -> io::Result<usize> {
    match progress? {
        Progress::Done(n) => Ok(n),
        Progress::Eof => Ok(0),
        Progress::Blocked => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn ready_or_blocked(ready: bool) -> Progress {
    if ready { Progress::Done(0) } else { Progress::Blocked }
}

/// As [`SmcStream::from_std`].
impl TryFrom<std::net::TcpStream> for SmcStream {
    type Error = io::Error;

    fn try_from(stream: std::net::TcpStream) -> Result<Self, Self::Error> {
        Self::from_std(stream)
    }
}
