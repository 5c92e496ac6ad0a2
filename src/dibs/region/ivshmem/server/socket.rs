//! Sockets of clients.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{Shutdown, SocketFlags, accept_with, shutdown, sockopt::set_socket_send_buffer_size};

use crate::unix::{Entrance, closer};

/// The connection of a client.
///
/// It may have sent anything, and to close the socket closes that too, however long it takes. So that is left to a thread
/// that has nothing else to do; the client sees the end at once.
#[derive(Debug)]
pub(super) struct Socket(Option<OwnedFd>);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Some(fd) => fd.as_fd(),
            None => unreachable!("taken only on drop"),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(fd) = self.0.take() {
            let _ = shutdown(&fd, Shutdown::Both);
            closer::discard([fd]);
        }
    }
}

/// The next client at the entrance. `WouldBlock` if there is none.
pub(super) fn accept(entrance: &Entrance) -> io::Result<Socket> {
    let fd = accept_with(entrance, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    // As little as possible: who does not read is found out, and holds few descriptors on their way.
    set_socket_send_buffer_size(&fd, 0)?;
    Ok(Socket(Some(fd)))
}
