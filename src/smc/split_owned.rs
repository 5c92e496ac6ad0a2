//! Owned halves of a stream.

use std::{
    error::Error,
    fmt,
    io::{self, IoSlice, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};

use super::{
    SmcStream,
    half::{half, poll_read, poll_write, read_half, write_half},
};

/// Owned read half of a [`SmcStream`], created by [`SmcStream::into_split`].
#[derive(Debug)]
pub struct OwnedReadHalf(Arc<SmcStream>);

/// Owned write half of a [`SmcStream`], created by [`SmcStream::into_split`].
///
/// Dropping it shuts down writing, unless it is [forgotten](OwnedWriteHalf::forget).
#[derive(Debug)]
pub struct OwnedWriteHalf {
    stream: Arc<SmcStream>,
    shutdown_on_drop: bool,
}

pub(crate) fn split(stream: SmcStream) -> (OwnedReadHalf, OwnedWriteHalf) {
    let stream = Arc::new(stream);
    (OwnedReadHalf(stream.clone()), OwnedWriteHalf { stream, shutdown_on_drop: true })
}

/// The two halves do not belong to the same stream.
#[derive(Debug)]
pub struct ReuniteError(pub OwnedReadHalf, pub OwnedWriteHalf);

impl fmt::Display for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tried to reunite halves that are not from the same socket")
    }
}

impl Error for ReuniteError {}

fn reunite(read: OwnedReadHalf, mut write: OwnedWriteHalf) -> Result<SmcStream, ReuniteError> {
    if !Arc::ptr_eq(&read.0, &write.stream) {
        return Err(ReuniteError(read, write));
    }
    write.shutdown_on_drop = false;
    let stream = write.stream.clone();
    drop(write);
    // Two shares are left, and nobody can make more of them.
    drop(read);
    match Arc::try_unwrap(stream) {
        Ok(stream) => Ok(stream),
        Err(stream) => Err(ReuniteError(
            OwnedReadHalf(stream.clone()),
            OwnedWriteHalf { stream, shutdown_on_drop: true },
        )),
    }
}

impl OwnedReadHalf {
    /// Puts the two halves together again.
    ///
    /// # Errors
    /// If they are not from the same stream.
    pub fn reunite(self, other: OwnedWriteHalf) -> Result<SmcStream, ReuniteError> {
        reunite(self, other)
    }

    half!();
    read_half!();
}

impl OwnedWriteHalf {
    /// Puts the two halves together again.
    ///
    /// # Errors
    /// If they are not from the same stream.
    pub fn reunite(self, other: OwnedReadHalf) -> Result<SmcStream, ReuniteError> {
        reunite(other, self)
    }

    /// Drops the half without shutting down writing.
    pub fn forget(mut self) {
        self.shutdown_on_drop = false;
    }

    half!();
    write_half!();
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        if self.shutdown_on_drop {
            // Nobody is left to be told of a failure, and the peer finds out by itself.
            let _ = self.stream.shutdown_write();
        }
    }
}

/// The stream itself, for everything that does not need `&mut`.
impl AsRef<SmcStream> for OwnedReadHalf {
    fn as_ref(&self) -> &SmcStream {
        &self.0
    }
}

/// The stream itself, for everything that does not need `&mut`.
impl AsRef<SmcStream> for OwnedWriteHalf {
    fn as_ref(&self) -> &SmcStream {
        &self.stream
    }
}

impl AsyncRead for OwnedReadHalf {
    poll_read!();
}

impl AsyncWrite for OwnedWriteHalf {
    poll_write!();

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = self.stream.shutdown_write();
        if result.is_ok() {
            self.shutdown_on_drop = false;
        }
        Poll::Ready(result)
    }
}
