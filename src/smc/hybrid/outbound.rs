//! The direction in which a hybrid writes.

use std::{
    io::{self, IoSlice},
    sync::atomic::Ordering,
};

use super::{Hybrid, PREAMBLE, Ring, Tcp, lock};
use crate::{
    fault::fault,
    observe::Direction,
    smc::{
        ConnectionError,
        connection::{Connection, Progress},
        words::{join, split, truth},
    },
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outbound {
    on_ring: bool,
    /// Bytes that were given to TCP.
    given: u64,
    /// Never to be switched.
    stays: bool,
}

impl Outbound {
    pub(super) fn new(given: u64) -> Self {
        Self { on_ring: false, given, stays: false }
    }

    pub(super) fn is_on_ring(&self) -> bool {
        self.on_ring
    }

    pub(super) fn recount(&mut self, given: u64) {
        self.given = given;
    }

    pub(super) fn keep_on_tcp(&mut self) {
        self.stays = true;
    }

    /// Nothing goes by TCP.
    pub(super) fn begin_on_ring(&mut self) {
        self.on_ring = true;
    }

    /// TCP is all that there is to write to from now on.
    pub(super) fn go_back(&mut self) {
        self.on_ring = false;
        self.stays = true;
    }

    /// Bytes that were given to TCP by other means.
    pub(super) fn count(&mut self, bytes: u32) {
        self.given += u64::from(bytes);
    }

    /// All of it, for a snapshot.
    pub(super) fn to_words(self) -> [u64; 2] {
        [join(u32::from(self.on_ring), u32::from(self.stays)), self.given]
    }

    /// `None` if no connection can be so.
    pub(super) fn from_words([flags, given]: [u64; 2]) -> Option<Self> {
        let (on_ring, stays) = split(flags);
        let truth = |number| truth(u8::try_from(number).ok()?);
        Some(Self { on_ring: truth(on_ring)?, given, stays: truth(stays)? })
    }
}

impl<R: Ring, T: Tcp> Hybrid<R, T> {
    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// As for TCP.
    pub(crate) fn try_write(&self, bufs: &[IoSlice<'_>]) -> io::Result<Progress> {
        let _turn = self.turn()?;
        loop {
            if self.is_writing_ring() {
                match self.write_ring(bufs)? {
                    Some(progress) => return Ok(progress),
                    None => self.write_back()?,
                }
            }
            let mut outbound = lock(&self.outbound);
            if outbound.on_ring || self.switch(&mut outbound, bufs) {
                continue;
            }
            match self.tcp.send(bufs) {
                Ok(n) => {
                    outbound.given += n as u64;
                    if n > 0 {
                        self.note(Direction::Out, n);
                    }
                    drop(outbound);
                    if n > 0 {
                        self.step();
                    }
                    return Ok(Progress::Done(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    drop(outbound);
                    if !self.step() {
                        return Ok(Progress::Blocked);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// `None` if the peer wants the bytes by TCP, or has got them so already.
    fn write_ring(&self, bufs: &[IoSlice<'_>]) -> io::Result<Option<Progress>> {
        let Some(ring) = self.ring.get() else { return Ok(Some(Progress::Blocked)) };
        let connection = ring.connection();
        if ring.has_peer_left() && !connection.has_peer_ended() && !connection.is_peer_leaving() {
            // Without a word; the kernel at its end of the TCP connection would say so to what is written now.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        or_back(connection.try_write(bufs))
    }

    /// Switches to the ring if the peer reads it and there is something to write. Once said, there is no way back.
    fn switch(&self, outbound: &mut Outbound, bufs: &[IoSlice<'_>]) -> bool {
        let Some(connection) = self.ring.get().map(R::connection) else { return false };
        let is_wanted = !outbound.stays
            && self.writes_in_flight.load(Ordering::Relaxed) == 0
            && !self.is_shared()
            && connection.is_peer_reading()
            && bufs.iter().any(|buf| !buf.is_empty());
        if !is_wanted || !self.is_all_counted(outbound) {
            return false;
        }
        fault!("switch-wanted");
        if !say_offset(connection, outbound.given) {
            return false;
        }
        fault!("switch-said");
        connection.meter().discount(Direction::Out, PREAMBLE);
        outbound.on_ring = true;
        self.writes_ring.store(true, Ordering::Release);
        // Nothing will follow by TCP that what it holds back could wait for.
        self.tcp.push();
        tracing::debug!(offset = outbound.given, "writing has moved to shared memory");
        true
    }

    /// Makes sure that the kernel has been given as many bytes as we think.
    fn is_all_counted(&self, outbound: &mut Outbound) -> bool {
        match self.tcp.given() {
            Ok(given) if given == outbound.given => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            other => {
                tracing::warn!(kernel = ?other, ours = outbound.given, "the TCP connection is written to by others");
                outbound.stays = true;
                false
            }
        }
    }

    /// Sends an urgent byte, as `MSG_OOB` does on TCP. Before the switch that means that there will be none: an urgent
    /// byte has no certain place among the others.
    ///
    /// # Errors
    /// As for TCP.
    pub(crate) fn try_write_urgent(
        &self,
        byte: u8,
        by_tcp: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Progress> {
        let _turn = self.turn()?;
        if let Some(ring) = self.ring.get().filter(|_| self.is_writing_ring()) {
            match or_back(ring.connection().try_write_urgent(byte))? {
                Some(progress) => return Ok(progress),
                None => self.write_back()?,
            }
        }
        let mut outbound = lock(&self.outbound);
        if outbound.on_ring {
            // Another has switched just now; whoever calls again finds that.
            return Ok(Progress::Blocked);
        }
        outbound.stays = true;
        by_tcp().map(|()| Progress::Done(1))
    }

    /// The application is about to write to the TCP socket itself. As long as it does, the direction is not switched.
    /// False if it has been: then nobody must do so.
    ///
    /// To be followed by [`Hybrid::end_write`].
    pub(crate) fn begin_write(&self) -> bool {
        if self.is_writing_ring() {
            return false;
        }
        let outbound = lock(&self.outbound);
        if !outbound.on_ring {
            self.writes_in_flight.fetch_add(1, Ordering::Relaxed);
        }
        !outbound.on_ring
    }

    /// The application has written so many bytes to the TCP socket itself.
    pub(crate) fn end_write(&self, bytes: usize) {
        let mut outbound = lock(&self.outbound);
        self.writes_in_flight.fetch_sub(1, Ordering::Relaxed);
        outbound.given += bytes as u64;
        if bytes > 0 {
            // Under the lock: others may be at it too.
            self.note(Direction::Out, bytes);
        }
    }

    /// True if something can be written, or an attempt would fail.
    pub(crate) fn is_writable(&self) -> bool {
        let Ok(_turn) = self.turn() else { return true };
        // So that who waits then waits for TCP.
        if self.follow_in_turn().is_err() {
            return true;
        }
        match self.ring.get().map(R::connection) {
            Some(connection) if self.is_writing_ring() => connection.is_writable(),
            _ => self.tcp.is_writable(),
        }
    }

    /// For how many bytes there is room in the ring; `None` if writing goes by TCP.
    pub(crate) fn room(&self) -> Option<usize> {
        let _turn = self.turn().ok()?;
        self.ring.get().filter(|_| self.is_writing_ring()).map(|ring| ring.connection().room())
    }

    /// The application will write nothing more. What it wrote before reaches the peer. Shutting down the TCP connection
    /// is left to the caller.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        let _turn = self.turn()?;
        // Before the end, after which there is no way to do it.
        self.follow_in_turn()?;
        let mut outbound = lock(&self.outbound);
        outbound.stays = true;
        match self.ring.get() {
            Some(ring) if outbound.on_ring => Ok(ring.connection().shutdown_write()?),
            _ => Ok(()),
        }
    }
}

/// `None` if the bytes are to go by TCP again.
fn or_back(written: Result<Progress, ConnectionError>) -> io::Result<Option<Progress>> {
    match written {
        Err(ConnectionError::BackOnTcp) => Ok(None),
        other => Ok(Some(other?)),
    }
}

/// Puts the offset of the switch into the ring, which is empty.
fn say_offset(connection: &Connection, offset: u64) -> bool {
    let preamble = offset.to_ne_bytes();
    matches!(connection.try_write(&[IoSlice::new(&preamble)]), Ok(Progress::Done(PREAMBLE)))
}
