//! Sockets of clients, and the one that they find.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use rustix::net::{Shutdown, SocketFlags, accept_with, shutdown, sockopt::set_socket_send_buffer_size};

use super::FabricError;
use crate::unix::closer;

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

/// The socket that clients connect to. Its name goes with it.
#[derive(Debug)]
pub(super) struct Entrance {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the name, which may be another's by now.
    name: (u64, u64),
}

impl Entrance {
    /// Listens at this path. A socket there that nobody answers on is removed.
    pub(super) fn open(path: &Path) -> Result<Self, FabricError> {
        let failed = |error| FabricError::Listen { path: path.to_owned(), error };
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                remove_stale(path)?;
                UnixListener::bind(path)
            }
            bound => bound,
        };
        let listener = listener.map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let name = fs::symlink_metadata(path).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), name: (name.dev(), name.ino()) })
    }

    /// The next client. `WouldBlock` if there is none.
    pub(super) fn accept(&self) -> io::Result<Socket> {
        let fd = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        // As little as possible: who does not read is found out, and holds few descriptors on their way.
        set_socket_send_buffer_size(&fd, 0)?;
        Ok(Socket(Some(fd)))
    }
}

impl AsFd for Entrance {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.name);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket whose process has gone, and nothing else.
fn remove_stale(path: &Path) -> Result<(), FabricError> {
    let in_use = |error| FabricError::Listen { path: path.to_owned(), error };
    if !fs::symlink_metadata(path).map_err(in_use)?.file_type().is_socket() {
        return Err(FabricError::NoSocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(in_use),
        Err(error) => Err(in_use(error)),
        Ok(_) => Err(FabricError::InUse(path.to_owned())),
    }
}
