//! Meeting the process at the other end, and making sure that it is that process.

use std::{
    fs, io,
    net::SocketAddr,
    os::fd::AsFd,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::{
    io::Errno,
    net::{getpeername, getsockname, sockopt::socket_cookie},
    process::{Resource, getrlimit},
};

use super::{
    channel::Channel,
    four_tuple::FourTuple,
    name::{BACKLOG, name_of},
    owner::owner_of,
};
use crate::{
    fault::fault,
    tcp_fallback::FallbackReason,
    unix::{name::Name, packet::PacketSocket, sockopt::peer_uid},
};

/// Names that a process may hold at once: this part of the descriptors that it may have, within limits.
const WAITING_PART: u64 = 16;

/// Strangers that are turned away at one look.
const STRANGERS: usize = 8;

static WAITING: AtomicUsize = AtomicUsize::new(0);

/// The place where the two ends of a TCP connection meet.
#[derive(Debug)]
pub(crate) struct Rendezvous {
    tuple: FourTuple,
    cookie: u64,
    name: Name,
}

/// Who the other process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Proof {
    /// Its user id, which is also that of the other end of the TCP connection.
    pub(crate) uid: u32,
}

/// What came of an attempt to meet.
#[derive(Debug)]
pub(crate) enum Meeting {
    /// The other end was waiting.
    Met(Channel, Proof),
    /// Now we wait.
    Waiting(Waiting),
    /// Neither; to be tried again later.
    NotNow,
    /// It cannot be.
    Impossible(FallbackReason),
}

impl Rendezvous {
    /// Where the other end of `tcp` can be met, if it can.
    ///
    /// # Errors
    /// Why it cannot: it is not on this host.
    pub(crate) fn of(tcp: impl AsFd, runtime_dir: Option<&Path>) -> Result<Self, FallbackReason> {
        let failed = |error: io::Error| FallbackReason::SideChannel(error.kind());
        let tuple = tuple_of(&tcp).map_err(failed)?;
        if tuple.is_to_itself() {
            return Err(FallbackReason::PeerNotLocal);
        }
        if runtime_dir.is_none() && !is_here(tuple).map_err(failed)? {
            return Err(FallbackReason::PeerNotLocal);
        }
        let cookie = socket_cookie(&tcp).map_err(|errno| failed(errno.into()))?;
        Ok(Self { tuple, cookie, name: name_of(&tuple, runtime_dir) })
    }

    /// Connects to the other end if it waits; else waits for it.
    pub(crate) fn meet(&self) -> Meeting {
        let socket = match PacketSocket::new() {
            Ok(socket) => socket,
            Err(errno) => return Meeting::Impossible(FallbackReason::SideChannel(errno.kind())),
        };
        match self.name.connect(&socket) {
            Ok(()) => {
                fault!("promotion-connected");
                match self.prove(socket) {
                    Ok((channel, proof)) => Meeting::Met(channel, proof),
                    Err(reason) => Meeting::Impossible(reason),
                }
            }
            Err(Errno::CONNREFUSED | Errno::NOENT) => self.wait(socket),
            Err(Errno::AGAIN | Errno::INTR) => Meeting::NotNow,
            Err(errno) => Meeting::Impossible(FallbackReason::SideChannel(errno.kind())),
        }
    }

    fn wait(&self, socket: PacketSocket) -> Meeting {
        let Some(place) = Place::take() else { return Meeting::NotNow };
        match self.name.listen(&socket, BACKLOG) {
            Ok(()) => {
                fault!("promotion-listening");
                Meeting::Waiting(Waiting { listener: socket, name: self.name.clone(), _place: place })
            }
            Err(Errno::ADDRINUSE) => {
                // Somebody is about to listen; or has died, and left a file behind.
                self.name.remove_left_over();
                Meeting::NotNow
            }
            Err(errno) => Meeting::Impossible(FallbackReason::SideChannel(errno.kind())),
        }
    }

