//! Waiting for the first bytes of a connection of tokio.

use std::{
    future::Future,
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::Interest,
    net::TcpStream,
    time::{timeout, timeout_at},
};

use super::{First, judge, look};

/// A byte stream whose first bytes can be looked at without taking them.
pub(crate) trait Peek {
    /// The address of this end, if it is one of the system.
    fn local_ip(&self) -> Option<IpAddr> {
        None
    }

    /// Waits until `judge` makes something of the first bytes, up to four. None is the end of the stream; `None` asks
    /// for more, and is no answer to the end.
    ///
    /// # Errors
    /// If the connection fails.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    fn peek_until<T: Send>(
        &self,
        judge: impl FnMut(&[u8]) -> Option<T> + Send,
    ) -> impl Future<Output = io::Result<T>> + Send;
}

impl Peek for TcpStream {
    fn local_ip(&self) -> Option<IpAddr> {
        self.local_addr().ok().map(|addr| addr.ip())
    }

    async fn peek_until<T: Send>(&self, mut judge: impl FnMut(&[u8]) -> Option<T> + Send) -> io::Result<T> {
        self.async_io(Interest::READABLE, || look(self, &mut judge)?.ok_or(io::ErrorKind::WouldBlock.into()))
            .await
    }
}

/// Waits for the first bytes of `tcp`: for `patience` until the first, then until `deadline` for the rest of what
/// looks like an eyecatcher. Nothing is consumed.
///
/// # Errors
/// If the connection fails.
///
/// # Cancel safety
/// Nothing is lost.
pub(crate) async fn first_bytes(tcp: &impl Peek, patience: Duration, deadline: Instant) -> io::Result<First> {
    match timeout(patience, tcp.peek_until(|bytes| Some(judge(bytes)))).await {
        Err(_) => return Ok(First::Silence),
        Ok(Err(error)) => return Err(error),
        Ok(Ok(Some(first))) => return Ok(first),
        Ok(Ok(None)) => {}
    }
    // Whoever sends a part of an eyecatcher and then nothing is no SMC endpoint.
    timeout_at(deadline.into(), tcp.peek_until(judge)).await.unwrap_or(Ok(First::Data))
}
