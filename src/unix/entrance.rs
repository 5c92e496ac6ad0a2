//! The sockets of servers in the file system.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntranceError {
    /// Another server listens there.
    #[error("a server listens at {0}")]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{0} is there, and is no socket")]
    NoSocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen at {path}: {error}")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

#[cfg(feature = "vfio-user")]
impl From<EntranceError> for io::Error {
    fn from(error: EntranceError) -> Self {
        Self::other(error)
    }
}

/// The socket that clients connect to. Its name goes with it.
#[derive(Debug)]
pub(crate) struct Entrance {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the name, which may be another's by now.
    name: (u64, u64),
}

impl Entrance {
    /// Listens at this path. A socket there that nobody answers on is removed.
    pub(crate) fn open(path: &Path) -> Result<Self, EntranceError> {
        let failed = |error| EntranceError::Listen { path: path.to_owned(), error };
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
fn remove_stale(path: &Path) -> Result<(), EntranceError> {
    let in_use = |error| EntranceError::Listen { path: path.to_owned(), error };
    if !fs::symlink_metadata(path).map_err(in_use)?.file_type().is_socket() {
        return Err(EntranceError::NoSocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(in_use),
        Err(error) => Err(in_use(error)),
        Ok(_) => Err(EntranceError::InUse(path.to_owned())),
    }
}
