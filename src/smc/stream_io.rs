//! Methods of a stream that depend on the way its bytes take, and convert it from and to the standard library's.

use std::{
    io::{self, IoSliceMut},
    task::{Context, Poll},
};

use tokio::{io::Interest, net::TcpStream};

use super::{SmcStream, connection::Progress, stream::Path};
use crate::{dibs::Cause, tcp_fallback::FallbackReason};

impl SmcStream {
    /// Makes a stream of a connected stream of the standard library, which must be in non-blocking mode. No handshake
    /// takes place: it is TCP.
    ///
    /// # Errors
    /// If the runtime cannot watch another descriptor.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<Self> {
        Ok(Self::tcp(TcpStream::from_std(stream)?, FallbackReason::Disabled))
    }

    /// Makes a stream of the standard library of this one, in non-blocking mode.
    ///
    /// # Errors
    /// `Unsupported` if the bytes go through shared memory, which the standard library knows nothing of. The
    /// connection is closed then.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        match self.path {
            Path::Smcd(_) => Err(io::ErrorKind::Unsupported.into()),
            Path::Tcp(_) => self.tcp.into_std(),
        }
    }

    /// Polls for readiness to be read from. Only the waker of the last call is woken.
    ///
    /// # Errors
    /// If the runtime has gone.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.path {
            Path::Smcd(smcd) => smcd
                .poll_progress(cx, Cause::Data, &mut || Ok(progress(smcd.connection().is_readable())))
                .map_ok(drop),
            Path::Tcp(_) => self.tcp.poll_read_ready(cx),
        }
    }

    /// Polls for readiness to be written to. Only the waker of the last call is woken.
    ///
    /// # Errors
    /// If the runtime has gone.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.path {
            Path::Smcd(smcd) => smcd
                .poll_progress(cx, Cause::Space, &mut || Ok(progress(smcd.connection().is_writable())))
                .map_ok(drop),
            Path::Tcp(_) => self.tcp.poll_write_ready(cx),
        }
    }

    /// Reads what is there into the buffers, one after the other. Zero means the end (or empty buffers).
    ///
    /// # Errors
    /// As [`SmcStream::try_read`].
    pub fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if let Path::Tcp(_) = &self.path {
            return self.check_late().and_then(|()| self.tcp.try_read_vectored(bufs));
        }
        let mut total = 0;
        for buf in bufs.iter_mut().filter(|buf| !buf.is_empty()) {
            match self.try_read(buf) {
                Ok(n) => {
                    total += n;
                    if n < buf.len() {
                        break;
                    }
                }
                Err(_) if total > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    /// Calls `f` if the stream is ready. `f` is expected to read or write the stream.
    ///
    /// # Errors
    /// `WouldBlock` if the stream is not ready; otherwise those of `f`.
    pub fn try_io<R>(&self, interest: Interest, f: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match &self.path {
            Path::Smcd(smcd) => {
                let readable = interest.is_readable() && smcd.connection().is_readable();
                if readable || (interest.is_writable() && smcd.connection().is_writable()) {
                    f()
                } else {
                    Err(io::ErrorKind::WouldBlock.into())
                }
            }
            Path::Tcp(_) => self.tcp.try_io(interest, f),
        }
    }

    /// Calls `f` whenever the stream is ready, until it does not return `WouldBlock`.
    ///
    /// # Errors
    /// Those of `f`, and of [`SmcStream::ready`].
    ///
    /// # Cancel safety
    /// `f` is not called after the future was dropped.
    pub async fn async_io<R>(
        &self,
        interest: Interest,
        mut f: impl FnMut() -> io::Result<R>,
    ) -> io::Result<R> {
        if let Path::Tcp(_) = &self.path {
            return self.tcp.async_io(interest, f).await;
        }
        loop {
            self.ready(interest).await?;
            match f() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}

fn progress(ready: bool) -> Progress {
    if ready { Progress::Done(0) } else { Progress::Blocked }
}

/// As [`SmcStream::from_std`].
impl TryFrom<std::net::TcpStream> for SmcStream {
    type Error = io::Error;

    fn try_from(stream: std::net::TcpStream) -> Result<Self, Self::Error> {
        Self::from_std(stream)
    }
}
