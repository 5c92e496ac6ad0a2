//! A connection whose calls wait, in the thread that makes them.

use std::{
    io::{self, IoSlice, IoSliceMut},
    sync::Arc,
};

use bytes::BufMut;
use rustix::event::{PollFd, PollFlags};

use super::{
    patience::Patience,
    poll,
    ring::{Attempt, Look, Ring, Way},
    turn::{self, Turn},
};
use crate::{
    dibs::Cause,
    smc::{
        awake::finished,
        connection::Progress,
        hybrid::{self, Hybrid, Ring as _, Tcp},
        scatter::scatter,
    },
};

/// A connection, and whose turn it is to wait for it.
#[derive(Debug)]
pub(crate) struct Waits<T: Tcp> {
    /// First, so that the peer finds the rings closed when it sees the end of the TCP connection.
    pub(crate) hybrid: Hybrid<Ring, T>,
    pub(crate) tcp: Arc<T>,
    reading: Turn,
    writing: Turn,
}

/// A connection in which nothing is under way, and nobody's turn changes.
#[derive(Debug)]
#[must_use]
pub(crate) struct Held<'a> {
    turns: [turn::Held<'a>; 2],
    _hybrid: hybrid::Held<'a>,
}

impl<T: Tcp> Waits<T> {
    pub(crate) fn new(hybrid: Hybrid<Ring, T>, tcp: Arc<T>) -> Self {
        Self { hybrid, tcp, reading: Turn::default(), writing: Turn::default() }
    }

    /// Keeps the connection as it is, for a process that is about to fork.
    pub(crate) fn hold(&self) -> Held<'_> {
        Held { turns: [self.reading.hold(), self.writing.hold()], _hybrid: self.hybrid.hold() }
    }

    /// In the child of a fork, while it is held there.
    pub(crate) fn in_child(&self, held: Held<'_>) {
        self.hybrid.forget_calls();
        held.turns.into_iter().for_each(turn::Held::free);
    }

    pub(crate) fn read(
        &self,
        dst: &mut impl BufMut,
        patience: impl FnOnce() -> Patience,
    ) -> io::Result<usize> {
        if !dst.has_remaining_mut() {
            return Ok(0);
        }
        self.wait_for_data(patience, &mut |look| match look {
            // What an error means is for the hybrid to say; the ring will say it again.
            Look::Ring(connection) => connection.try_read(dst).or_else(|_| self.hybrid.try_read(dst)),
            Look::All => self.hybrid.try_read(dst),
        })
    }

    pub(crate) fn peek(
        &self,
        dst: &mut impl BufMut,
        patience: impl FnOnce() -> Patience,
    ) -> io::Result<usize> {
        if !dst.has_remaining_mut() {
            return Ok(0);
        }
        self.wait_for_data(patience, &mut |look| match look {
            // What is looked at may go on by TCP.
            Look::Ring(connection) if !connection.is_last() => {
                connection.try_peek(dst).or_else(|_| self.hybrid.try_peek(dst))
            }
            _ => self.hybrid.try_peek(dst),
        })
    }

    pub(crate) fn read_vectored(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        patience: impl FnOnce() -> Patience,
    ) -> io::Result<usize> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0);
        }
        self.wait_for_data(patience, &mut |look| match look {
            Look::Ring(connection) => scatter(bufs, &mut |dst| Ok(connection.try_read(dst)?), drop)
                .or_else(|_| self.hybrid.try_read_vectored(bufs)),
            Look::All => self.hybrid.try_read_vectored(bufs),
        })
    }

    fn wait_for_data(
        &self,
        patience: impl FnOnce() -> Patience,
        attempt: &mut Attempt<'_>,
    ) -> io::Result<usize> {
        if let Some(ring) = self.hybrid.ring().filter(|_| self.hybrid.reads_ring())
            && let Some(result) = finished(attempt(Look::Ring(ring.connection())))
        {
            return result;
        }
        let patience = patience();
        // Also for an attempt, while the bytes come by TCP: it may tell the peer that the ring is read, and then nobody
        // must be asleep who looks at the TCP connection alone.
        let _turn = self.reading.take(patience)?;
        loop {
            // Armed, if the ring may bring something: the peer switches only after an attempt of ours, so that who
            // sleeps on the TCP connection alone is not left there.
            if let Some(ring) = self.hybrid.ring().filter(|_| self.hybrid.watches_ring()) {
                let way = || self.way_in();
                if let Some(result) = ring.wait(self.tcp.socket(), Cause::Data, &way, patience, attempt) {
                    return result;
                }
            }
            if let Some(result) = finished(attempt(Look::All)) {
                return result;
            }
            if self.hybrid.begin_read() {
                let slept = self.wait_for_tcp(PollFlags::IN | PollFlags::RDHUP, patience);
                self.hybrid.end_read(0);
                slept?;
            }
        }
    }

    pub(crate) fn write(
        &self,
        bufs: &[IoSlice<'_>],
        patience: impl FnOnce() -> Patience,
    ) -> io::Result<usize> {
        self.wait_for_space(patience, &mut || self.hybrid.try_write(bufs))
    }

    /// Waits until something can be written, or an attempt would fail.
    pub(crate) fn wait_for_room(&self, patience: impl FnOnce() -> Patience) -> io::Result<()> {
        let mut attempt = || {
            let is_there = self.hybrid.is_writable();
            Ok(if is_there { Progress::Done(0) } else { Progress::Blocked })
        };
        self.wait_for_space(patience, &mut attempt).map(drop)
    }

    fn wait_for_space(
        &self,
        patience: impl FnOnce() -> Patience,
        attempt: &mut dyn FnMut() -> io::Result<Progress>,
    ) -> io::Result<usize> {
        if let Some(result) = finished(attempt()) {
            return result;
        }
        let patience = patience();
        loop {
            if let Some(ring) = self.hybrid.ring().filter(|_| self.hybrid.is_writing_ring()) {
                let _turn = self.writing.take(patience)?;
                let way = || self.way_out();
                let attempt = &mut |_: Look<'_>| attempt();
                if let Some(result) = ring.wait(self.tcp.socket(), Cause::Space, &way, patience, attempt) {
                    return result;
                }
            }
            self.wait_for_tcp(PollFlags::OUT, patience)?;
            if let Some(result) = finished(attempt()) {
                return result;
            }
        }
    }

    fn way_in(&self) -> Way {
        match (self.hybrid.reads_ring(), self.hybrid.watches_ring()) {
            (true, _) => Way::Ring,
            (false, true) => Way::Either,
            (false, false) => Way::Tcp,
        }
    }

    fn way_out(&self) -> Way {
        match (self.hybrid.writes_ring(), self.hybrid.is_writing_ring()) {
            (true, _) => Way::Ring,
            (false, true) => Way::Either,
            (false, false) => Way::Tcp,
        }
    }

    fn wait_for_tcp(&self, events: PollFlags, patience: Patience) -> io::Result<()> {
        poll::sleep(&mut [PollFd::from_borrowed_fd(self.tcp.socket(), events)], patience.left()?)
    }
}
