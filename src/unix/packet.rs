//! Packets with descriptors over sequenced-packet sockets. Nothing here blocks.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, accept_with, recvmsg, sendmsg, socket_with,
    },
};

use super::Handed;

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

/// A new socket.
pub(crate) fn new_socket() -> Result<OwnedFd, Errno> {
    socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
}

/// The next connection that somebody opened to us, if there is one.
pub(crate) fn accept_from(listener: &OwnedFd) -> Option<OwnedFd> {
    accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()
}

/// Takes the next packet off a socket.
pub(crate) fn receive(socket: &OwnedFd, bytes: &mut [u8]) -> Received {
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
pub(crate) fn send(socket: &OwnedFd, parts: &[&[u8]], fds: &[OwnedFd]) -> Result<(), Errno> {
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
