//! Links between the devices of two processes: unix sequenced-packet sockets, each used in one direction.
//!
//! A device listens under the abstract name of its GID, and under one in a directory if it has one. Who owns a DMB connects to its user's name, says who it is,
//! and announces the DMB. The claim is not checked: an announcement is worth something only together with the
//! token, 64 random bits that owner and user exchange by CLC.

use std::{os::fd::OwnedFd, path::Path};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::offer::Offer;
use crate::{
    dibs::{DeviceError, DmbToken, Gid},
    unix::{
        name::{Name, sweep},
        packet::{self, PacketSocket, Received},
        sockopt::peer_uid,
    },
};

/// First word of every packet; changes with the format.
const MAGIC: u32 = u32::from_be_bytes(*b"DIB1");

/// As many connections as Linux lets wait by default; a burst of new peers comes at once.
const BACKLOG: i32 = 4096;

const HELLO: u32 = 1;
const ANNOUNCE: u32 = 2;

/// What goes over a link, in the byte order of the host: it never leaves it.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Packet {
    magic: u32,
    kind: u32,
    gid: [u8; 16],
    token: u64,
    len: u64,
}

/// A packet that arrived.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Who the sender says it is; always the first packet.
    Hello(Gid),
    /// A DMB for us.
    Announce(DmbToken, Offer),
}

/// What a look at a link found.
#[derive(Debug)]
pub(super) enum Look {
    /// A packet.
    Packet(Incoming),
    /// Something that is no packet of ours, or not a whole one, and the descriptors that came with it.
    Garbage(Vec<OwnedFd>),
    /// Nothing at present.
    Empty,
    /// The other process closed the link or died.
    Closed,
}

/// The name of a device in a directory begins so.
const FILE: &str = "dibs-";

fn abstract_name(gid: Gid) -> Name {
    Name::Abstract(format!("smcd/dibs/{gid}"))
}

fn file_name(gid: Gid, directory: &Path) -> Name {
    Name::File(directory.join(format!("{FILE}{gid}")))
}

/// Listens under the name of `gid`.
///
/// # Errors
/// The system's.
pub(super) fn listen_as(gid: Gid) -> Result<PacketSocket, DeviceError> {
    let socket = PacketSocket::new()?;
    abstract_name(gid).listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Listens under the name of `gid` in a directory, too, and removes what processes left there that have died.
///
/// # Errors
/// The system's.
pub(super) fn listen_in(directory: &Path, gid: Gid) -> Result<(PacketSocket, Name), DeviceError> {
    if let Err(error) = sweep(directory, |name| name.starts_with(FILE.as_bytes())) {
        tracing::warn!(dir = %directory.display(), %error, "the runtime directory cannot be read");
    }
    let (socket, name) = (PacketSocket::new()?, file_name(gid, directory));
    name.listen(&socket, BACKLOG)?;
    Ok((socket, name))
}

/// Takes the next packet off a link that somebody opened to us.
pub(super) fn receive(socket: &PacketSocket) -> Look {
    let mut bytes = [0u8; size_of::<Packet>()];
    let (len, fds) = match packet::receive(socket, &mut bytes) {
        Received::Packet(len, fds) => (len, fds),
        Received::Empty => return Look::Empty,
        Received::Closed => return Look::Closed,
    };
    match decode(bytes.get(..len).unwrap_or(&bytes), fds.take()) {
        Ok(packet) => Look::Packet(packet),
        Err(fds) => Look::Garbage(fds),
    }
}

/// Makes a packet of bytes and descriptors, or gives the descriptors back.
fn decode(bytes: &[u8], fds: Vec<OwnedFd>) -> Result<Incoming, Vec<OwnedFd>> {
    let Ok(packet) = Packet::read_from_bytes(bytes) else { return Err(fds) };
    match (packet.magic, packet.kind, usize::try_from(packet.len)) {
        (MAGIC, HELLO, _) if fds.is_empty() => Ok(Incoming::Hello(Gid::from_bytes(packet.gid))),
        (MAGIC, ANNOUNCE, Ok(len)) => {
            Ok(Incoming::Announce(DmbToken(packet.token), Offer::from_fds(fds, len)?))
        }
        _ => Err(fds),
    }
}

/// A link that we opened, to announce DMBs to one user.
#[derive(Debug)]
pub(super) struct Link {
    socket: PacketSocket,
    /// User id of the process at the other end.
    pub(super) uid: u32,
}

impl Link {
    /// Opens a link from `from` to the device `to`, by its abstract name or that in the directory.
    ///
    /// # Errors
    /// `Unreachable` if it has neither.
    pub(super) fn open(from: Gid, to: Gid, directory: Option<&Path>) -> Result<Self, DeviceError> {
        let socket = PacketSocket::new()?;
        let mut connected = abstract_name(to).connect(&socket);
        if let (Err(Errno::CONNREFUSED), Some(directory)) = (connected, directory) {
            connected = file_name(to, directory).connect(&socket);
        }
        match connected {
            Ok(()) => {}
            Err(Errno::CONNREFUSED | Errno::NOENT) => return Err(DeviceError::Unreachable(to)),
            Err(Errno::AGAIN) => return Err(DeviceError::Busy),
            Err(errno) => return Err(errno.into()),
        }
        let uid = peer_uid(&socket)?;
        let link = Self { socket, uid };
        link.send(HELLO, from, DmbToken(0), None)?;
        Ok(link)
    }

    /// Hands a DMB to the user.
    pub(super) fn announce(&self, token: DmbToken, offer: &Offer) -> Result<(), DeviceError> {
        self.send(ANNOUNCE, Gid::default(), token, Some(offer))
    }

    /// True if the process at the other end has closed the link or died.
    pub(super) fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            // Nobody sends in this direction, so that "readable" too means the end.
            Ok(ready) => ready > 0,
            Err(_) => false,
        }
    }

    fn send(&self, kind: u32, gid: Gid, token: DmbToken, offer: Option<&Offer>) -> Result<(), DeviceError> {
        let len = offer.map_or(0, |offer| offer.len as u64);
        let packet = Packet { magic: MAGIC, kind, gid: gid.to_bytes(), token: token.0, len };
        let none: &[OwnedFd] = &[];
        match packet::send(&self.socket, &[packet.as_bytes()], offer.map_or(none, |offer| &offer.fds)) {
            Ok(()) => Ok(()),
            // The user's queue is full, or too many descriptors are under way to it.
            Err(errno) if packet::is_busy(errno) => Err(DeviceError::Busy),
            Err(errno) => Err(errno.into()),
        }
    }
}
