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
//!   will ever hold. That is read from there yet, and TCP after it.
//!
//! Afterwards the connection is TCP for good, at both ends. The rings stay until each end lets go of the connection, and
//! then go back to the link groups as ever.

use std::{io, sync::atomic::Ordering, time::Duration};

use super::{Hybrid, Phase, Ring, Tcp, inbound::Inbound, lock};
use crate::{
    fault::fault,
    smc::{ConnectionError, connection::Connection},
    tcp_fallback::FallbackReason,
};

/// A write that is under way at the other end is given so long. It takes microseconds, unless the other process is
/// stopped.
const LIMIT: Duration = Duration::from_secs(1);

/// Why a connection cannot be given back to TCP.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoteError {
    /// Nothing has changed but that the peer, once it goes on, may go back by itself. It may be tried again.
    #[error("the peer is in the middle of a write and does not go on")]
    PeerBusy,
    /// So many bytes have come by the ring and were not read, which is more than may be left there. Nothing has changed
    /// but that the peer may go back by itself. It may be tried again.
    #[error("{0} bytes in shared memory were not read")]
    Unread(usize),
    /// What the peer says of its way to the ring cannot be. The connection is of no more use; the peer sees a reset.
    #[error("the peer has switched to shared memory in a way that cannot be")]
    Misled,
    /// The ring or the system is to blame. If it is the ring, the connection is of no more use.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// Another process that has the connection too has died in the middle of something. It is of no more use.
    #[error("nobody knows any more how the connection stands")]
    Lost(#[from] io::Error),
}

impl<R: Ring, T: Tcp> Hybrid<R, T> {
    /// Gives the connection back to TCP, for good: from now on nothing comes or goes but by the socket. What was written
    /// to our ring before and was not read is still read here, before what the socket brings; says how many bytes that
    /// is. Mostly it is none. If it is more than `most`, nothing is done.
    ///
    /// Waits for a write of the peer's that is under way, but never for its application.
    ///
    /// # Errors
    /// If that cannot be. The variants say what has become of the connection.
    pub(crate) fn demote(&self, most: usize) -> Result<usize, DemoteError> {
        let _turn = self.turn()?;
        let mut inbound = lock(&self.inbound);
        let unread = match self.ring.get() {
            Some(ring) if inbound.watches_ring() => self.leave_ring(&mut inbound, ring.connection(), most)?,
            _ => 0,
        };
        if unread == 0 {
            self.read_tcp_again(&mut inbound);
        }
        self.write_tcp_again()?;
        drop(lock(&self.negotiation).take());
        self.stay_back(&mut inbound, FallbackReason::LeftToSystem);
        Ok(unread)
    }

    /// Has the peer write nothing more to the ring; says how many bytes are in there.
    fn leave_ring(
        &self,
        inbound: &mut Inbound,
        connection: &Connection,
        most: usize,
    ) -> Result<usize, DemoteError> {
        // The peer need not be disturbed for what cannot be.
        let left = self.few_left(inbound, connection, most)?;
        if connection.has_left() {
            return Ok(left);
        }
        connection.announce_leaving()?;
        fault!("leaving-said");
        let left = match connection.outwait_writer(LIMIT) {
            Ok(true) => self.few_left(inbound, connection, most),
            Ok(false) => Err(DemoteError::PeerBusy),
            Err(error) => Err(error.into()),
        };
        match left {
            Ok(_) => connection.leave(),
            // The peer may have seen it, or not: this end goes on reading, from wherever the bytes come.
            Err(_) => connection.announce_reading()?,
        }
        fault!("ring-left");
        left
    }

    /// How many bytes of the stream the ring has, which may be so many at most.
    fn few_left(
        &self,
        inbound: &mut Inbound,
        connection: &Connection,
        most: usize,
    ) -> Result<usize, DemoteError> {
        if self.advance(inbound).is_err() {
            inbound.fail(io::ErrorKind::ConnectionReset.into());
            self.tcp.reset_on_close();
            return Err(DemoteError::Misled);
        }
        match connection.unread()? as usize {
            _ if !inbound.has_switched() => Ok(0),
            unread if unread > most => Err(DemoteError::Unread(unread)),
            unread => Ok(unread),
        }
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
