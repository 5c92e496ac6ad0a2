//! What a process that shares a connection with another has to know of it: after a `fork`, both have it.
//!
//! The rings lie in memory that both map, and the doorbells are descriptors of both. The rest is a copy in each, and
//! does not learn what the other does. So they take turns, under a lock between them: take over the [`Snapshot`] that
//! the other has left ([`Hybrid::restore`]), do one thing, leave a new one ([`Hybrid::snapshot`]). Then no byte is lost,
//! doubled or moved, whoever reads and writes.
//!
//! A snapshot fits into [`Snapshot::WORDS`] words, which may be atomics in memory that the processes share. Reading them
//! is total: what cannot be a state is refused, so that a spoilt snapshot spoils no more than its connection.
//!
//! The process that lets go of the connection first does so by [`Hybrid::abandon`], the last one as ever: after
//! [`Hybrid::restore`].

use std::{
    io,
    sync::{MutexGuard, atomic::Ordering},
};

use super::{
    Counts, Hybrid, Phase, Ring, Tcp, UnderWay,
    inbound::{Inbound, InboundState},
    lock,
    outbound::Outbound,
};
use crate::{
    smc::{
        connection::{self, ConnectionState},
        words::{concat, join, split, take, truth},
    },
    tcp_fallback::FallbackReason,
};

/// First word of a snapshot; changes with the format. Memory that holds none is zero.
const MAGIC: u64 = u64::from_be_bytes(*b"SMCSNAP1");

/// All that changes in a hybrid, but for a handshake under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Snapshot {
    inbound: InboundState,
    outbound: Outbound,
    /// It stays TCP, or what of it is TCP does.
    stays: bool,
    reason: FallbackReason,
    /// What was counted for the policy.
    bytes: u64,
    messages: u32,
    /// None without rings.
    connection: Option<ConnectionState>,
}

/// Why a snapshot cannot be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// The words are no snapshot.
    #[error("these words are no snapshot of a connection")]
    Garbage,
    /// The snapshot is that of another connection, or one process has rings that the other has not.
    #[error("the snapshot belongs to another connection")]
    Foreign,
}

impl Snapshot {
    /// Words that it takes.
    pub(crate) const WORDS: usize = 9 + ConnectionState::WORDS;

    pub(crate) fn to_words(self) -> [u64; Self::WORDS] {
        let (reason, detail) = self.reason.to_numbers();
        let flags = u32::from(self.stays) | u32::from(self.connection.is_some()) << 8;
        concat(&[
            &[MAGIC],
            &self.inbound.to_words(),
            &self.outbound.to_words(),
            &[join(reason, detail), self.bytes, join(self.messages, flags)],
            &self.connection.map_or([0; ConnectionState::WORDS], ConnectionState::to_words),
        ])
    }

    /// Reads what [`Snapshot::to_words`] has written.
    ///
    /// # Errors
    /// [`SnapshotError::Garbage`] for anything else, as far as can be told.
    pub(crate) fn from_words(words: &[u64; Self::WORDS]) -> Result<Self, SnapshotError> {
        Self::read(&mut &words[..]).ok_or(SnapshotError::Garbage)
    }

    fn read(words: &mut &[u64]) -> Option<Self> {
        let [MAGIC] = take(words)? else { return None };
        let inbound = InboundState::from_words(take(words)?)?;
        let outbound = Outbound::from_words(take(words)?)?;
        let [reason, bytes, rest] = take(words)?;
        let (messages, flags) = split(rest);
        let [stays, has_rings, 0, 0] = flags.to_le_bytes() else { return None };
        let connection = match (truth(has_rings)?, take(words)?) {
            (true, words) => Some(ConnectionState::from_words(words)?),
            (false, words) => words.iter().all(|word| *word == 0).then_some(None)?,
        };
        let needs_rings = inbound.watches_ring() || outbound.is_on_ring();
        (connection.is_some() || !needs_rings).then_some(Self {
            inbound,
            outbound,
            stays: truth(stays)?,
            reason: FallbackReason::from_numbers(split(reason))?,
            bytes,
            messages,
            connection,
        })
    }
}

/// How several processes take turns at one connection.
pub trait Baton: Send + Sync + std::fmt::Debug {
    /// Waits for the turn. `None` if nobody knows any more how the connection stands.
    fn take(&self) -> Option<Left>;

    /// Gives up the turn, and leaves these words to the next.
    fn give(&self, words: &[u64; Snapshot::WORDS]);
}

/// Who had the turn last.
#[derive(Debug)]
pub enum Left {
    /// This process.
    ByUs,
    /// Another, which has left these words.
    ByOther([u64; Snapshot::WORDS]),
}

/// The turn; given up when dropped.
pub(super) struct Turn<'a, R: Ring, T: Tcp> {
    baton: &'a dyn Baton,
    hybrid: &'a Hybrid<R, T>,
}

impl<R: Ring, T: Tcp> Drop for Turn<'_, R, T> {
    fn drop(&mut self) {
        self.baton.give(&self.hybrid.snapshot().to_words());
    }
}

/// All locks of a hybrid. While it lives nothing is under way in the hybrid, and no handshake.
#[derive(Debug)]
#[must_use]
pub(crate) struct Held<'a> {
    _inbound: MutexGuard<'a, Inbound>,
    _outbound: MutexGuard<'a, Outbound>,
    _negotiation: MutexGuard<'a, Option<Box<UnderWay>>>,
    _reason: MutexGuard<'a, FallbackReason>,
    _connection: Option<connection::Held<'a>>,
}

