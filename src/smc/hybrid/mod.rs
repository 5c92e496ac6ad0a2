//! A connection that is TCP at once and may become SMC-D while it runs.
//!
//! Each direction is switched by itself, at an offset of its byte stream that both ends agree on in this way:
//!
//! 1. Both ends have agreed on a pair of rings ([`Negotiation`]). Bytes still go by TCP.
//! 2. The reader says in the writer's ring that it is reading (`READING`), and from then on looks at both its ring and
//!    the TCP connection. It says so from inside a read, so nobody who sleeps on the TCP connection is left there.
//! 3. The writer, at its next write, puts the number of bytes that it has given to TCP so far into the ring, as the
//!    first eight bytes. All that follows goes by the ring.
//! 4. The reader finds the number, takes bytes from TCP until it has as many, and the rest from the ring.
//!
//! Either end can give the connection back to TCP ([`demotion`]).
//!
//! Whatever is left undone leaves the connection as it is. TCP stays below and remains the authority on life and death:
//! once the ring is drained, its end is the end of the stream, and its reset is a reset.
//!
//! Nothing here waits, and nothing here belongs to a runtime.

pub(crate) mod demotion;
mod hope;
mod inbound;
mod outbound;
mod returning;
// The front end that forks is still to come.
#[allow(dead_code)]
pub(crate) mod snapshot;
mod tcp;
#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
};

pub use demotion::DemoteError;
use rustix::time::{ClockId, clock_gettime};
pub use snapshot::{Baton, Left};
pub(crate) use snapshot::{Held, Snapshot};
#[cfg(feature = "tokio")]
pub(crate) use tcp::is_writable;
pub(crate) use tcp::{Counts, Tcp, receive, send};

use self::{hope::Hope, inbound::Inbound, outbound::Outbound};
use super::{
    ByteCounts, SmcConfig, Transport,
    connection::Connection,
    established::Established,
    negotiation::{Negotiation, Step},
};
use crate::{
    fault::fault,
    observe::{self, Direction, Tally},
    tcp_fallback::{FallbackReason, promotion::is_peer_here},
};

/// Bytes of the ring before the first of the stream: the offset of the switch.
const PREAMBLE: usize = 8;

/// So many calls in a row look at the side channel; after that only some, so that a peer that never comes costs nothing.
const EAGER_CALLS: u32 = 16;

/// At least one of so many calls looks at the side channel.
const RARE_CALLS: u32 = 1024;

/// Between looks that time is the reason for, in nanoseconds: at first, and at most.
const LEAST_PAUSE: u64 = 500_000;
const MOST_PAUSE: u64 = 400_000_000;

/// Nanoseconds of a clock that costs next to nothing, and moves on every few milliseconds.
fn coarse_clock() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec.cast_unsigned())
}

/// A pair of rings in the hands of a front end.
pub(crate) trait Ring: Sized {
    /// What it takes to make one.
    type Home;

    /// Takes over what both ends have agreed on.
    ///
    /// # Errors
    /// If the front end cannot wait for another connection.
    fn new(established: Established, home: &Self::Home) -> io::Result<Self>;

    fn connection(&self) -> &Connection;

    fn transport(&self) -> Transport;

    /// True if the peer's process is known to have gone. Asked at each write: a quick look.
    fn has_peer_left(&self) -> bool;

    /// From now on bytes may come by the ring, or go by TCP again: who waits for one alone has to look again.
    fn comes_into_play(_home: &Self::Home) {}
}

/// How far the promotion of a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Phase {
    /// What goes by TCP is counted.
    Counting,
    /// A handshake is under way, or is waited for.
    Negotiating,
    /// There are rings.
    Agreed,
    /// It stays TCP.
    Staying,
}

