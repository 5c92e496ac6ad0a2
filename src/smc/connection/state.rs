//! All that changes in a connection besides the shared memory: what a process that shares it with another has to be told.

#[cfg(test)]
use std::sync::Arc;
use std::sync::{MutexGuard, atomic::Ordering};

#[cfg(test)]
use super::Outlet;
use super::{ByteCounts, Connection, Out, Tx, lock};
use crate::{
    observe::Direction,
    smc::{
        PeerMisbehaved,
        cdc::{Cdc, ProducerFlags, StateFlags},
        close::CloseState,
        receiver::Receiver,
        sender::Sender,
        words::{concat, take},
    },
};

/// The state of a connection, at a moment when nothing is under way in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ConnectionState {
    receiver: Receiver,
    sender: Sender,
    cdc: Cdc,
    close: CloseState,
    peer_state: StateFlags,
    producer: ProducerFlags,
    marks: Marks,
    close_as_abort: Option<bool>,
    fault: Option<PeerMisbehaved>,
    counts: ByteCounts,
}

bitflags::bitflags! {
    /// What is either so or not.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Marks: u8 {
        const TX_ENDED = 1;
        const OUT_ENDED = 2;
        const PEER_GONE = 4;
        const TX_BACK = 8;
        const LEFT = 16;
    }
}

impl ConnectionState {
    /// Words that it takes.
    pub(crate) const WORDS: usize = 14;

    pub(crate) fn to_words(self) -> [u64; Self::WORDS] {
        let [state, sent, received] = self.close.to_bytes();
        let as_abort = self.close_as_abort.map_or(0, |as_abort| 1 + u8::from(as_abort));
        let (fault, of_fault) = self.fault.map_or((0, [0; 2]), PeerMisbehaved::to_words);
        let (peer, producer) = (self.peer_state.bits(), self.producer.bits());
        let bytes = [state, sent, received, peer, producer, self.marks.bits(), as_abort, fault];
        concat(&[
            &self.receiver.to_words(),
            &self.sender.to_words(),
            &self.cdc.to_words(),
            &[u64::from_ne_bytes(bytes)],
            &of_fault,
            &[self.counts.received, self.counts.sent],
        ])
    }

    /// `None` if no connection can be so.
    pub(crate) fn from_words(words: [u64; Self::WORDS]) -> Option<Self> {
        let words = &mut &words[..];
        let receiver = Receiver::from_words(take(words)?)?;
        let sender = Sender::from_words(take(words)?)?;
        let cdc = Cdc::from_words(take(words)?)?;
        let [bytes] = take(words)?;
        let [state, sent, received, peer, producer, marks, as_abort, fault] = bytes.to_ne_bytes();
        let of_fault = take(words)?;
        let [counted_in, counted_out] = take(words)?;
        Some(Self {
            receiver,
            sender,
            cdc,
            close: CloseState::from_bytes([state, sent, received])?,
            peer_state: StateFlags::from_bits(peer)?,
            producer: ProducerFlags::from_bits(producer)?,
            marks: Marks::from_bits(marks)?,
            close_as_abort: match as_abort {
                0 => None,
                1 | 2 => Some(as_abort == 2),
                _ => return None,
            },
            fault: match (fault, of_fault) {
                (0, [0, 0]) => None,
                (kind, words) => Some(PeerMisbehaved::from_words(kind, words)?),
            },
            counts: ByteCounts { received: counted_in, sent: counted_out },
        })
    }
}

/// The locks of a connection.
#[derive(Debug)]
#[must_use]
pub(crate) struct Held<'a> {
    rx: MutexGuard<'a, Receiver>,
    tx: MutexGuard<'a, Tx>,
    out: MutexGuard<'a, Out>,
    _interrupt: Option<MutexGuard<'a, ()>>,
}

impl Connection {
    /// Waits until nothing is under way in the connection, and keeps it so.
    pub(crate) fn hold(&self) -> Held<'_> {
        let (rx, tx, out) = (lock(&self.rx), lock(&self.tx), lock(&self.out));
        Held { rx, tx, out, _interrupt: self.interrupt().hold() }
    }

    /// The state at present.
    pub(crate) fn state(&self) -> ConnectionState {
        let held = self.hold();
        let mut marks = Marks::empty();
        marks.set(Marks::TX_ENDED, held.tx.ended);
        marks.set(Marks::TX_BACK, self.is_back());
        marks.set(Marks::OUT_ENDED, held.out.ended);
        marks.set(Marks::PEER_GONE, self.peer_gone.load(Ordering::Acquire));
        marks.set(Marks::LEFT, self.has_left());
        ConnectionState {
            receiver: *held.rx,
            sender: held.tx.sender,
            cdc: held.out.cdc,
            close: held.out.close,
            peer_state: StateFlags::from_bits_truncate(self.peer_state.load(Ordering::Acquire)),
            producer: ProducerFlags::from_bits_truncate(self.producer_flags.load(Ordering::Acquire)),
            marks,
            close_as_abort: self.close_as_abort.get().copied(),
            fault: self.fault.get().copied(),
            counts: self.byte_counts(),
        }
    }

    /// Goes on from a state that another process has come to on the same memory. False, and nothing done, if that cannot
    /// be a state of this connection.
    pub(crate) fn resume(&self, state: &ConnectionState) -> bool {
        if state.receiver.ring() != self.own_ring || state.sender.ring() != self.peer_ring {
            return false;
        }
        let mut held = self.hold();
        *held.rx = state.receiver;
        *held.tx = Tx { sender: state.sender, ended: state.marks.contains(Marks::TX_ENDED) };
        self.back.store(state.marks.contains(Marks::TX_BACK), Ordering::Release);
        let ended = state.marks.contains(Marks::OUT_ENDED);
        *held.out = Out { cdc: state.cdc, close: state.close, ended };
        self.peer_state.store(state.peer_state.bits(), Ordering::Release);
        self.peer_gone.store(state.marks.contains(Marks::PEER_GONE), Ordering::Release);
        self.left.store(state.marks.contains(Marks::LEFT), Ordering::Release);
        self.producer_flags.store(state.producer.bits(), Ordering::Release);
        // What is once decided stays so: the other process has begun with what this one knew.
        state.fault.map(|fault| self.fault.set(fault));
        state.close_as_abort.map(|as_abort| self.close_as_abort.set(as_abort));
        self.meter.resume(Direction::In, state.counts.received);
        self.meter.resume(Direction::Out, state.counts.sent);
        true
    }

    /// Another connection on the same memory, as a child has one that was forked before anything came of it.
    #[cfg(test)]
    pub(crate) fn again(&self) -> Arc<Self> {
        let outlet = match &self.outlet {
            Outlet::Mapped(dmb) => Outlet::Mapped(dmb.clone()),
            Outlet::Moved { device, token, index, base } => {
                Outlet::Moved { device: device.clone(), token: *token, index: *index, base: *base }
            }
        };
        Arc::new(Self::new(self.dmb.clone(), self.own_ring, outlet, self.peer_ring))
    }

    /// Another process goes on with the connection: this one says nothing more to the peer, not even in the end.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// See [`Connection::abandon`].
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }
}
