//! Whether the first bytes of a TCP connection are CLC, found out without taking them.

use std::{
    io,
    time::{Duration, Instant},
};

use rustix::net::{RecvFlags, recv};
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{timeout, timeout_at},
};

use crate::clc::wire::Eyecatcher;

const LEN: usize = 4;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum First {
    /// A CLC message begins.
    Clc,
    /// Data of the application, or the end.
    Data,
    /// Nothing has come.
    Silence,
}

/// A byte stream whose first bytes can be looked at without taking them.
pub(crate) trait Peek {
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

/// What has come of a connection that was silent before: decides it for good. `WouldBlock` if nothing has come.
pub(crate) fn late_bytes(tcp: &TcpStream) -> io::Result<First> {
    Ok(look(tcp, judge)?.unwrap_or(First::Data))
}

/// Looks at the first bytes. `WouldBlock` if there are none.
fn look<T>(tcp: &TcpStream, judge: impl FnOnce(&[u8]) -> Option<T>) -> io::Result<Option<T>> {
    let mut bytes = [0; LEN];
    let (n, _) = recv(tcp, &mut bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
    Ok(judge(bytes.get(..n).unwrap_or(&bytes)))
}

/// What these bytes are. `None` if they may become an eyecatcher.
pub(crate) fn judge(bytes: &[u8]) -> Option<First> {
    let starts = |e: Eyecatcher| e.to_bytes().starts_with(bytes);
    if bytes.is_empty() || !(starts(Eyecatcher::Smcr) || starts(Eyecatcher::Smcd)) {
        Some(First::Data)
    } else {
        (bytes.len() == LEN).then_some(First::Clc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eyecatchers_and_their_beginnings() {
        assert_eq!(judge(&[0xe2, 0xd4, 0xc3, 0xd9]), Some(First::Clc));
        assert_eq!(judge(&[0xe2, 0xd4, 0xc3, 0xc4]), Some(First::Clc));
        assert_eq!(judge(&[0xe2, 0xd4, 0xc3]), None);
        assert_eq!(judge(&[0xe2]), None);
        assert_eq!(judge(b"GET "), Some(First::Data));
        assert_eq!(judge(&[0xe2, 0xd4, 0xc3, 0xc5]), Some(First::Data));
        assert_eq!(judge(&[]), Some(First::Data), "the end");
    }
}
