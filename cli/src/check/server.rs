//! The process at the other end of a connection.

use std::net::SocketAddr;

use procfs::{
    net::{TcpState, tcp, tcp6},
    process::{FDTarget, MMapPath, Process, all_processes},
};
use rustix::process::geteuid;
use smcd::observe;

use super::Finding;
use crate::preload;

/// Who serves a connection.
#[derive(Debug)]
pub(super) enum Server {
    /// Nobody who can be found.
    Unknown,
    /// A process of another user, which cannot be looked at.
    Foreign(u32),
    /// A process of ours.
    Own { pid: i32, name: String, library: Library },
}

/// Whether a process can do SMC-D.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Library {
    /// It has the library, or has recorded connections.
    Active,
    /// It has it, and was told not to promote connections.
    Off,
    /// No sign of it.
    None,
}

impl Server {
    /// The process that has the other end of a connection with these addresses, or listens for it.
    pub(super) fn of(local: SocketAddr, peer: SocketAddr) -> Self {
        let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        let (local, peer) = (canonical(local), canonical(peer));
        let sockets: Vec<_> = [tcp(), tcp6()].into_iter().flatten().flatten().collect();
        let other_end = sockets.iter().find(|socket| {
            (canonical(socket.local_address), canonical(socket.remote_address)) == (peer, local)
                // Zero while nobody has accepted it.
                && socket.inode != 0
        });
        let listens = |socket: &&procfs::net::TcpNetEntry| {
            let address = canonical(socket.local_address);
            let is_any = address.ip().is_unspecified();
            socket.state == TcpState::Listen
                && address.port() == peer.port()
                && (is_any || address.ip() == peer.ip())
        };
        let Some(socket) = other_end.or_else(|| sockets.iter().find(listens)) else { return Self::Unknown };
        if socket.uid != geteuid().as_raw() {
            return Self::Foreign(socket.uid);
        }
        holder(socket.inode).map_or(Self::Unknown, |process| Self::own(&process))
    }

    fn own(process: &Process) -> Self {
        let name = process.stat().map(|stat| stat.comm).unwrap_or_default();
        Self::Own { pid: process.pid(), name, library: library(process) }
    }

    /// What was found out about it.
    pub(super) fn describe(&self) -> (Finding, String) {
        match self {
            Self::Unknown => (Finding::Unknown, "the process of the server is not to be found".into()),
            Self::Foreign(uid) => {
                (Finding::Unknown, format!("the server belongs to user {uid}, and cannot be looked at"))
            }
            Self::Own { pid, name, library } => {
                let (finding, what) = match library {
                    Library::Active => (Finding::Good, "has the library"),
                    Library::Off => (Finding::Bad, "has the library, but SMCD_PROMOTION is off"),
                    Library::None => (Finding::Bad, "shows no sign of the library so far"),
                };
                (finding, format!("the server is process {pid} ({name}), which {what}"))
            }
        }
    }

    /// What is to be expected of it, if it was not seen.
    pub(super) fn verdict(&self) -> (bool, &'static str) {
        match self {
            Self::Unknown => (false, "nothing is known of the server, and it did not ask for a promotion"),
            Self::Foreign(_) => (false, "the server cannot be looked at, and did not ask for a promotion"),
            Self::Own { library: Library::Active, .. } => {
                (true, "the server has the library, and promotes connections that carry enough")
            }
            Self::Own { library: Library::Off, .. } => (false, "it is switched off in the server"),
            Self::Own { library: Library::None, .. } => {
                (false, "the server runs without the library; smcdctl run starts it with it")
            }
        }
    }
}

/// A process that has this socket open. Of several that have inherited it, the first.
fn holder(inode: u64) -> Option<Process> {
    let mut found: Vec<Process> = all_processes()
        .ok()?
        .flatten()
        .filter(|process| {
            let has_it =
                |fd: procfs::process::FDInfo| matches!(fd.target, FDTarget::Socket(of) if of == inode);
            process.fd().is_ok_and(|mut fds| fds.any(|fd| fd.is_ok_and(has_it)))
        })
        .collect();
    found.sort_by_key(Process::pid);
    found.into_iter().next()
}

fn library(process: &Process) -> Library {
    let is_preloaded = process.maps().is_ok_and(|maps| {
        maps.iter().any(|map| match &map.pathname {
            MMapPath::Path(path) => path.file_name().is_some_and(|name| name == preload::LIBRARY),
            _ => false,
        })
    });
    let has_registry = u32::try_from(process.pid()).ok().and_then(observe::Process::of).is_some();
    if !is_preloaded && !has_registry {
        return Library::None;
    }
    let is_off = process.environ().is_ok_and(|variables| {
        variables.get(std::ffi::OsStr::new("SMCD_PROMOTION")).is_some_and(|value| value == "off")
    });
    if is_off { Library::Off } else { Library::Active }
}
