//! What a connection counts while it lives: by TCP in a [`Tally`], by rings in a [`Meter`].

use std::{
    os::fd::BorrowedFd,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use super::{
    layout::{Direction, TRACE, flow, total},
    reason::number_of,
    record::Record,
    registry::Generation,
    trace::{self, CdcWord},
};
use crate::{dibs::Gid, tcp_fallback::FallbackReason};

/// What an application's connection counts, from its first byte to its end: whether it is worth to be promoted, and
/// what others are to know of it.
#[derive(Debug)]
pub(crate) struct Tally {
    bytes: [AtomicU64; 2],
    calls: [AtomicU32; 2],
    /// It was counted what has become of the connection.
    settled: AtomicBool,
    /// `None` inside if it could not be had.
    record: OnceLock<Option<Arc<Record>>>,
}

impl Tally {
    /// Another connection has begun.
    pub(crate) fn new() -> Self {
        Generation::current().add(total::SEEN, 1);
        let (bytes, calls) = Default::default();
        Self { bytes, calls, settled: AtomicBool::new(false), record: OnceLock::new() }
    }

    /// Counts a call that has read or written something by TCP, and says how many there were before. One thread at a
    /// time counts a direction.
    pub(crate) fn count(&self, direction: Direction, bytes: usize) -> u32 {
        let before = self.calls();
        let (sum, calls) = (&self.bytes[direction as usize], &self.calls[direction as usize]);
        sum.store(sum.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
        calls.store(calls.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
        if let Some(record) = self.record() {
            record.count_tcp(direction, bytes as u64);
        }
        before
    }

    /// Bytes by TCP, both ways together.
    pub(crate) fn bytes(&self) -> u64 {
        let [received, sent] = &self.bytes;
        received.load(Ordering::Relaxed).saturating_add(sent.load(Ordering::Relaxed))
    }

    /// Calls that carried them.
    pub(crate) fn calls(&self) -> u32 {
        let [received, sent] = &self.calls;
        received.load(Ordering::Relaxed).saturating_add(sent.load(Ordering::Relaxed))
    }

    /// Both ends have agreed on SMC-D, by these devices (ours first), with rings of these sizes (that from which we read
    /// first).
    pub(crate) fn agree(&self, meter: &Meter, gids: (Gid, Gid), rings: (usize, usize), in_band: bool) {
        if !self.settled.swap(true, Ordering::Relaxed) {
            Generation::current().add(total::PROMOTED, 1);
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
            Generation::current().add(total::FALLBACKS + number_of(reason), 1);
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
                let bytes = self.bytes[direction as usize].load(Ordering::Relaxed);
                let calls = self.calls[direction as usize].load(Ordering::Relaxed);
                record.carry_over(direction, bytes, calls.into());
            }
            Some(record)
        };
        self.record.get_or_init(make).as_ref()
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let generation = Generation::current();
        generation.add(total::CLOSED, 1);
        if let Some(record) = self.record() {
            return record.close();
        }
        for ((bytes, calls), flow) in self.bytes.iter().zip(&self.calls).zip(total::FLOWS) {
            let calls = u64::from(calls.load(Ordering::Relaxed));
            if calls > 0 {
                generation.add(flow + flow::TCP_BYTES, bytes.load(Ordering::Relaxed));
                generation.add(flow + flow::TCP_CALLS, calls);
            }
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
