//! The TCP connection below, as far as a hybrid needs it.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use bytes::BufMut;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::ioctl_fionread,
    net::{RecvFlags, SendAncillaryBuffer, SendFlags, sendmsg},
};
use socket2::SockRef;

use crate::{tcp_fallback::recv_into, unix::sockopt::tcp_counts};

/// So often the counts are taken again if data arrives meanwhile.
const TRIES: usize = 4;

/// Most pieces that the kernel takes in one call (`UIO_MAXIOV`). The rest is for the next one.
const MAX_PIECES: usize = 1024;

/// How much the application has read and written on a TCP connection, by the kernel's count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    /// Bytes read.
    pub(crate) taken: u64,
    /// Bytes written.
    pub(crate) given: u64,
}

/// A TCP connection. Nothing blocks: what cannot be done now is `WouldBlock`.
pub(crate) trait Tcp {
    /// Its socket.
    fn socket(&self) -> BorrowedFd<'_>;

    /// Reads what is there. Zero is the end; `dst` has room.
    fn receive(&self, dst: &mut impl BufMut) -> io::Result<usize>;

    /// Reads what is there and leaves it there.
    fn peek(&self, dst: &mut impl BufMut) -> io::Result<usize>;

    /// Writes as much as there is room for.
    fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;

    /// As [`Tcp::send`], whatever is believed of the room there is.
    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        self.send(&[IoSlice::new(bytes)])
    }

    /// True if something can be written, or an attempt would fail.
    fn is_writable(&self) -> bool {
        is_writable(self.socket())
    }

    /// Bytes that have come and were not read.
    fn unread(&self) -> usize {
        ioctl_fionread(self.socket()).map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX))
    }

    /// True if something has come that was not read.
    fn has_unread(&self) -> bool {
        self.unread() > 0
    }

    /// Bytes read, by the kernel's count.
    ///
    /// # Errors
    /// `WouldBlock` if data keeps arriving meanwhile; another error if the kernel does not count.
    fn taken(&self) -> io::Result<u64> {
        taken(self.socket())
    }

    /// Bytes written, by the kernel's count.
    ///
    /// # Errors
    /// If the kernel does not count.
    fn given(&self) -> io::Result<u64> {
        Ok(tcp_counts(self.socket())?.sent)
    }

    /// What the kernel has counted.
    ///
    /// # Errors
    /// As [`Tcp::taken`].
    fn counts(&self) -> io::Result<Counts> {
        Ok(Counts { taken: self.taken()?, given: self.given()? })
    }

    /// Sends what the kernel holds back in the hope of more.
    fn push(&self) {
        push(self.socket());
    }

    /// Makes closing it a reset.
    fn reset_on_close(&self) {
        // If this fails the connection has been reset already.
        let _ = SockRef::from(&self.socket()).set_linger(Some(Duration::ZERO));
    }

    /// True if closing it is a reset.
    fn resets_on_close(&self) -> bool {
        matches!(SockRef::from(&self.socket()).linger(), Ok(Some(Duration::ZERO)))
    }
}

/// Reads from a socket without blocking.
pub(crate) fn receive(socket: impl AsFd, dst: &mut impl BufMut, flags: RecvFlags) -> io::Result<usize> {
    Ok(recv_into(socket, dst, flags | RecvFlags::DONTWAIT)?)
}

/// Writes to a socket without blocking.
pub(crate) fn send(socket: impl AsFd, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(match bufs {
        [one] => rustix::net::send(socket, one, flags)?,
        many => sendmsg(
            socket,
            many.get(..MAX_PIECES).unwrap_or(many),
            &mut SendAncillaryBuffer::default(),
            flags,
        )?,
    })
}

/// True if something can be written, or an attempt would fail.
pub(crate) fn is_writable(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::OUT)];
    // What cannot be asked would not wait either.
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

fn taken(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut unread = ioctl_fionread(socket)?;
    for _ in 0..TRIES {
        let received = tcp_counts(socket)?.received;
        let still = ioctl_fionread(socket)?;
        // Nobody reads meanwhile, so what is unread does not change but by what arrives.
        if still == unread {
            return Ok(received.saturating_sub(unread));
        }
        unread = still;
    }
    Err(io::ErrorKind::WouldBlock.into())
}

fn push(socket: BorrowedFd<'_>) {
    let socket = SockRef::from(&socket);
    // Switching the delay off sends what was delayed, by a cork too, and even if it is off already. What fails here was
    // nothing but a delay.
    let delays = matches!(socket.tcp_nodelay(), Ok(false));
    let _ = socket.set_tcp_nodelay(true);
    if delays {
        let _ = socket.set_tcp_nodelay(false);
    }
}
