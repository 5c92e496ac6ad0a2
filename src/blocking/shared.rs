//! What the clones of a stream share: the connection, and how long its calls wait.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{Shutdown, TcpStream},
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

use super::{patience::Patience, poll, waits::Waits};
use crate::{
    FallbackReason, SmcConfig,
    smc::{
        established::Established,
        hybrid::{Counts, Hybrid},
    },
    tcp_fallback::detect::check_late,
};

/// A connection.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) waits: Waits<TcpStream>,
    pub(super) reading: Limit,
    pub(super) writing: Limit,
    /// A copy of what the socket has: to ask it costs a system call, and waiting in the ring none.
    nonblocking: AtomicBool,
    /// The client was silent for so long that it was taken for plain TCP; its first bytes will tell.
    was_silent: AtomicBool,
}

/// How long a call may wait.
#[derive(Debug)]
pub(super) struct Limit(Mutex<Option<Duration>>);

impl Limit {
    fn new(timeout: io::Result<Option<Duration>>) -> Self {
        Self(Mutex::new(timeout.unwrap_or(None)))
    }

    pub(super) fn get(&self) -> MutexGuard<'_, Option<Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Takes over a connection on which so much was read and written already. It is promoted if the settings say so.
    pub(super) fn new(tcp: TcpStream, config: &Arc<SmcConfig>, counts: io::Result<Counts>) -> Self {
        // Without counts the two ends cannot agree on where to switch.
        let is_wanted = config.promotes() && counts.is_ok();
        let shared = Self::undecided(tcp, config, counts.unwrap_or_default());
        if !is_wanted {
            shared.waits.hybrid.stay(FallbackReason::Disabled);
        }
        shared
    }

    /// A connection that stays TCP for this reason.
    pub(super) fn staying(tcp: TcpStream, config: &Arc<SmcConfig>, reason: FallbackReason) -> Self {
        let shared = Self::undecided(tcp, config, Counts::default());
        shared.waits.hybrid.stay(reason);
        shared
    }

    /// Of a client that has not sent anything in time.
    pub(super) fn of_silent(tcp: TcpStream, config: &Arc<SmcConfig>) -> Self {
        let was_silent = AtomicBool::new(true);
        Self { was_silent, ..Self::staying(tcp, config, FallbackReason::PeerNotSmc) }
    }

    /// A connection whose ends have agreed on rings before its first byte.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub(super) fn on_rings(
        tcp: TcpStream,
        config: &Arc<SmcConfig>,
        established: Established,
    ) -> io::Result<Self> {
        let shared = Self::undecided(tcp, config, Counts::default());
        if shared.waits.hybrid.begin_on_rings(established) {
            Ok(shared)
        } else {
            Err(io::ErrorKind::NotConnected.into())
        }
    }

    fn undecided(tcp: TcpStream, config: &Arc<SmcConfig>, counts: Counts) -> Self {
        let is_nonblocking = fcntl_getfl(&tcp).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK));
        let (reading, writing) = (Limit::new(tcp.read_timeout()), Limit::new(tcp.write_timeout()));
        let tcp = Arc::new(tcp);
        let hybrid = Hybrid::with_counts(tcp.clone(), config.busy_poll, config.clone(), counts);
        let waits = Waits::new(hybrid, tcp);
        let (nonblocking, was_silent) = (AtomicBool::new(is_nonblocking), AtomicBool::new(false));
        Self { waits, reading, writing, nonblocking, was_silent }
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.waits.tcp.set_nonblocking(nonblocking)?;
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    fn patience(&self, limit: &Limit) -> Patience {
        if self.nonblocking.load(Ordering::Relaxed) {
            return Patience::Never;
        }
        Patience::of(*limit.get())
    }

    /// Makes sure, before the first byte of a late client is read as data into the room that there is, that it is data.
    #[inline]
    fn check_late(&self, has_room: bool) -> io::Result<()> {
        if !has_room || !self.was_silent.load(Ordering::Relaxed) {
            return Ok(());
        }
        let patience = self.patience(&self.reading);
        while let Err(error) = check_late(&self.waits.tcp) {
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error);
            }
            poll::sleep(&mut [PollFd::new(&self.waits.tcp, PollFlags::IN)], patience.left()?)?;
        }
        self.was_silent.store(false, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn read(&self, dst: &mut impl BufMut) -> io::Result<usize> {
        self.check_late(dst.has_remaining_mut())?;
        self.waits.read(dst, || self.patience(&self.reading))
    }

    pub(super) fn peek(&self, dst: &mut impl BufMut) -> io::Result<usize> {
        self.check_late(dst.has_remaining_mut())?;
        self.waits.peek(dst, || self.patience(&self.reading))
    }

    pub(super) fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.check_late(bufs.iter().any(|buf| !buf.is_empty()))?;
        self.waits.read_vectored(bufs, || self.patience(&self.reading))
    }

    pub(super) fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.waits.write(bufs, || self.patience(&self.writing))
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Read {
            self.waits.hybrid.shutdown_write()?;
        }
        // Wakes the threads that sleep on it, as ever. Who reads finds the end of the TCP connection when the ring is
        // empty.
        self.waits.tcp.shutdown(how)
    }
}