/// A handshake.
#[derive(Debug)]
struct UnderWay {
    negotiation: Negotiation,
    hope: Hope,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Hybrid<R: Ring, T: Tcp> {
    /// Closed before the TCP connection, so that the peer finds it closed when it sees the end of that.
    ring: OnceLock<R>,
    tcp: Arc<T>,
    home: R::Home,
    config: Arc<SmcConfig>,
    phase: AtomicU8,
    /// What went by TCP.
    tally: Tally,
    /// Calls since the handshake last went on.
    calls: AtomicU32,
    /// When time alone is reason enough to look again, and how long it will be till then, by the coarse clock.
    next_look: AtomicU64,
    pause: AtomicU64,
    negotiation: Mutex<Option<Box<UnderWay>>>,
    reason: Mutex<FallbackReason>,
    /// Copies of what the two mutexes hold, for a quick look. True once, if ever, and perhaps not to the end.
    reads_ring: AtomicBool,
    writes_ring: AtomicBool,
    /// The rings carry all of the connection, since before its first byte.
    is_in_band: AtomicBool,
    /// Other processes have the socket too.
    shared: AtomicBool,
    /// Calls of the application's own that read from the TCP socket, or wait for it alone.
    reads_in_flight: AtomicU32,
    /// Calls of the application's own that write to the TCP socket.
    writes_in_flight: AtomicU32,
    /// How processes that share the connection take turns.
    baton: OnceLock<Box<dyn Baton>>,
    inbound: Mutex<Inbound>,
    outbound: Mutex<Outbound>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R: Ring, T: Tcp> Hybrid<R, T> {
    /// A connection on which nothing was read or written yet.
    pub(crate) fn new(tcp: Arc<T>, home: R::Home, config: Arc<SmcConfig>) -> Self {
        Self::with_counts(tcp, home, config, Counts::default())
    }

    /// A connection on which so much was read and written already.
    pub(crate) fn with_counts(tcp: Arc<T>, home: R::Home, config: Arc<SmcConfig>, counts: Counts) -> Self {
        Self {
            ring: OnceLock::new(),
            tcp,
            home,
            config,
            phase: AtomicU8::new(Phase::Counting as u8),
            tally: Tally::new(),
            calls: AtomicU32::new(0),
            next_look: AtomicU64::new(0),
            pause: AtomicU64::new(LEAST_PAUSE),
            negotiation: Mutex::new(None),
            reason: Mutex::new(FallbackReason::NotYet),
            reads_ring: AtomicBool::new(false),
            writes_ring: AtomicBool::new(false),
            is_in_band: AtomicBool::new(false),
            shared: AtomicBool::new(false),
            baton: OnceLock::new(),
            reads_in_flight: AtomicU32::new(0),
            writes_in_flight: AtomicU32::new(0),
            inbound: Mutex::new(Inbound::new(counts.taken)),
            outbound: Mutex::new(Outbound::new(counts.given)),
        }
    }

    /// True if nothing will come of a promotion, and nobody wants to know more of the connection.
    pub(crate) fn stays(&self) -> bool {
        self.phase() == Phase::Staying && !self.config.observe
    }

    /// True once both directions have gone back to TCP, for good.
    pub(crate) fn is_back(&self) -> bool {
        self.phase() == Phase::Staying && self.ring.get().is_some()
    }

    /// True if bytes may come by TCP: they all do, or will once the ring is empty, or nothing is certain yet.
    pub(crate) fn may_come_by_tcp(&self) -> bool {
        !self.is_reading_ring() || self.ring.get().is_none_or(|ring| ring.connection().is_last())
    }

    /// The TCP connection below.
    pub(crate) fn tcp(&self) -> &T {
        &self.tcp
    }

    /// What the front end makes its rings with.
    pub(crate) fn home(&self) -> &R::Home {
        &self.home
    }

    /// The rings, if both ends have agreed on some. They need not be in use.
    pub(crate) fn ring(&self) -> Option<&R> {
        self.ring.get()
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Counting,
            1 => Phase::Negotiating,
            2 => Phase::Agreed,
            _ => Phase::Staying,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// True while writing goes by the ring, and nobody else has the connection: then the ring can be written to directly.
    pub(crate) fn writes_ring(&self) -> bool {
        self.writes_ring.load(Ordering::Acquire) && !self.is_shared()
    }

    /// True while reading goes by the ring alone, and nobody else has the connection: then the ring can be read directly.
    pub(crate) fn reads_ring(&self) -> bool {
        self.reads_ring.load(Ordering::Acquire) && !self.is_shared()
    }

    /// As [`Hybrid::writes_ring`], whoever else has the connection.
    pub(crate) fn is_writing_ring(&self) -> bool {
        self.writes_ring.load(Ordering::Acquire)
    }

    /// As [`Hybrid::reads_ring`], whoever else has the connection.
    pub(crate) fn is_reading_ring(&self) -> bool {
        self.reads_ring.load(Ordering::Acquire)
    }

    /// True if what is to be read may come by the ring.
    pub(crate) fn watches_ring(&self) -> bool {
        self.is_reading_ring() || lock(&self.inbound).watches_ring()
    }

    /// How the bytes travel: by SMC-D as soon as one direction has been switched.
    pub(crate) fn transport(&self) -> Transport {
        match self.ring.get() {
            Some(ring) if self.is_reading_ring() || self.is_writing_ring() => ring.transport(),
            _ => Transport::Tcp(*lock(&self.reason)),
        }
    }

    /// Payload bytes that went by the rings.
    pub(crate) fn byte_counts(&self) -> ByteCounts {
        let Some(ring) = self.ring.get() else { return ByteCounts::default() };
        let ByteCounts { received, sent } = ring.connection().byte_counts();
        let preamble = if self.is_in_band.load(Ordering::Relaxed) { 0 } else { PREAMBLE as u64 };
        let payload = |bytes: u64| bytes.saturating_sub(preamble);
        ByteCounts { received: payload(received), sent: payload(sent) }
    }

    /// Counts a call that has read or written something by TCP; says how many there were before. Under the lock of its
    /// direction.
    fn note(&self, direction: Direction, bytes: usize) -> u32 {
        if self.config.observe && self.tally.record().is_none() {
            self.observe();
        }
        self.tally.count(direction, bytes)
    }

    /// Makes the connection known, although nothing has become of it yet.
    #[cold]
    fn observe(&self) {
        let socket = self.tcp.socket();
        let Some(record) = self.tally.make_record(socket) else { return };
        if let Ok(eligible) = is_peer_here(socket) {
            record.is_eligible(eligible);
        }
        if self.phase() == Phase::Staying {
            record.stay(*lock(&self.reason));
        }
    }

    /// Goes on with the promotion if it is time to. True if both ends have just agreed.
    pub(crate) fn step(&self) -> bool {
        if self.is_shared() {
            return false;
        }
        match self.phase() {
            Phase::Counting => {
                let (bytes, messages) = (self.tally.bytes(), self.tally.calls());
                self.config.promotion.is_due(bytes, messages) && self.negotiate()
            }
            Phase::Negotiating => self.is_time_to_look() && self.negotiate(),
            Phase::Agreed | Phase::Staying => false,
        }
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Acquire)
    }

    /// Looking costs a system call: often at first, then less and less, both by calls and by time. By calls alone, one
    /// that makes many at a time would be done with its looks before the other end has had the time for one.
    fn is_time_to_look(&self) -> bool {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if calls <= EAGER_CALLS || calls.is_power_of_two() || calls.is_multiple_of(RARE_CALLS) {
            return true;
        }
        let now = coarse_clock();
        let is_due = now >= self.next_look.load(Ordering::Relaxed);
        if is_due {
            let pause = self.pause.load(Ordering::Relaxed).clamp(LEAST_PAUSE, MOST_PAUSE);
            self.next_look.store(now + pause, Ordering::Relaxed);
            self.pause.store(pause * 2, Ordering::Relaxed);
        }
        is_due
    }

    /// The handshake goes on: the next step will not be long.
    fn look_soon(&self) {
        self.calls.store(0, Ordering::Relaxed);
        self.pause.store(LEAST_PAUSE, Ordering::Relaxed);
        self.next_look.store(0, Ordering::Relaxed);
    }

    #[cold]
    fn negotiate(&self) -> bool {
        // Whoever else is at it does the same.
        let Ok(mut negotiation) = self.negotiation.try_lock() else { return false };
        match self.phase() {
            Phase::Counting => match Negotiation::new(self.tcp.socket(), self.config.clone()) {
                Ok(new) => {
                    let hope = Hope::new(&self.tally);
                    *negotiation = Some(Box::new(UnderWay { negotiation: new, hope }));
                    self.enter(Phase::Negotiating);
                    if let Some(record) = self.tally.make_record(self.tcp.socket()) {
                        record.is_eligible(true);
                        record.enter(observe::Phase::Negotiating);
                    }
                }
                Err(reason) => {
                    self.stay(reason);
                    return false;
                }
            },
            Phase::Negotiating => {}
            Phase::Agreed | Phase::Staying => return false,
        }
        let Some(under_way) = negotiation.as_mut() else { return false };
        match under_way.negotiation.step() {
            Step::Waiting if under_way.negotiation.is_alone() && under_way.hope.is_lost(&self.tally) => {
                *negotiation = None;
                self.stay(FallbackReason::PeerNotSmc);
                false
            }
            Step::Waiting => false,
            Step::Progress => {
                self.look_soon();
                false
            }
            Step::Established(established) => {
                *negotiation = None;
                self.agree(*established)
            }
            Step::Over(reason) => {
                *negotiation = None;
                self.stay(reason);
                false
            }
        }
    }

    /// Both ends have agreed on these rings.
    pub(crate) fn agree(&self, established: Established) -> bool {
        match R::new(established, &self.home) {
            Ok(ring) => {
                let is_in_band = self.is_in_band.load(Ordering::Relaxed);
                ring.transport().announce(&self.tally, ring.connection(), is_in_band);
                let is_new = self.ring.set(ring).is_ok();
                fault!("promotion-agreed");
                self.enter(Phase::Agreed);
                tracing::debug!("both ends have agreed on SMC-D");
                is_new
            }
            Err(error) => {
                self.stay(FallbackReason::SideChannel(error.kind()));
                false
            }
        }
    }

    /// Both ends have agreed in band, before the first byte: all of them go by the rings. False if they cannot.
    pub(crate) fn begin_on_rings(&self, established: Established) -> bool {
        self.is_in_band.store(true, Ordering::Relaxed);
        self.tally.make_record(self.tcp.socket());
        if !self.agree(established) {
            return false;
        }
        lock(&self.inbound).begin_on_ring();
        lock(&self.outbound).begin_on_ring();
        if let Some(connection) = self.ring.get().map(R::connection)
            && connection.is_mapped()
            && let Err(error) = connection.announce_reading()
        {
            // Whoever reads or writes finds out what is wrong.
            tracing::warn!(%error, "the peer was not told that the connection can go back to TCP");
        }
        self.reads_ring.store(true, Ordering::Release);
        self.writes_ring.store(true, Ordering::Release);
        true
    }

    /// The connection stays TCP for good, or as much of it as has not been switched.
    pub(crate) fn stay(&self, reason: FallbackReason) {
        tracing::debug!(%reason, "the connection stays TCP");
        *lock(&self.reason) = reason;
        self.tally.stay(reason, || self.tcp.socket());
        if self.ring.get().is_none() {
            self.enter(Phase::Staying);
        }
    }

    /// Leaves the TCP connection to the application: nothing is read or written but by it. The direction must not have
    /// been switched, nor be about to be.
    ///
    /// # Errors
    /// `Unsupported` if it is too late.
    pub(crate) fn leave_to_application(&self, reading: bool, writing: bool) -> io::Result<()> {
        let mut inbound = lock(&self.inbound);
        let mut outbound = lock(&self.outbound);
        if (reading && inbound.watches_ring()) || (writing && outbound.is_on_ring()) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, OnRing));
        }
        if reading {
            inbound.keep_on_tcp();
        }
        if writing {
            outbound.keep_on_tcp();
        }
        self.stay(FallbackReason::SocketInUse);
        Ok(())
    }
}

/// The bytes go by shared memory, where the TCP socket is of no use.
#[derive(Debug, thiserror::Error)]
#[error("the connection has moved to shared memory")]
struct OnRing;

impl<R: Ring, T: Tcp> Drop for Hybrid<R, T> {
    fn drop(&mut self) {
        let Some(connection) = self.ring.get().map(R::connection) else { return };
        if connection.is_abandoned() {
            return;
        }
        // Others may have had it last; what this process knows would be old.
        let turn = self.turn();
        let is_lost = turn.is_err() || self.follow_in_turn().is_err();
        let inbound = lock(&self.inbound);
        let unread = is_lost || inbound.has_unread(connection, &*self.tcp);
        if is_lost || (unread && inbound.watches_ring()) {
            // As the kernel does by itself if the data is in the TCP connection. That may live on without us, too.
            self.tcp.reset_on_close();
        }
        drop(inbound);
        let in_tcp = connection.is_last() && self.tcp.has_unread();
        connection.will_close(unread || in_tcp || self.tcp.resets_on_close());
        if !connection.has_peer_ended() && connection.interrupt().is_hung_up() {
            connection.peer_is_gone();
        }
    }
}
