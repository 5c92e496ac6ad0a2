//! Names of unix sockets, by which processes of one host find each other.

use std::{
    fs, io,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
    net::{SocketAddrUnix, bind, connect, listen},
};

use super::packet::PacketSocket;

/// Longest path of a unix socket, without the zero that ends it.
const MAX_PATH: usize = 107;

/// A file on which nobody listens for so long after it was made has been left by a process that has died.
const LEFT_OVER: Duration = Duration::from_secs(1);

/// Most files that a sweep looks at.
const MAX_SWEEP: usize = 4096;

/// A name: in the abstract namespace, which reaches as far as TCP loopback does; or in a directory, so that containers
/// with network namespaces of their own can share it.
#[derive(Clone, Debug)]
pub(crate) enum Name {
    /// Without the leading zero.
    Abstract(String),
    /// The file.
    File(PathBuf),
}

impl Name {
    /// True if processes of other network namespaces can find it.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Connects a new socket to whoever listens.
    ///
    /// # Errors
    /// `ECONNREFUSED` or `ENOENT` if nobody does, `EAGAIN` if too many wait already. The socket is still new then.
    pub(crate) fn connect(&self, socket: &PacketSocket) -> Result<(), Errno> {
        self.with_address(|address| connect(socket, address))
    }

    /// Listens on a new socket, on which `backlog` connections may wait to be accepted.
    ///
    /// # Errors
    /// `EADDRINUSE` if somebody has the name.
    pub(crate) fn listen(&self, socket: &PacketSocket, backlog: i32) -> Result<(), Errno> {
        self.with_address(|address| bind(socket, address))?;
        if let Self::File(path) = self {
            // Who may come in is for the directory to say, and for the proof that follows.
            let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o666));
        }
        listen(socket, backlog)
    }

    /// Removes what a process left that has died: a file on which nobody listens, and not just because whoever made it
    /// has still to begin.
    pub(crate) fn remove_left_over(&self) {
        if let Self::File(path) = self {
            let made = fs::symlink_metadata(path).and_then(|file| file.modified());
            if made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age >= LEFT_OVER)) {
                self.remove();
            }
        }
    }

    /// Removes the file of our own socket; an abstract name goes with it.
    pub(crate) fn remove(&self) {
        if let Self::File(path) = self {
            // Whoever was faster has done it.
            let _ = fs::remove_file(path);
        }
    }

    fn with_address<T>(&self, run: impl FnOnce(&SocketAddrUnix) -> Result<T, Errno>) -> Result<T, Errno> {
        match self {
            Self::Abstract(name) => run(&SocketAddrUnix::new_abstract_name(name.as_bytes())?),
            Self::File(path) if path.as_os_str().as_bytes().len() <= MAX_PATH => {
                run(&SocketAddrUnix::new(path.as_path())?)
            }
            Self::File(path) => {
                // Too long to be named as it is.
                let (Some(dir), Some(file)) = (path.parent(), path.file_name()) else {
                    return Err(Errno::INVAL);
                };
                let dir = open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
                let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(file);
                run(&SocketAddrUnix::new(short.as_path())?)
            }
        }
    }
}

/// Removes the files of processes that have died, among those whose names say that they are `ours`.
///
/// # Errors
/// If the directory cannot be read.
pub(crate) fn sweep(dir: &Path, is_ours: impl Fn(&[u8]) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(dir)?.take(MAX_SWEEP) {
        let entry = entry?;
        // Nobody listens on a file that is no socket either, and the directory may hold what is not ours.
        if !entry.file_type()?.is_socket() || !is_ours(entry.file_name().as_bytes()) {
            continue;
        }
        let name = Name::File(entry.path());
        // Whoever listens there finds a connection that has ended at once, and takes no notice.
        if name.connect(&PacketSocket::new()?) == Err(Errno::CONNREFUSED) {
            name.remove_left_over();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn nothing_is_swept_but_what_was_left() {
        let dir = std::env::temp_dir().join(format!("smcd-sweep-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let is_ours = |name: &[u8]| name.starts_with(b"ours-");
        let (left, alive) = ("ours-1", "ours-2");
        let (file, stranger) = ("ours-3", "database.sock");
        drop(UnixListener::bind(dir.join(left)).unwrap());
        drop(UnixListener::bind(dir.join(stranger)).unwrap());
        fs::write(dir.join(file), b"precious").unwrap();
        let listener = PacketSocket::new().unwrap();
        Name::File(dir.join(alive)).listen(&listener, 16).unwrap();
        sweep(&dir, is_ours).unwrap();
        assert!(dir.join(left).exists(), "whoever made it may be about to listen");
        std::thread::sleep(LEFT_OVER);
        sweep(&dir, is_ours).unwrap();
        let is_there = [left, alive, file, stranger].map(|name| dir.join(name).exists());
        fs::remove_dir_all(dir).unwrap();
        assert_eq!(is_there, [false, true, true, true]);
    }
}
