//! Giving a connection back to TCP, when its socket goes where the library cannot follow: to another process as a
//! descriptor, through `exec` to a program that knows nothing of it, to the kernel's own queues.
//!
//! One end does it ([`Hybrid::demote`]); the application at the other need not do anything. Each direction goes back by
//! itself, at a place in the stream that both ends know:
//!
//! - **Writing:** the last word in the ring is a flag (`BACK`); what follows goes by TCP. The reader that finds the ring
//!   empty, and the flag set, goes on with TCP. What TCP brings before that has to wait.
//! - **Reading:** a flag (`LEAVING`) asks the writer to go back, which it does with whatever it is called for next: the
//!   flag comes with a ring. It looks at the flag before each write. So once the write that may be under way is over
//!   ([`writing`](crate::dibs)), the ring holds all that it will ever hold. What of that is unread the writer takes back,
//!   and sends it by TCP before all else ([`returning`](super::returning)). Should it not do so in time, the bytes are
//!   still read here, and TCP after them.
//!
//! Afterwards the connection is TCP for good, at both ends. The rings stay until each end lets go of the connection, and
//! then go back to the link groups as ever.

use std::{
    io,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use super::{Hybrid, PREAMBLE, Phase, Ring, Tcp, inbound::Inbound, lock};
use crate::{
    fault::fault,
    smc::{
        ConnectionError,
        connection::{Asked, Connection},
        returning::Stand,
    },
    tcp_fallback::FallbackReason,
};

/// The peer is looked at so often, at first and at last.
const LEAST_PAUSE: Duration = Duration::from_micros(20);
const MOST_PAUSE: Duration = Duration::from_millis(1);

/// A peer that has begun to take back what is unread has so long at least. It takes microseconds, unless it is stopped.
const LEAST_TAKEN: Duration = Duration::from_millis(100);

/// Why a connection cannot be given back to TCP.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoteError {
    /// Nothing has changed but that the peer, once it goes on, may go back by itself. It may be tried again.
    #[error("the peer is in the middle of something and does not go on")]
    PeerBusy,
    /// So many bytes have come by the ring and were not read, which is more than may be left there, and the peer does not
    /// take them back: it has closed, or shut down writing, or does not answer. Nothing has changed but that it may go
    /// back by itself. It may be tried again.
    #[error("{0} bytes in shared memory were not read")]
    Unread(usize),
    /// The peer's end is SMC-D alone, and knows of no way back. Nothing has changed.
    #[error("the peer's end cannot go back to TCP")]
    PeerStays,
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

/// Waits for so long, with what the peer is at known. False if it has been long enough.
pub(super) type Pause<'a> = dyn FnMut(Duration, Stand) -> bool + 'a;

impl<R: Ring, T: Tcp> Hybrid<R, T> {
    /// Gives the connection back to TCP, for good: from now on nothing comes or goes but by the socket. What was written
    /// to our ring before and was not read is sent once more, by TCP, if the peer answers within `limit`. What it does not
    /// send so is still read here, before what the socket brings; says how many bytes that is. If it is more than `most`,
    /// it is not given back.
    ///
    /// Never waits for the peer's application, but its library runs only when that calls it, or sleeps in a call.
    ///
    /// # Errors
    /// If that cannot be. The variants say what has become of the connection.
    pub(crate) fn demote(&self, most: usize, limit: Duration) -> Result<usize, DemoteError> {
        let start = Instant::now();
        self.demote_with(most, &mut |pause, stand| {
            thread::sleep(pause);
            start.elapsed() < if stand == Stand::Taken { (limit * 2).max(LEAST_TAKEN) } else { limit }
        })
    }

    /// As [`Hybrid::demote`], where somebody else does the waiting.
    pub(super) fn demote_with(&self, most: usize, pause: &mut Pause<'_>) -> Result<usize, DemoteError> {
        let _turn = self.turn()?;
        let mut inbound = lock(&self.inbound);
        if let Some(ring) = self.ring.get() {
            self.await_companion(ring.connection(), pause)?;
        }
        let unread = match self.ring.get() {
            Some(ring) if inbound.watches_ring() => {
                self.leave_ring(&mut inbound, ring.connection(), most, pause)?
            }
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

    /// Waits until the peer has said which way it reads, where both began with rings: it does so at once, or never.
    fn await_companion(&self, connection: &Connection, again: &mut Pause<'_>) -> Result<(), DemoteError> {
        let mut pause = LEAST_PAUSE;
        // Elsewhere nobody writes to the ring of a peer that has not said so.
        while !connection.is_peer_on_two_ways() && lock(&self.outbound).is_on_ring() {
            if !connection.is_mapped() || !again(pause, Stand::Nothing) {
                return Err(DemoteError::PeerStays);
            }
            pause = (pause * 2).min(MOST_PAUSE);
        }
        Ok(())
    }

    /// Has the peer write nothing more to the ring, and take back what is unread; says how many bytes are left there.
    fn leave_ring(
        &self,
        inbound: &mut Inbound,
        connection: &Connection,
        most: usize,
        pause: &mut Pause<'_>,
    ) -> Result<usize, DemoteError> {
        self.advance(inbound).map_err(|_| self.misled(inbound))?;
        if inbound.is_undecided() {
            return Err(DemoteError::PeerBusy);
        }
        if !connection.may_be_returned() {
            // The peer need not be disturbed for what cannot be.
            let unread = self.few_left(inbound, connection, most)?;
            if connection.has_left() {
                return Ok(unread);
            }
        }
        let skip = if inbound.has_switched() { 0 } else { PREAMBLE };
        fault!("leaving-wanted");
        let mut asked = connection.ask_back(skip as u32)?;
        let waited = self.await_answer(inbound, connection, &mut asked, pause);
        let left = self.settle(inbound, connection, asked, waited, most);
        match left {
            Ok(_) => connection.leave(),
            // The peer may have seen it, or not: this end goes on reading, from wherever the bytes come.
            Err(_) => connection.announce_reading()?,
        }
        fault!("ring-left");
        left
    }

    /// Says that we leave, and waits until the peer writes nothing more, and then until it has taken back what is unread,
    /// if it will. False if it is in the middle of a write yet.
    fn await_answer(
        &self,
        inbound: &mut Inbound,
        connection: &Connection,
        asked: &mut Asked<'_>,
        again: &mut Pause<'_>,
    ) -> Result<bool, DemoteError> {
        asked.announce()?;
        fault!("leaving-said");
        connection.catch_writer()?;
        let mut pause = LEAST_PAUSE;
        loop {
            let is_written = connection.is_written();
            let stand = asked.look();
            let is_over = match stand {
                Stand::Nothing => !is_written,
                Stand::Asked(_) => !is_written && (asked.unread()? == 0 || !connection.may_be_returned()),
                Stand::Taken => connection.interrupt().is_hung_up(),
                Stand::Done(_) | Stand::Unknown => true,
            };
            if is_over || !again(pause, stand) {
                // It may have begun just now; then it will be done soon.
                if matches!(stand, Stand::Asked(_)) && asked.withdraw() == Stand::Taken {
                    continue;
                }
                return Ok(!is_written);
            }
            if connection.is_asked() {
                // Both give it back at the same time.
                self.go_back_as_asked(inbound)?;
            }
            pause = (pause * 2).min(MOST_PAUSE);
        }
    }

    /// Withdraws what the peer was asked for, or takes in what has come of it. Says how many bytes are left in the ring.
    fn settle(
        &self,
        inbound: &mut Inbound,
        connection: &Connection,
        mut asked: Asked<'_>,
        waited: Result<bool, DemoteError>,
        most: usize,
    ) -> Result<usize, DemoteError> {
        match asked.withdraw() {
            Stand::Nothing => {
                drop(asked);
                if !waited? {
                    return Err(DemoteError::PeerBusy);
                }
                self.few_left(inbound, connection, most)
            }
            Stand::Done(sent) => {
                let all = asked.unread()?;
                if sent == all {
                    asked.forget_all();
                    return Ok(0);
                }
                self.read_tcp_first(inbound, connection, asked)?;
                self.take_in_return(inbound, connection, sent).map_err(|_| self.misled(inbound))?;
                few(connection.unread()? as usize, most)
            }
            // It will, or it is dead.
            Stand::Taken => {
                self.read_tcp_first(inbound, connection, asked)?;
                Err(DemoteError::PeerBusy)
            }
            Stand::Asked(_) | Stand::Unknown => Err(self.misled(inbound)),
        }
    }

    /// How many bytes of the stream the ring has, which may be so many at most.
    fn few_left(
        &self,
        inbound: &mut Inbound,
        connection: &Connection,
        most: usize,
    ) -> Result<usize, DemoteError> {
        self.advance(inbound).map_err(|_| self.misled(inbound))?;
        match connection.unread()? as usize {
            _ if !inbound.has_switched() => Ok(0),
            unread => few(unread, most),
        }
    }

    /// Ends the connection at both ends, as a reset does. That of the socket is left to the caller.
    pub(crate) fn break_off(&self) {
        lock(&self.inbound).fail(io::ErrorKind::ConnectionReset.into());
        if let Some(connection) = self.ring.get().map(R::connection) {
            connection.will_close(true);
            connection.close();
        }
    }

    /// The connection is of no more use, and the peer is to blame.
    #[cold]
    pub(super) fn misled(&self, inbound: &mut Inbound) -> DemoteError {
        inbound.fail(io::ErrorKind::ConnectionReset.into());
        self.tcp.reset_on_close();
        DemoteError::Misled
    }

    /// From here on the bytes come by TCP.
    pub(super) fn read_tcp_again(&self, inbound: &mut Inbound) {
        inbound.go_back();
        self.reads_ring.store(false, Ordering::Release);
    }

    /// From here on the bytes go by TCP; first those that the peer has not read, if it asks for them. False if they have
    /// been for some time.
    ///
    /// # Errors
    /// If the device fails, or the peer broke the protocol.
    pub(super) fn write_tcp_again(&self) -> Result<bool, ConnectionError> {
        let mut outbound = lock(&self.outbound);
        if let Some(connection) = self.ring.get().map(R::connection) {
            if connection.is_back() && !outbound.is_on_ring() {
                return Ok(false);
            }
            if outbound.is_on_ring() {
                outbound.count(self.return_unread(connection)?);
            }
            connection.go_back()?;
            fault!("back-said");
        }
        outbound.go_back();
        self.writes_ring.store(false, Ordering::Release);
        Ok(true)
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

/// So many bytes are left, which may be so many at most.
fn few(unread: usize, most: usize) -> Result<usize, DemoteError> {
    if unread > most { Err(DemoteError::Unread(unread)) } else { Ok(unread) }
}