impl<R: Ring, T: Tcp> Hybrid<R, T> {
    /// The state at present, for another process that has the same connection.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let (inbound, outbound) = (lock(&self.inbound), lock(&self.outbound));
        Snapshot {
            inbound: inbound.state(),
            outbound: *outbound,
            stays: self.phase() == Phase::Staying,
            reason: *lock(&self.reason),
            bytes: self.tally.bytes(),
            messages: self.tally.calls(),
            connection: self.ring.get().map(|ring| ring.connection().state()),
        }
    }

    /// Goes on from where another process has left the connection.
    ///
    /// # Errors
    /// [`SnapshotError::Foreign`] if that cannot be; nothing has changed then.
    pub(crate) fn restore(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let (mut inbound, mut outbound) = (lock(&self.inbound), lock(&self.outbound));
        let is_ours = match (self.ring.get(), &snapshot.connection) {
            (Some(ring), Some(state)) => ring.connection().resume(state),
            (None, None) => true,
            _ => false,
        };
        if !is_ours {
            return Err(SnapshotError::Foreign);
        }
        *inbound = Inbound::from_state(snapshot.inbound);
        *outbound = snapshot.outbound;
        self.reads_ring.store(inbound.is_on_ring(), Ordering::Release);
        self.writes_ring.store(outbound.is_on_ring(), Ordering::Release);
        self.tally.resume(snapshot.bytes, snapshot.messages);
        *lock(&self.reason) = snapshot.reason;
        if snapshot.stays {
            self.enter(Phase::Staying);
        }
        Ok(())
    }

    /// Waits until nothing is under way in the connection, and keeps it so: for a process that is about to fork. The
    /// child gets the locks as they are, so it has to drop its copy of what this returns as well.
    ///
    /// A handshake under way is broken off, since no two processes can go on with it; it begins anew later. Only if the
    /// other end has just taken it for finished does the connection stay TCP.
    pub(crate) fn hold(&self) -> Held<'_> {
        if self.phase() == Phase::Negotiating {
            // What has come by now need not be broken off.
            self.negotiate();
        }
        let (inbound, outbound) = (lock(&self.inbound), lock(&self.outbound));
        // Whoever has this one waits for neither of those.
        let mut negotiation = lock(&self.negotiation);
        if negotiation.take().is_some() {
            self.calls.store(0, Ordering::Relaxed);
            self.enter(Phase::Counting);
        }
        Held {
            _inbound: inbound,
            _outbound: outbound,
            _negotiation: negotiation,
            _reason: lock(&self.reason),
            _connection: self.ring.get().map(|ring| ring.connection().hold()),
        }
    }

    /// Whoever does something to the connection has the turn while it does. `None` if nobody else has the connection.
    ///
    /// # Errors
    /// `ConnectionReset` if another process has died while it had the turn.
    pub(super) fn turn(&self) -> io::Result<Option<Turn<'_, R, T>>> {
        if !self.is_shared() || self.ring.get().is_none() {
            return Ok(None);
        }
        let Some(baton) = self.baton.get() else { return Ok(None) };
        let left = baton.take().ok_or(io::ErrorKind::ConnectionReset)?;
        let turn = Turn { baton: &**baton, hybrid: self };
        match left {
            Left::ByOther(words) => {
                let restored = Snapshot::from_words(&words).and_then(|snapshot| self.restore(&snapshot));
                restored.map_err(|error| io::Error::new(io::ErrorKind::ConnectionReset, error))?;
            }
            Left::ByUs => {}
        }
        Ok(Some(turn))
    }

    /// Other processes are about to have the connection; with this they take turns. It is the same at each time.
    pub(crate) fn share(&self, baton: Box<dyn Baton>) {
        let _ = self.baton.set(baton);
        self.set_shared(true);
    }

    /// No other process has the connection any more.
    ///
    /// # Errors
    /// As [`Hybrid::turn`].
    pub(crate) fn unshare(&self) -> io::Result<()> {
        let turn = self.turn()?;
        self.set_shared(false);
        drop(turn);
        self.recount();
        Ok(())
    }

    /// Says whether other processes have the socket too. While they do, the connection takes no step towards shared
    /// memory: one of them may sleep in the kernel on the socket, where nobody could reach it. What has gone there
    /// already stays.
    pub(crate) fn set_shared(&self, shared: bool) {
        self.shared.store(shared, Ordering::Release);
    }

    /// Nobody else has the socket any more. If no byte has gone by rings, counts anew, by the kernel's word: the others may
    /// have read and written. If the kernel cannot say, the connection stays TCP.
    pub(crate) fn recount(&self) {
        let (mut inbound, mut outbound) = (lock(&self.inbound), lock(&self.outbound));
        if inbound.watches_ring() || outbound.is_on_ring() {
            return;
        }
        match self.tcp.counts() {
            Ok(Counts { taken, given }) => {
                inbound.recount(taken);
                outbound.recount(given);
            }
            Err(_) => {
                inbound.keep_on_tcp();
                outbound.keep_on_tcp();
            }
        }
    }

    /// In the child of a fork: calls that were under way in other threads are not under way here.
    pub(crate) fn forget_calls(&self) {
        self.reads_in_flight.store(0, Ordering::Relaxed);
        self.writes_in_flight.store(0, Ordering::Relaxed);
    }

    /// Lets go of the connection, which another process goes on with: when it is dropped, the peer is told nothing, and
    /// nobody gets the buffers.
    pub(crate) fn abandon(&self) {
        self.set_shared(true);
        if let Some(ring) = self.ring.get() {
            ring.connection().abandon();
        }
    }
}
