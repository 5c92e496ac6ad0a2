//! A TCP connection of an endpoint.

use std::{
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use smoltcp::iface::SocketHandle;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{core::Connected, driver::Held};
use crate::{dibs::Cause, tcp_fallback::detect::Peek};

/// A TCP connection of an [`Endpoint`](super::Endpoint), without SMC-D.
///
/// Dropping it closes it in both directions, with a reset if something is left unread. What was written before is sent,
/// as long as the runtime goes on.
pub struct StackStream {
    held: Held,
    handle: SocketHandle,
    local: SocketAddr,
    remote: SocketAddr,
    smc_signalled: bool,
}

impl StackStream {
    pub(super) fn new(held: Held, connected: &Connected) -> Self {
        let Connected { handle, local, remote, smc_signalled } = *connected;
        Self { held, handle, local, remote, smc_signalled }
    }

    /// True if both the SYN and the SYN-ACK of this connection had the SMC option: a client then has to begin with a
    /// Proposal or a Decline, and a server to answer a Proposal.
    pub fn smc_signalled(&self) -> bool {
        self.smc_signalled
    }

    /// The local address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The remote address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.remote
    }

    /// Polls for as many of the first unread bytes as `judge` needs to make something of them. None is the end.
    pub(crate) fn poll_peek_until<T>(
        &self,
        cx: &mut Context<'_>,
        judge: &mut impl FnMut(&[u8]) -> Option<T>,
    ) -> Poll<io::Result<T>> {
        let mut verdict = None;
        let peeked = self.held.look(|core| {
            core.poll_recv(self.handle, cx, |socket| {
                let bytes = socket.peek(Self::PEEK)?;
                if bytes.is_empty() {
                    return Ok(0);
                }
                verdict = judge(bytes);
                // Too little is as good as nothing: whoever asks is woken by more.
                Ok(if verdict.is_some() { bytes.len() } else { 0 })
            })
        });
        match ready!(peeked)? {
            0 => Poll::Ready(judge(&[]).ok_or(io::ErrorKind::UnexpectedEof.into())),
            _ => Poll::Ready(verdict.ok_or(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Polls for the end of what the peer sends, or for anything that it sends. Who waits for data and who waits for
    /// space may both wait.
    pub(crate) fn poll_peer_end(&self, cx: &mut Context<'_>, waits_for: Cause) -> Poll<()> {
        self.held.look(|core| core.poll_peer_end(self.handle, cx, waits_for))
    }

    /// How many bytes are looked at.
    const PEEK: usize = 4;
}

impl Peek for StackStream {
    async fn peek_until<T: Send>(&self, mut judge: impl FnMut(&[u8]) -> Option<T> + Send) -> io::Result<T> {
        poll_fn(|cx| self.poll_peek_until(cx, &mut judge)).await
    }
}

/// # Cancel safety
/// A read that was not polled to completion has taken nothing.
impl AsyncRead for StackStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // The driver looks again, since there is room for the peer to send into.
        let read = self.held.with(|core| {
            core.poll_recv(self.handle, cx, |socket| socket.recv_slice(buf.initialize_unfilled()))
        });
        read.map_ok(|n| buf.advance(n))
    }
}

/// Written data is sent as soon as the peer has room: flushing does nothing.
///
/// # Cancel safety
/// A write that was not polled to completion has written nothing.
impl AsyncWrite for StackStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.held.with(|core| core.poll_send(self.handle, cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.with(|core| core.socket(self.handle).close());
        Poll::Ready(Ok(()))
    }
}

impl Drop for StackStream {
    fn drop(&mut self) {
        self.held.with(|core| core.release(self.handle));
    }
}

impl fmt::Debug for StackStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StackStream")
            .field("local", &self.local)
            .field("remote", &self.remote)
            .field("smc_signalled", &self.smc_signalled)
            .finish_non_exhaustive()
    }
}
