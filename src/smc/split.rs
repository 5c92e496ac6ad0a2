//! Borrowed halves of a stream.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::SmcStream;

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
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_shared(cx, buf)
    }
}

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write_shared(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write_shared(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown_write())
    }
}
