//! What a connection counts while it lives: by TCP in a [`Tally`], by rings in a [`Meter`].

use std::{
    os::fd::BorrowedFd,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use super::{
    counters::{CLASSES, class_of},
    layout::{Direction, TRACE, flow, total},
    reason::number_of,
    record::{Phase, Record},
    registry::Book,
    trace::{self, CdcWord},
};
use crate::{dibs::Gid, tcp_fallback::FallbackReason};

/// What an application's connection counts, from its first byte to its end: whether it is worth to be promoted, and
/// what others are to know of it.
#[derive(Debug)]
pub(crate) struct Tally {
    flows: [ByTcp; 2],
    /// What other processes have carried that have the connection too.
    elsewhere: (AtomicU64, AtomicU32),
    /// It was counted what has become of the connection.
    settled: AtomicBool,
    /// `None` inside if it could not be had.
    record: OnceLock<Option<Arc<Record>>>,
}

/// What went one way by TCP.
#[derive(Debug, Default)]
struct ByTcp {
    bytes: AtomicU64,
    calls: AtomicU32,
    /// Calls by size, as long as there is no record.
    sizes: [AtomicU32; CLASSES],
}

impl ByTcp {
    /// Hands out what is not zero, by its place among the counters of a direction.
    fn counted(&self, mut take: impl FnMut(usize, u64)) {
        let calls = u64::from(self.calls.load(Ordering::Relaxed));
        if calls == 0 {
            return;
        }
        take(flow::TCP_BYTES, self.bytes.load(Ordering::Relaxed));
        take(flow::TCP_CALLS, calls);
        for (class, calls) in self.sizes.iter().enumerate() {
            match calls.load(Ordering::Relaxed) {
                0 => {}
                calls => take(flow::SIZES + class, calls.into()),
            }
        }
    }
}

/// Adds to a word that nobody else writes.
fn bump(word: &AtomicU32) {
    word.store(word.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
}

impl Tally {
    /// Another connection has begun.
    pub(crate) fn new() -> Self {
        Book::own().add(total::SEEN, 1);
        Self {
            flows: Default::default(),
            elsewhere: Default::default(),
            settled: AtomicBool::new(false),
            record: OnceLock::new(),
        }
    }

    /// Counts a call that has read or written something by TCP, and says how many there were before. One thread at a
    /// time counts a direction.
    pub(crate) fn count(&self, direction: Direction, bytes: usize) -> u32 {
        let before = self.calls();
        let (flow, bytes) = (&self.flows[direction as usize], bytes as u64);
        flow.bytes.store(flow.bytes.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
        bump(&flow.calls);
        match self.record() {
            Some(record) => record.count_tcp(direction, bytes),
            None => bump(&flow.sizes[class_of(bytes)]),
        }
        before
    }

    /// Goes on from where another process has left the connection: so much was carried by TCP, in all. What this one
    /// tells others of is only what it carries itself.
    pub(crate) fn resume(&self, bytes: u64, calls: u32) {
        let (own_bytes, own_calls) = self.own();
        self.elsewhere.0.store(bytes.saturating_sub(own_bytes), Ordering::Relaxed);
        self.elsewhere.1.store(calls.saturating_sub(own_calls), Ordering::Relaxed);
    }

    /// Bytes and calls of this process.
    fn own(&self) -> (u64, u32) {
        let [received, sent] = &self.flows;
        let bytes = |flow: &ByTcp| flow.bytes.load(Ordering::Relaxed);
        let calls = |flow: &ByTcp| flow.calls.load(Ordering::Relaxed);
        (bytes(received).saturating_add(bytes(sent)), calls(received).saturating_add(calls(sent)))
    }

    /// Bytes by TCP, both ways together.
    pub(crate) fn bytes(&self) -> u64 {
        self.own().0.saturating_add(self.elsewhere.0.load(Ordering::Relaxed))
    }

    /// Calls that carried them.
    pub(crate) fn calls(&self) -> u32 {
        self.own().1.saturating_add(self.elsewhere.1.load(Ordering::Relaxed))
    }

    /// Calls of this process that carried something this way.
    pub(crate) fn calls_of(&self, direction: Direction) -> u32 {
        self.flows[direction as usize].calls.load(Ordering::Relaxed)
    }

    /// Both ends have agreed on SMC-D, by these devices (ours first), with rings of these sizes (that from which we read
    /// first).
    pub(crate) fn agree(&self, meter: &Meter, gids: (Gid, Gid), rings: (usize, usize), in_band: bool) {
        if !self.settled.swap(true, Ordering::Relaxed) {
            Book::own().add(total::PROMOTED, 1);
        }
        if let Some(record) = self.record() {
            record.agree(gids.0, gids.1, rings, in_band);
            meter.attach(record.clone());
        }
    }

    /// The connection stays TCP, or as much of it as has not been switched. One that was never to be promoted gets no
    /// record for that.
    pub(crate) fn stay<'a>(&self, reason: FallbackReason, socket: impl FnOnce() -> BorrowedFd<'a>) {
        if !self.settled.swap(true, Ordering::Relaxed) {
            Book::own().add(total::FALLBACKS + number_of(reason), 1);
        }
        let record = match reason {
            FallbackReason::Disabled | FallbackReason::SocketInUse => self.record(),
            _ => self.record().or_else(|| self.make_record(socket())),
        };
        if let Some(record) = record {
            if reason == FallbackReason::PeerNotLocal {
                record.is_eligible(false);
            }
            record.stay(reason);
        }
    }

    /// Both directions have gone back to TCP, for good.
    pub(crate) fn go_back(&self, reason: FallbackReason) {
        if let Some(record) = self.record() {
            record.stay(reason);
            record.enter(Phase::Staying);
        }
    }

    /// The record, if there is one.
    #[inline]
    pub(crate) fn record(&self) -> Option<&Arc<Record>> {
        self.record.get().and_then(Option::as_ref)
    }

    /// The record; made now if there was none. `None` if it cannot be.
    #[cold]
    pub(crate) fn make_record(&self, socket: BorrowedFd<'_>) -> Option<&Arc<Record>> {
        let make = || {
            let record = Record::open(socket)?;
            for direction in [Direction::In, Direction::Out] {
                self.flows[direction as usize].counted(|at, n| record.carry_over(direction, at, n));
            }
            Some(record)
        };
        // Under a lock of the connection, which who forks takes first: no child gets this half done.
        self.record.get_or_init(make).as_ref()
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let book = Book::own();
        book.add(total::CLOSED, 1);
        if let Some(record) = self.record() {
            return record.close();
        }
        for (flow, base) in self.flows.iter().zip(total::FLOWS) {
            flow.counted(|at, n| book.add(base + at, n));
        }
    }
}

/// What a pair of rings counts.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    bytes: [AtomicU64; 2],
    record: OnceLock<Arc<Record>>,
}

impl Meter {
    /// From now on it is counted there, too.
    pub(crate) fn attach(&self, record: Arc<Record>) {
        // There is one record for a connection.
        let _ = self.record.set(record);
    }

    /// Counts what a call has read or written. One thread at a time counts a direction.
    #[inline]
    pub(crate) fn count(&self, direction: Direction, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let sum = &self.bytes[direction as usize];
        // Not as one step: that would cost more than all that is counted here.
        sum.store(sum.load(Ordering::Relaxed).wrapping_add(bytes as u64), Ordering::Relaxed);
        if let Some(record) = self.record.get() {
            record.count_ring(direction, bytes as u64);
        }
    }

    /// Goes on from where another process has left the connection: so much was carried, in all.
    pub(crate) fn resume(&self, direction: Direction, bytes: u64) {
        self.bytes[direction as usize].store(bytes, Ordering::Relaxed);
    }

    /// Bytes so far.
    pub(crate) fn bytes(&self, direction: Direction) -> u64 {
        self.bytes[direction as usize].load(Ordering::Relaxed)
    }

    /// Takes back what was counted of a message that is none of the application's.
    pub(crate) fn discount(&self, direction: Direction, bytes: usize) {
        if let Some(record) = self.record.get() {
            record.discount_ring(direction, bytes as u64);
        }
    }

    /// Counts that the peer had to be woken to go on in this direction.
    #[inline]
    pub(crate) fn woken(&self, direction: Direction, woken: bool) {
        if woken && let Some(record) = self.record.get() {
            record.count_wakeup(direction);
        }
    }

    /// A CDC message goes out; `words` are those of the producer and of the consumer.
    #[inline]
    pub(crate) fn trace(&self, which: CdcWord, words: impl FnOnce() -> (u64, u64)) {
        let Some(record) = self.record.get() else { return };
        let control = record.registry().word(TRACE).map_or(0, |word| word.load(Ordering::Relaxed));
        if control != 0 {
            trace::emit(record, control, which, words());
        }
    }
}