    /// The next process that has come and is the other end. Others are turned away.
    pub(crate) fn accept(&self, waiting: &Waiting) -> Option<(Channel, Proof)> {
        for _ in 0..STRANGERS {
            let socket = waiting.listener.accept()?;
            match self.prove(socket) {
                Ok(met) => return Some(met),
                Err(reason) => tracing::debug!(%reason, "a stranger at the side channel"),
            }
        }
        None
    }

    /// Makes sure that the process at the other end of `socket` belongs to the user that owns the other end of the TCP
    /// connection. Who may not be asked for, or cannot be told from others, has proven nothing.
    fn prove(&self, socket: PacketSocket) -> Result<(Channel, Proof), FallbackReason> {
        let failed = |error: io::Error| FallbackReason::SideChannel(error.kind());
        let uid = peer_uid(&socket).map_err(failed)?;
        let owner = owner_of(self.tuple.reversed()).map_err(failed)?;
        let proven = match owner {
            Some(owner) => owner.is_open && owner.uid == uid && !is_nameless(uid),
            // In another network namespace, whose sockets cannot be looked up from here: our own user only.
            None => {
                self.name.is_shared()
                    && !self.tuple.is_loopback()
                    && uid == rustix::process::geteuid().as_raw()
                    && !is_nameless(uid)
            }
        };
        if !proven {
            return Err(FallbackReason::PeerUnproven);
        }
        let peer_cookie = owner.map(|owner| owner.cookie);
        Ok((Channel::new(socket, self.tuple.end(), self.cookie, peer_cookie), Proof { uid }))
    }
}

fn tuple_of(tcp: impl AsFd) -> io::Result<FourTuple> {
    let address =
        |address: Result<_, Errno>| -> io::Result<SocketAddr> { Ok(SocketAddr::try_from(address?)?) };
    let local = address(getsockname(&tcp))?;
    let peer = address(getpeername(&tcp).and_then(|peer| peer.ok_or(Errno::NOTCONN)))?;
    Ok(FourTuple::new(local, peer))
}

/// True if both ends are in this network namespace.
fn is_here(tuple: FourTuple) -> io::Result<bool> {
    Ok(tuple.is_loopback() || tuple.local.0 == tuple.peer.0 || owner_of(tuple.reversed())?.is_some())
}

/// True if both ends of a TCP connection are in this network namespace, and not one.
///
/// # Errors
/// If that cannot be found out.
pub(crate) fn is_peer_here(tcp: impl AsFd) -> io::Result<bool> {
    let tuple = tuple_of(tcp)?;
    Ok(!tuple.is_to_itself() && is_here(tuple)?)
}

/// A name under which we wait. Given up on drop.
#[derive(Debug)]
pub(crate) struct Waiting {
    listener: PacketSocket,
    name: Name,
    _place: Place,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // A child that inherited it must not take it from the parent.
        if !self.listener.is_inherited() {
            self.name.remove();
        }
    }
}

/// One of the names that a process may hold at once.
#[derive(Debug)]
struct Place;

impl Place {
    fn take() -> Option<Self> {
        static LIMIT: OnceLock<usize> = OnceLock::new();
        let limit = *LIMIT.get_or_init(|| {
            let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
            usize::try_from(descriptors / WAITING_PART).unwrap_or(usize::MAX).clamp(16, 4096)
        });
        if WAITING.fetch_add(1, Ordering::Relaxed) < limit {
            return Some(Self);
        }
        WAITING.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// True if this user id may stand for several users: those that have no name in our user namespace.
fn is_nameless(uid: u32) -> bool {
    static OVERFLOW: OnceLock<Option<u32>> = OnceLock::new();
    let overflow = OVERFLOW.get_or_init(|| {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let all_are_mapped = map.split_whitespace().eq(["0", "0", "4294967295"]);
        let overflow = || fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?.trim().parse().ok();
        if all_are_mapped { None } else { Some(overflow().unwrap_or(65534)) }
    });
    *overflow == Some(uid)
}
