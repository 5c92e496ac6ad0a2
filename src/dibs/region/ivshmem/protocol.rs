//! What an ivshmem server says to a client: numbers of 8 bytes, some with a descriptor.
//!
//! ```text
//! 0                    the version
//! id                   the client's own
//! -1      + memory
//! peer    + bell       for each other client and vector
//! id      + bell       for each vector of its own
//! peer    + bell       somebody came
//! peer                 somebody went
//! ```
//!
//! The client says nothing.

use crate::dibs::region::layout::MAX_SLOTS;

/// The version of the protocol.
pub(super) const VERSION: i64 = 0;

/// What comes with the memory.
pub(super) const MEMORY: i64 = -1;

/// Bytes of a message.
pub(super) const MESSAGE: usize = 8;

/// Most vectors of a client.
pub(super) const MAX_VECTORS: usize = 16;

/// What a server said that no server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// Another protocol, or another version of it.
    #[error("the server begins with {0}, not with version 0 of the ivshmem protocol")]
    Version(i64),
    /// A number that no client of a region can have.
    #[error("{0} is not the number of a client: there are at most {MAX_SLOTS}")]
    Id(i64),
    /// Something else in the place of the memory.
    #[error("{0} came in the place of the memory")]
    NoMemory(i64),
    /// A message that needs a descriptor has none.
    #[error("no descriptor came with {0}")]
    NoDescriptor(i64),
    /// A descriptor where none belongs, or more than one.
    #[error("too many descriptors came with a message")]
    Descriptors,
    /// More doorbells of a client than it can have.
    #[error("client {0} has more than {MAX_VECTORS} doorbells")]
    Vectors(usize),
    /// This very client is said to be gone.
    #[error("the server took the connection for closed")]
    Dismissed,
}

/// What a message means. `F` stands for descriptors.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News<F> {
    /// Nothing that has to be acted upon.
    Nothing,
    /// The memory of the region.
    Memory(F),
    /// The next doorbell of the client itself; the first is vector 0.
    OwnBell { vector: usize, bell: F },
    /// The next doorbell of another client.
    Bell { peer: usize, vector: usize, bell: F },
    /// Another client has gone.
    Left(usize),
}

/// A client's view of what it is told.
#[derive(Debug)]
pub(super) struct Listener {
    state: State,
    /// How many doorbells of each client were announced.
    vectors: [usize; MAX_SLOTS],
}

#[derive(Debug, Clone, Copy)]
enum State {
    ExpectVersion,
    ExpectId,
    ExpectMemory { id: usize },
    Introduced { id: usize },
}

impl Listener {
    pub(super) fn new() -> Self {
        Self { state: State::ExpectVersion, vectors: [0; MAX_SLOTS] }
    }

    /// The own number, and whether everything is there that a client needs: memory and a doorbell of its own.
    pub(super) fn introduced(&self) -> Option<usize> {
        match self.state {
            State::Introduced { id } if self.vectors[id] > 0 => Some(id),
            _ => None,
        }
    }

    /// Takes in the next message.
    pub(super) fn hear<F>(&mut self, value: i64, fd: Option<F>) -> Result<News<F>, ProtocolError> {
        match self.state {
            State::ExpectVersion => {
                bare(fd)?;
                if value != VERSION {
                    return Err(ProtocolError::Version(value));
                }
                self.state = State::ExpectId;
                Ok(News::Nothing)
            }
            State::ExpectId => {
                bare(fd)?;
                self.state = State::ExpectMemory { id: client(value)? };
                Ok(News::Nothing)
            }
            State::ExpectMemory { id } => {
                if value != MEMORY {
                    return Err(ProtocolError::NoMemory(value));
                }
                self.state = State::Introduced { id };
                fd.map(News::Memory).ok_or(ProtocolError::NoDescriptor(value))
            }
            State::Introduced { id } => match fd {
                Some(bell) => self.bell(id, client(value)?, bell),
                None => self.left(id, client(value)?),
            },
        }
    }

