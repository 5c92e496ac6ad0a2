//! Packets with descriptors over sequenced-packet sockets. Nothing here blocks.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    io::{Errno, fcntl_dupfd_cloexec},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, accept_with,
        recvmsg, sendmsg, shutdown, socket_with, sockopt::set_socket_passcred,
    },
};

use super::{Generation, Handed, Kept, closer};

/// Most descriptors that one packet of ours carries.
pub(crate) const MAX_FDS: usize = 2;

/// What a look at a socket found.
#[derive(Debug)]
pub(crate) enum Received {
    /// A packet of so many bytes; it was longer if they fill the buffer. With the descriptors that came along.
    Packet(usize, Handed),
    /// Nothing at present.
    Empty,
    /// The other process closed the socket or died.
    Closed,
}

/// A socket on which a process that is not trusted may send packets.
///
/// To close it is to close the descriptors in packets that nobody has taken. So these are taken before, unless it is
/// the socket of a process that this one came from: then it stays open there.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    fd: Kept,
    of: Generation,
}

impl PacketSocket {
    /// A new socket.
    pub(crate) fn new() -> Result<Self, Errno> {
        socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map(Self::of)
    }

    fn of(fd: OwnedFd) -> Self {
        Self { fd: Kept::new(fd), of: Generation::current() }
    }

    /// True if a process that this one came from made it.
    pub(crate) fn is_inherited(&self) -> bool {
        self.of.is_past()
    }

    /// The next connection that somebody opened to this listener, if there is one.
    pub(crate) fn accept(&self) -> Option<Self> {
        accept_with(self, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok().map(Self::of)
    }

    /// True if there is a packet, be it empty. Only where nothing more can come.
    fn holds_packets(&self) -> bool {
        // The kernel has credentials to go with a packet, but not with the end; it says so if there is no room for them.
        let _ = set_socket_passcred(self, true);
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let received = recvmsg(self, &mut [], &mut RecvAncillaryBuffer::default(), flags);
        let _ = set_socket_passcred(self, false);
        received.is_ok_and(|received| received.flags.contains(ReturnFlags::CTRUNC))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for PacketSocket {
    fn drop(&mut self) {
        if self.is_inherited() {
            return;
        }
        // From here on nothing comes; what fails here has nothing to receive.
        let _ = shutdown(&self.fd, Shutdown::Read);
        // Of a listener: those that nobody has accepted.
        while let Some(socket) = self.accept() {
            drop(socket);
        }
        while self.holds_packets() {
            if closer::is_held_up() {
                // As long as there is another descriptor, closing ours does nothing.
                let other = fcntl_dupfd_cloexec(&self.fd, 0);
                return closer::discard(other);
            }
            receive(self, &mut []);
        }
    }
}

/// Takes the next packet off a socket.
pub(crate) fn receive(socket: &PacketSocket, bytes: &mut [u8]) -> Received {
    // Room for all that Linux lets through: what did not fit, it would close at once, here, however long that takes.
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(253))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(bytes)],
        &mut control,
        RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
    );
    let len = match received {
        Ok(received) => received.bytes,
        Err(Errno::AGAIN | Errno::INTR) => return Received::Empty,
        Err(_) => return Received::Closed,
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let fds = Handed::new(fds);
    if len == 0 && fds.is_empty() { Received::Closed } else { Received::Packet(len, fds) }
}

/// Sends the parts as one packet, with at most [`MAX_FDS`] descriptors.
///
/// # Errors
/// `EAGAIN`, `ENOBUFS` or `ETOOMANYREFS` if the other side has to take something in first.
pub(crate) fn send(socket: &PacketSocket, parts: &[&[u8]], fds: &[OwnedFd]) -> Result<(), Errno> {
    let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::INVAL);
    }
    sendmsg(socket, &parts, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map(drop)
}

/// True if an error of [`send`] will pass.
pub(crate) fn is_busy(errno: Errno) -> bool {
    matches!(errno, Errno::AGAIN | Errno::NOBUFS | Errno::TOOMANYREFS)
}
