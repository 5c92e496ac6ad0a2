//! The side channel: CLC messages, and the descriptors that go with them.
//!
//! Each packet is a header of 16 bytes, in the byte order of the host, and one CLC message:
//!
//! ```text
//!  0  "SMP1"
//!  4  which end of the TCP connection the sender has: 0 for that of the lower address, 1 for the other
//!  8  cookie of the sender's end of the TCP connection
//! 16  CLC message
//! ```

use std::{io, os::fd::OwnedFd};

use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    clc::wire::Message,
    unix::{
        Handed, closer,
        packet::{self, PacketSocket, Received},
    },
};

/// First word of each packet; changes with the format.
const MAGIC: [u8; 4] = *b"SMP1";

/// Longer than any CLC message with its header.
const MAX_PACKET: usize = 8192;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    end: u32,
    cookie: u64,
}

/// A connection between the two processes, used for one handshake.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: PacketSocket,
    own_end: u32,
    /// Of our end of the TCP connection.
    own_cookie: u64,
    /// Of the peer's end, as the kernel says; `None` if that is in another network namespace.
    peer_cookie: Option<u64>,
}

/// What came by the side channel.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) message: Message,
    pub(crate) fds: Handed,
}

/// What a look at the side channel found.
#[derive(Debug)]
pub(crate) enum Look {
    /// A message.
    Packet(Box<Packet>),
    /// Nothing at present.
    Empty,
    /// The other process has closed it or died.
    Closed,
    /// Something that is no packet for this connection.
    Garbage,
}

impl Channel {
    pub(super) fn new(socket: PacketSocket, own_end: u32, own_cookie: u64, peer_cookie: Option<u64>) -> Self {
        Self { socket, own_end, own_cookie, peer_cookie }
    }

    /// Sends a message. The first few always fit into the socket.
    ///
    /// # Errors
    /// The system's: the other process has gone, or too many descriptors are under way.
    pub(crate) fn send(&self, message: impl Into<Message>, fds: &[OwnedFd]) -> io::Result<()> {
        let header = Header { magic: MAGIC, end: self.own_end, cookie: self.own_cookie };
        let mut bytes = Vec::new();
        message.into().emit(&mut bytes);
        loop {
            match packet::send(&self.socket, &[header.as_bytes(), &bytes], fds) {
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Takes what has come.
    pub(crate) fn look(&self) -> Look {
        if closer::is_held_up() {
            return Look::Empty;
        }
        let mut bytes = [0; MAX_PACKET];
        let (len, fds) = match packet::receive(&self.socket, &mut bytes) {
            Received::Packet(len, fds) => (len, fds),
            Received::Empty => return Look::Empty,
            Received::Closed => return Look::Closed,
        };
        match self.decode(bytes.get(..len).unwrap_or_default()) {
            Some(message) => Look::Packet(Box::new(Packet { message, fds })),
            None => Look::Garbage,
        }
    }

    fn decode(&self, bytes: &[u8]) -> Option<Message> {
        let (header, message) = Header::read_from_prefix(bytes).ok()?;
        let is_for_us = header.magic == MAGIC
            // Where other network namespaces use the same addresses, somebody else may have the same end as we.
            && header.end == 1 - self.own_end
            && self.peer_cookie.is_none_or(|cookie| cookie == header.cookie);
        if is_for_us { Message::parse(message).ok() } else { None }
    }
}
