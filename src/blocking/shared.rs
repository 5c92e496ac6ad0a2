//! What the clones of a stream share: the connection, and how its calls wait.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::BufMut;
use rustix::{
    event::{PollFd, PollFlags},
    fs::{OFlags, fcntl_getfl},
};

use super::{
    patience::Patience,
    poll,
    ring::{Attempt, Look, Ring, Way},
    turn::Turn,
};
use crate::{
    FallbackReason, SmcConfig,
    dibs::Cause,
    smc::{
        awake::finished,
        hybrid::{Counts, Hybrid, Ring as _},
        scatter::scatter,
    },
};

/// A connection.
#[derive(Debug)]
pub(super) struct Shared {
    /// First, so that the peer finds the rings closed when it sees the end of the TCP connection.
    pub(super) hybrid: Hybrid<Ring, TcpStream>,
    pub(super) tcp: Arc<TcpStream>,
    pub(super) reading: Side,
    pub(super) writing: Side,
    /// A copy of what the socket has: to ask it costs a system call, and waiting in the ring none.
    nonblocking: AtomicBool,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Side {
    turn: Turn,
    timeout: Mutex<Option<Duration>>,
}

impl Side {
    fn new(timeout: io::Result<Option<Duration>>) -> Self {
        Self { turn: Turn::default(), timeout: Mutex::new(timeout.unwrap_or(None)) }
    }

    /// How long a call may wait.
    pub(super) fn timeout(&self) -> MutexGuard<'_, Option<Duration>> {
        self.timeout.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Takes over a connection on which so much was read and written already. It is promoted if the settings say so.
    pub(super) fn new(tcp: TcpStream, config: &Arc<SmcConfig>, counts: io::Result<Counts>) -> Self {
        let is_nonblocking = fcntl_getfl(&tcp).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK));
        let (reading, writing) = (Side::new(tcp.read_timeout()), Side::new(tcp.write_timeout()));
        let tcp = Arc::new(tcp);
        // Without counts the two ends cannot agree on where to switch.
        let is_wanted = config.promotes() && counts.is_ok();
        let counts = counts.unwrap_or_default();
        let hybrid = Hybrid::with_counts(tcp.clone(), config.busy_poll, config.clone(), counts);
        if !is_wanted {
            hybrid.stay(FallbackReason::Disabled);
        }
        Self { hybrid, tcp, reading, writing, nonblocking: AtomicBool::new(is_nonblocking) }
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.tcp.set_nonblocking(nonblocking)?;
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    fn patience(&self, side: &Side) -> Patience {
        if self.nonblocking.load(Ordering::Relaxed) {
            return Patience::Never;
        }
        Patience::of(*side.timeout())
    }

    pub(super) fn read(&self, dst: &mut impl BufMut) -> io::Result<usize> {
        if !dst.has_remaining_mut() {
            return Ok(0);
        }
        self.wait_for_data(&mut |look| match look {
            // What an error means is for the hybrid to say; the ring will say it again.
            Look::Ring(connection) => connection.try_read(dst).or_else(|_| self.hybrid.try_read(dst)),
            Look::All => self.hybrid.try_read(dst),
        })
    }

    pub(super) fn peek(&self, dst: &mut impl BufMut) -> io::Result<usize> {
        if !dst.has_remaining_mut() {
            return Ok(0);
        }
        self.wait_for_data(&mut |look| match look {
            Look::Ring(connection) => connection.try_peek(dst).or_else(|_| self.hybrid.try_peek(dst)),
            Look::All => self.hybrid.try_peek(dst),
        })
    }

    pub(super) fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0);
        }
        self.wait_for_data(&mut |look| match look {
            Look::Ring(connection) => scatter(bufs, &mut |dst| Ok(connection.try_read(dst)?), drop)
                .or_else(|_| self.hybrid.try_read_vectored(bufs)),
            Look::All => self.hybrid.try_read_vectored(bufs),
        })
    }

    fn wait_for_data(&self, attempt: &mut Attempt<'_>) -> io::Result<usize> {
        if let Some(ring) = self.hybrid.ring().filter(|_| self.hybrid.reads_ring())
            && let Some(result) = finished(attempt(Look::Ring(ring.connection())))
        {
            return result;
        }
        let patience = self.patience(&self.reading);
        // Also for an attempt, while the bytes come by TCP: it may tell the peer that the ring is read, and then nobody
        // must be asleep who looks at the TCP connection alone.
        let _turn = self.reading.turn.take(patience)?;
        loop {
            // Armed, if the ring may bring something: the peer switches only after an attempt of ours, so that who
            // sleeps on the TCP connection alone is not left there.
            if let Some(ring) = self.hybrid.ring().filter(|_| self.hybrid.watches_ring()) {
                let way = || self.way_in();
                if let Some(result) = ring.wait(self.tcp.as_fd(), Cause::Data, &way, patience, attempt) {
                    return result;
                }
            }
            if let Some(result) = finished(attempt(Look::All)) {
                return result;
            }
            if !self.hybrid.watches_ring() {
                self.wait_for_tcp(PollFlags::IN | PollFlags::RDHUP, patience)?;
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
        if self.hybrid.writes_ring() { Way::Ring } else { Way::Tcp }
    }

    pub(super) fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let attempt = || self.hybrid.try_write(bufs);
        if let Some(result) = finished(attempt()) {
            return result;
        }
        let patience = self.patience(&self.writing);
        loop {
            if let Some(ring) = self.hybrid.ring().filter(|_| self.hybrid.writes_ring()) {
                let _turn = self.writing.turn.take(patience)?;
                let (way, attempt) = (|| self.way_out(), &mut |_: Look<'_>| attempt());
                if let Some(result) = ring.wait(self.tcp.as_fd(), Cause::Space, &way, patience, attempt) {
                    return result;
                }
            }
            self.wait_for_tcp(PollFlags::OUT, patience)?;
            if let Some(result) = finished(attempt()) {
                return result;
            }
        }
    }

    fn wait_for_tcp(&self, events: PollFlags, patience: Patience) -> io::Result<()> {
        poll::sleep(&mut [PollFd::new(&*self.tcp, events)], patience.left()?)
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Read {
            self.hybrid.shutdown_write()?;
        }
        // Wakes the threads that sleep on it, as ever. Who reads finds the end of the TCP connection when the ring is
        // empty.
        self.tcp.shutdown(how)
    }
}
