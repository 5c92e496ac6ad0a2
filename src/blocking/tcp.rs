//! The TCP connection below, as the standard library has it.

use std::{
    io::{self, IoSlice},
    net::TcpStream,
    os::fd::{AsFd, BorrowedFd},
};

use bytes::BufMut;
use rustix::net::RecvFlags;

use crate::smc::hybrid::{Tcp, receive, send};

/// The socket is in the mode that the user chose, and no call depends on it.
impl Tcp for TcpStream {
    fn socket(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn receive(&self, dst: &mut impl BufMut) -> io::Result<usize> {
        receive(self, dst, RecvFlags::empty())
    }

    fn peek(&self, dst: &mut impl BufMut) -> io::Result<usize> {
        receive(self, dst, RecvFlags::PEEK)
    }

    fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        send(self, bufs)
    }
}