    fn bell<F>(&mut self, own: usize, peer: usize, bell: F) -> Result<News<F>, ProtocolError> {
        let vector = self.vectors[peer];
        if vector == MAX_VECTORS {
            return Err(ProtocolError::Vectors(peer));
        }
        self.vectors[peer] += 1;
        Ok(if peer == own { News::OwnBell { vector, bell } } else { News::Bell { peer, vector, bell } })
    }

    fn left<F>(&mut self, own: usize, peer: usize) -> Result<News<F>, ProtocolError> {
        if peer == own {
            return Err(ProtocolError::Dismissed);
        }
        self.vectors[peer] = 0;
        Ok(News::Left(peer))
    }
}

fn client(value: i64) -> Result<usize, ProtocolError> {
    usize::try_from(value).ok().filter(|id| *id < MAX_SLOTS).ok_or(ProtocolError::Id(value))
}

fn bare<F>(fd: Option<F>) -> Result<(), ProtocolError> {
    if fd.is_some() { Err(ProtocolError::Descriptors) } else { Ok(()) }
}

/// Makes messages of what a stream brings.
#[derive(Debug)]
pub(super) struct Deframer<F> {
    bytes: [u8; MESSAGE],
    len: usize,
    fd: Option<F>,
}

impl<F> Deframer<F> {
    pub(super) fn new() -> Self {
        Self { bytes: [0; MESSAGE], len: 0, fd: None }
    }

