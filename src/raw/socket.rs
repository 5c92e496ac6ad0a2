//! `Socket`: the TCP socket of somebody else.
#![allow(unsafe_code)]

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd, RawFd},
    sync::{
        OnceLock,
        atomic::{AtomicI32, Ordering},
    },
};

use bytes::BufMut;
use rustix::{io::fcntl_dupfd_cloexec, net::RecvFlags};

use crate::{
    smc::hybrid::{Tcp, receive, send},
    unix::Kept,
};

/// A TCP socket of somebody else, known by its number until there is a share of our own.
#[derive(Debug)]
pub struct Socket {
    number: AtomicI32,
    /// A descriptor of our own: calls that wait go on when the owner closes its own, as they do in the kernel.
    share: OnceLock<Kept>,
}

impl Socket {
    /// The socket of this number, connected or about to be, on which nothing was read or written yet.
    ///
    /// # Safety
    /// The number is that of this socket whenever a method of the stream is called that it belongs to, until
    /// [`RawStream::has_rings`](super::RawStream::has_rings) is true or [`Socket::renumber`] names another.
    pub unsafe fn new(number: RawFd) -> Self {
        Self { number: AtomicI32::new(number), share: OnceLock::new() }
    }

    /// The socket of a test, which outlives it.
    #[cfg(test)]
    pub(super) fn of(socket: &std::net::TcpStream) -> Self {
        use std::os::fd::AsRawFd;
        // SAFETY: the test keeps the socket open.
        unsafe { Self::new(socket.as_raw_fd()) }
    }

    /// The same socket goes by this number now.
    ///
    /// # Safety
    /// As for [`Socket::new`].
    pub unsafe fn renumber(&self, number: RawFd) {
        self.number.store(number, Ordering::Release);
    }

    /// Takes a share of the socket.
    ///
    /// # Errors
    /// The system's, if there are no descriptors left.
    pub(super) fn take_share(&self) -> io::Result<()> {
        if self.share.get().is_none() {
            let _ = self.share.set(Kept::new(fcntl_dupfd_cloexec(self.socket(), 0)?));
        }
        Ok(())
    }
}

impl Tcp for Socket {
    fn socket(&self) -> BorrowedFd<'_> {
        match self.share.get() {
            Some(share) => share.as_fd(),
            // SAFETY: who made this, or renumbered it, has promised that the number is an open socket as long as there is
            // no share. Peers have no part in it.
            None => unsafe { BorrowedFd::borrow_raw(self.number.load(Ordering::Acquire)) },
        }
    }

    fn receive(&self, dst: &mut impl BufMut) -> io::Result<usize> {
        receive(self.socket(), dst, RecvFlags::empty())
    }

    fn peek(&self, dst: &mut impl BufMut) -> io::Result<usize> {
        receive(self.socket(), dst, RecvFlags::PEEK)
    }

    fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        send(self.socket(), bufs)
    }
}
