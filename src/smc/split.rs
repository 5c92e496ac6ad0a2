//! Borrowed halves of a stream.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};

use super::{
    SmcStream,
    half::{half, poll_read, poll_write, read_half, write_half},
};

/// Borrowed read half of a [`SmcStream`], created by [`SmcStream::split`].
#[derive(Debug)]
pub struct ReadHalf<'a>(&'a SmcStream);

/// Borrowed write half of a [`SmcStream`], created by [`SmcStream::split`].
///
/// Shutting it down shuts down writing; dropping it does not.
#[derive(Debug)]
pub struct WriteHalf<'a>(&'a SmcStream);

pub(crate) fn split(stream: &mut SmcStream) -> (ReadHalf<'_>, WriteHalf<'_>) {
    (ReadHalf(stream), WriteHalf(stream))
}

impl ReadHalf<'_> {
    half!();
    read_half!();
}

impl WriteHalf<'_> {
    half!();
    write_half!();
}

/// The stream itself, for everything that does not need `&mut`.
impl AsRef<SmcStream> for ReadHalf<'_> {
    fn as_ref(&self) -> &SmcStream {
        self.0
    }
}

/// The stream itself, for everything that does not need `&mut`.
impl AsRef<SmcStream> for WriteHalf<'_> {
    fn as_ref(&self) -> &SmcStream {
        self.0
    }
}

impl AsyncRead for ReadHalf<'_> {
    poll_read!();
}

impl AsyncWrite for WriteHalf<'_> {
    poll_write!();

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown_write())
    }
}