    /// Room for the rest of the message under way. To be filled from its start, and then told of by [`Deframer::filled`].
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.len..).unwrap_or_default()
    }

    /// So many bytes have come, with these descriptors. Gives the message if it is whole.
    ///
    /// # Errors
    /// [`ProtocolError::Descriptors`] if the message has more than one.
    pub(super) fn filled(
        &mut self,
        bytes: usize,
        fds: impl IntoIterator<Item = F>,
    ) -> Result<Option<(i64, Option<F>)>, ProtocolError> {
        for fd in fds {
            if self.fd.replace(fd).is_some() {
                return Err(ProtocolError::Descriptors);
            }
        }
        self.len = self.len.saturating_add(bytes).min(MESSAGE);
        if self.len < MESSAGE {
            return Ok(None);
        }
        self.len = 0;
        Ok(Some((i64::from_le_bytes(self.bytes), self.fd.take())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn introduced() -> Listener {
        let mut listener = Listener::new();
        assert_eq!(listener.hear(0, None::<u8>), Ok(News::Nothing));
        assert_eq!(listener.hear(3, None::<u8>), Ok(News::Nothing));
        assert_eq!(listener.hear(-1, Some(7)), Ok(News::Memory(7)));
        listener
    }

    #[test]
    fn a_client_is_introduced_with_its_own_bell() {
        let mut listener = introduced();
        assert_eq!(listener.hear(0, Some(8)), Ok(News::Bell { peer: 0, vector: 0, bell: 8 }));
        assert_eq!(listener.introduced(), None);
        assert_eq!(listener.hear(3, Some(9)), Ok(News::OwnBell { vector: 0, bell: 9 }));
        assert_eq!(listener.introduced(), Some(3));
        assert_eq!(listener.hear(3, Some(10)), Ok(News::OwnBell { vector: 1, bell: 10 }));
    }

    #[test]
    fn a_client_that_comes_again_begins_with_vector_0() {
        let mut listener = introduced();
        for bell in [1, 2] {
            assert_eq!(listener.hear(5, Some(bell)), Ok(News::Bell { peer: 5, vector: 0, bell }));
            assert_eq!(listener.hear(5, Some(0)), Ok(News::Bell { peer: 5, vector: 1, bell: 0 }));
            assert_eq!(listener.hear(5, None::<u8>), Ok(News::Left(5)));
        }
    }

    #[test]
    fn servers_that_say_something_else_are_found_out() {
        for (value, fd, error) in [
            (1, None, ProtocolError::Version(1)),
            (0, Some(1), ProtocolError::Descriptors),
            (
                i64::from_le_bytes(*b"HTTP/1.1"),
                None,
                ProtocolError::Version(i64::from_le_bytes(*b"HTTP/1.1")),
            ),
        ] {
            assert_eq!(Listener::new().hear(value, fd), Err(error));
        }
        for id in [-1, 64, i64::MIN, i64::MAX] {
            let mut listener = Listener::new();
            listener.hear(0, None::<u8>).unwrap();
            assert_eq!(listener.hear(id, None::<u8>), Err(ProtocolError::Id(id)));
            assert_eq!(introduced().hear(id, Some(1)), Err(ProtocolError::Id(id)));
        }
        let mut listener = Listener::new();
        listener.hear(0, None::<u8>).unwrap();
        listener.hear(1, None::<u8>).unwrap();
        assert_eq!(listener.hear(1, Some(1)), Err(ProtocolError::NoMemory(1)));
        assert_eq!(listener.hear(-1, None::<u8>), Err(ProtocolError::NoDescriptor(-1)));
        assert_eq!(introduced().hear(3, None::<u8>), Err(ProtocolError::Dismissed));
    }

    #[test]
    fn bells_are_counted() {
        let mut listener = introduced();
        for vector in 0..MAX_VECTORS {
            assert_eq!(listener.hear(1, Some(0)), Ok(News::Bell { peer: 1, vector, bell: 0 }));
        }
        assert_eq!(listener.hear(1, Some(0)), Err(ProtocolError::Vectors(1)));
    }

    proptest! {
        /// Whatever comes is taken or refused, and what is taken has a place.
        #[test]
        fn any_messages_are_heard(messages in prop::collection::vec(
            (prop_oneof![any::<i64>(), -2i64..70], any::<bool>()), 0..200,
        )) {
            let mut listener = Listener::new();
            // Gets past the beginning often enough.
            let start = [(0, false), (1, false), (-1, true)];
            for (value, has_fd) in start.into_iter().chain(messages) {
                match listener.hear(value, has_fd.then_some(())) {
                    Ok(News::Bell { peer, vector, .. }) => prop_assert!(peer < MAX_SLOTS && vector < MAX_VECTORS),
                    Ok(News::OwnBell { vector, .. }) => prop_assert!(vector < MAX_VECTORS),
                    Ok(News::Left(peer)) => prop_assert!(peer < MAX_SLOTS),
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        }

        /// However a stream is cut, the same messages come out of it.
        #[test]
        fn streams_may_be_cut_anywhere(
            messages in prop::collection::vec((any::<i64>(), any::<bool>()), 0..20),
            cuts in prop::collection::vec(1usize..9, 1..40),
        ) {
            let mut deframer = Deframer::new();
            let mut cuts = cuts.iter().copied().cycle();
            let mut out = Vec::new();
            for (value, has_fd) in &messages {
                let bytes = value.to_le_bytes();
                let mut rest = bytes.as_slice();
                // A descriptor comes with the first byte.
                let mut fd = has_fd.then_some(*value);
                while !rest.is_empty() {
                    let room = deframer.room();
                    let n = cuts.next().unwrap().min(rest.len()).min(room.len());
                    room[..n].copy_from_slice(&rest[..n]);
                    out.extend(deframer.filled(n, fd.take()).unwrap());
                    rest = &rest[n..];
                }
            }
            let expected: Vec<_> = messages.iter().map(|(value, has_fd)| (*value, has_fd.then_some(*value))).collect();
            prop_assert_eq!(out, expected);
        }
    }

    #[test]
    fn a_message_has_one_descriptor() {
        let mut deframer = Deframer::new();
        assert_eq!(deframer.filled(4, [1]), Ok(None));
        assert_eq!(deframer.filled(4, [2]), Err(ProtocolError::Descriptors));
    }
}
