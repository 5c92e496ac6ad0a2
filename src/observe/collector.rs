//! Registries that their processes hand over when they make them, so that they outlast them.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    sync::{Mutex, PoisonError},
};

use rustix::{
    io::Errno,
    net::{SocketAddrUnix, bind, connect, listen},
    process::geteuid,
};

use super::process::Process;
use crate::unix::{
    closer,
    packet::{self, PacketSocket, Received},
    sockopt::peer_uid,
};

/// Environment variable with the abstract name of the socket to hand registries to.
pub(super) const VARIABLE: &str = "SMCD_COLLECTOR";

/// What the packet says; the registry comes with it.
const GREETING: &[u8] = b"SMCDREG1";

/// Processes that may come at once.
const BACKLOG: i32 = 4096;

/// Hands our registry over. It is an offer: who does not take it gets nothing.
/// True if it was sent.
pub(super) fn push(name: &OsStr, registry: impl AsFd) -> bool {
    let pushed = || -> Result<(), Errno> {
        let socket = PacketSocket::new()?;
        connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        let copy = rustix::io::fcntl_dupfd_cloexec(registry, 0)?;
        packet::send(&socket, &[GREETING], &[copy])
    };
    pushed().inspect_err(|error| tracing::debug!(%error, "nobody takes the registry")).is_ok()
}

/// Takes the registries of processes that are started with its name in the environment variable `SMCD_COLLECTOR`. What
/// they count can be read after they have ended, however they did.
#[derive(Debug)]
pub struct Collector {
    listener: PacketSocket,
    name: String,
    /// Those that have come and not yet said anything.
    silent: Mutex<Vec<PacketSocket>>,
}

impl Collector {
    /// The environment variable for the programs.
    pub const VARIABLE: &'static str = VARIABLE;

    /// A collector with a name that nobody can guess.
    ///
    /// # Errors
    /// If the system has no random numbers or descriptors left.
    pub fn new() -> io::Result<Self> {
        let name = format!("smcd/collector/{:016x}", getrandom::u64()?);
        let listener = PacketSocket::new()?;
        bind(&listener, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        listen(&listener, BACKLOG)?;
        Ok(Self { listener, name, silent: Mutex::default() })
    }

    /// What the variable is to be set to.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The processes that have come since the last time. Does not wait.
    pub fn take_in(&self) -> Vec<Process> {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(socket) = self.listener.accept() {
            if peer_uid(&socket).is_ok_and(|uid| uid == geteuid().as_raw()) {
                silent.push(socket);
            }
        }
        let mut found = Vec::new();
        silent.retain(|socket| {
            let mut greeting = [0; GREETING.len() + 1];
            match packet::receive(socket, &mut greeting) {
                Received::Empty => return true,
                Received::Closed => {}
                Received::Packet(len, fds) => {
                    if greeting.get(..len) == Some(GREETING) {
                        found.extend(taken(fds.take()));
                    }
                }
            }
            false
        });
        found
    }
}

fn taken(fds: Vec<OwnedFd>) -> Option<Process> {
    let [fd] = <[OwnedFd; 1]>::try_from(fds).map_err(closer::discard).ok()?;
    Process::of_file(File::from(fd))
        .inspect_err(|error| tracing::debug!(%error, "what was handed over is no registry"))
        .ok()
}
