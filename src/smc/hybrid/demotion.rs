//! Giving a connection back to TCP, when its socket goes where the library cannot follow: to another process as a
//! descriptor, through `exec` to a program that knows nothing of it, to the kernel's own queues.
//!
//! One end does it ([`Hybrid::demote`]); the application at the other need not do anything. Each direction goes back by
//! itself, at a place in the stream that both ends know:
//!
//! - **Writing:** the last word in the ring is a flag (`BACK`); what follows goes by TCP. The reader that finds the ring
//!   empty, and the flag set, goes on with TCP. What TCP brings before that has to wait.
//! - **Reading:** a flag (`LEAVING`) asks the writer to go back, which it does at its next write. It looks at the flag
//!   before each. So once the write that may be under way is over ([`writing`](crate::dibs)), the ring holds all that it
//!   will ever hold. That is handed to the caller: it comes before what TCP brings.
//!
//! Afterwards the connection is TCP for good, at both ends. The rings stay until each end lets go of the connection, and
//! then go back to the link groups as ever.

use std::{
    io,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use super::{Hybrid, Phase, Ring, Tcp, inbound::Inbound, lock};
use crate::{
    fault::fault,
    smc::{
        ConnectionError,
        connection::{Connection, Progress},
    },
    tcp_fallback::FallbackReason,
};

/// A write that is under way at the other end is given so long, and so are bytes that are under way by TCP. Both take
/// microseconds, unless the other process is stopped.
const LIMIT: Duration = Duration::from_secs(1);

/// So often TCP is looked at meanwhile.
const PAUSE: Duration = Duration::from_micros(50);

/// Why a connection cannot be given back to TCP.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoteError {
    /// Nothing has changed but that the peer, once it goes on, may go back by itself. It may be tried again.
    #[error("the peer is in the middle of a write and does not go on")]
    PeerBusy,
    /// The connection is of no more use; the peer sees a reset.
    #[error("what the peer wrote before it went to shared memory does not come")]
    CutOff,
    /// The ring or the system is to blame. If it is the ring, the connection is of no more use.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// Another process that has the connection too has died in the middle of something. It is of no more use.
    #[error("nobody knows any more how the connection stands")]
    Lost(#[from] io::Error),
}

impl<R: Ring, T: Tcp> Hybrid<R, T> {
    /// Gives the connection back to TCP, for good: from now on nothing is read or written but by the socket. Returns what
    /// was written to our ring and not read: it comes before what the socket brings. Mostly that is nothing; at most it
    /// is what the ring holds, and what TCP holds from the time before the ring.
    ///
    /// Waits for a write of the peer's that is under way, but never for its application.
    ///
    /// # Errors
    /// If that cannot be. The variants say what has become of the connection.
    pub(crate) fn demote(&self) -> Result<Vec<u8>, DemoteError> {
        let _turn = self.turn()?;
        let mut inbound = lock(&self.inbound);
        let unread = match self.ring.get() {
            Some(ring) if inbound.watches_ring() => self.leave_ring(&mut inbound, ring.connection())?,
            _ => Vec::new(),
        };
        self.read_tcp_again(&mut inbound);
        self.write_tcp_again()?;
        drop(lock(&self.negotiation).take());
        self.stay_back(&mut inbound, FallbackReason::LeftToSystem);
        Ok(unread)
    }

    /// Empties the ring for the last time.
    fn leave_ring(&self, inbound: &mut Inbound, connection: &Connection) -> Result<Vec<u8>, DemoteError> {
        connection.announce_leaving()?;
        fault!("leaving-said");
        match connection.outwait_writer(LIMIT) {
            Ok(true) => {}
            failed => {
                // The peer may have seen it, or not: this end goes on reading, from wherever the bytes come.
                connection.announce_reading()?;
                return Err(failed.map_or_else(DemoteError::from, |_| DemoteError::PeerBusy));
            }
        }
        if self.advance(inbound).is_err() {
            return Err(self.cut_off(inbound));
        }
        if !inbound.has_switched() {
            return Ok(Vec::new());
        }
        let mut unread = self.take_until_switch(inbound, connection)?;
        unread.append(&mut connection.take_all()?);
        fault!("ring-emptied");
        Ok(unread)
    }

    /// Takes from TCP what comes before the bytes in the ring, if there are any of these: then the rest of TCP comes
    /// after them.
    fn take_until_switch(
        &self,
        inbound: &mut Inbound,
        connection: &Connection,
    ) -> Result<Vec<u8>, DemoteError> {
        let mut unread = Vec::new();
        let start = Instant::now();
        while let Some(left) = inbound.left_on_tcp().filter(|_| connection.unread().is_ok_and(|n| n > 0)) {
            match inbound.take(&*self.tcp, left, &mut unread) {
                Some(Progress::Done(_)) => {}
                Some(Progress::Blocked) if start.elapsed() < LIMIT => thread::sleep(PAUSE),
                _ => return Err(self.cut_off(inbound)),
            }
        }
        Ok(unread)
    }

    fn cut_off(&self, inbound: &mut Inbound) -> DemoteError {
        inbound.fail(io::ErrorKind::ConnectionReset.into());
        self.tcp.reset_on_close();
        DemoteError::CutOff
    }

    /// From here on the bytes come by TCP.
    pub(super) fn read_tcp_again(&self, inbound: &mut Inbound) {
        inbound.go_back();
        self.reads_ring.store(false, Ordering::Release);
    }

    /// From here on the bytes go by TCP.
    ///
    /// # Errors
    /// If the device fails.
    pub(super) fn write_tcp_again(&self) -> Result<(), ConnectionError> {
        let mut outbound = lock(&self.outbound);
        if let Some(ring) = self.ring.get() {
            ring.connection().go_back()?;
            fault!("back-said");
        }
        outbound.go_back();
        self.writes_ring.store(false, Ordering::Release);
        Ok(())
    }

    /// A direction has gone back; once both have, the connection is as one that was never anything but TCP.
    pub(super) fn stay_back(&self, inbound: &mut Inbound, reason: FallbackReason) {
        tracing::debug!(%reason, "a direction has gone back to TCP");
        *lock(&self.reason) = reason;
        let mut outbound = lock(&self.outbound);
        if !inbound.watches_ring() && !outbound.is_on_ring() {
            inbound.keep_on_tcp();
            outbound.keep_on_tcp();
            self.tally.go_back(reason);
            self.enter(Phase::Staying);
        }
        drop(outbound);
        R::comes_into_play(&self.home);
    }
}
