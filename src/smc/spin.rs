//! Waiting awake: when it pays, and for how long.
//!
//! A sleeper costs its peer a system call and itself a wake-up, several microseconds and often tens. If news come
//! sooner than that, looking for them awake is cheaper for both. Whether they do is learned from what happened before.
//!
//! Two ends that both sleep keep each other waiting: each finds that news take two wake-ups, and never learns how
//! fast the other could be. So a wait that lasted no longer than [`PROBE`] asleep is tried awake; if that pays, the
//! other end will soon find that it pays too. Each look in vain doubles the number of waits that sleep at once.

use std::{
    cell::Cell,
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// What a sleep and a wake-up cost, roughly: news that come sooner are worth staying awake for.
const PAYS: Duration = Duration::from_micros(25);

/// Longest wait that is tried awake to see whether the peer can be faster.
const PROBE: Duration = Duration::from_micros(150);

/// So many looks in a row may end later than pays before they count as in vain: the other end needs some to find out
/// that this one is awake.
const PATIENCE: u32 = 8;

/// Most waits that are skipped after looking in vain again and again.
const MAX_SKIP: u32 = 1024;

/// How many skipped waits one is worth that turned out to be short: the peer may have become faster.
const SHORT_WAIT: u32 = 16;

thread_local! {
    /// The connection that last waited on this thread. One that shares its thread with others does not stay awake:
    /// it would keep them from their work.
    static LAST: Cell<usize> = const { Cell::new(0) };
}

/// How connections wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum BusyPoll {
    /// Stay awake for some microseconds where experience says that it pays; never with a single processor, nor for a
    /// connection that shares its thread with other busy ones. An idle connection uses no processor time.
    #[default]
    Adaptive,
    /// Go to sleep at once.
    Off,
    /// Stay awake for up to this time at every wait, like `SO_BUSY_POLL`. Best latency, at the price of a processor.
    For(Duration),
}

/// Decides for one direction of one connection.
#[derive(Debug)]
pub(crate) struct Spinner {
    how: BusyPoll,
    skip: AtomicU32,
    penalty: AtomicU32,
    /// Looks in a row that found something, but late.
    late: AtomicU32,
    /// When the present sleep began, in nanoseconds of this process' clock; zero if awake.
    asleep_since: AtomicU64,
    /// How long the last sleep took, in nanoseconds.
    last_sleep: AtomicU64,
}

impl Spinner {
    pub(crate) fn new(how: BusyPoll) -> Self {
        Self {
            how,
            skip: AtomicU32::new(0),
            penalty: AtomicU32::new(0),
            late: AtomicU32::new(0),
            asleep_since: AtomicU64::new(0),
            last_sleep: AtomicU64::new(u64::MAX),
        }
    }

    /// To be called when a wait has ended, or there was none.
    #[inline]
    pub(crate) fn awake(&self) {
        if self.asleep_since.load(Ordering::Relaxed) != 0 {
            let since = self.asleep_since.swap(0, Ordering::Relaxed);
            self.last_sleep.store(clock().saturating_sub(since), Ordering::Relaxed);
        }
    }

    /// Waits awake until `news` is true; false if it was not worth it or not in time: then the caller goes to sleep.
    /// `who` tells the connections of a thread apart.
    pub(crate) fn wait(&self, who: usize, mut news: impl FnMut() -> bool) -> bool {
        match self.how {
            BusyPoll::Off => false,
            BusyPoll::For(limit) => spin(limit, &mut news).is_some(),
            BusyPoll::Adaptive => {
                let found = self.worth_it(who).is_some_and(|limit| self.adaptive(limit, &mut news));
                if !found && self.asleep_since.load(Ordering::Relaxed) == 0 {
                    self.asleep_since.store(clock(), Ordering::Relaxed);
                }
                found
            }
        }
    }

    /// For how long to stay awake, if at all.
    fn worth_it(&self, who: usize) -> Option<Duration> {
        if LAST.replace(who) != who || !has_second_cpu() {
            return None;
        }
        let last = Duration::from_nanos(self.last_sleep.load(Ordering::Relaxed));
        let short = last <= PROBE;
        let skip = self.skip.load(Ordering::Relaxed);
        if skip > 0 {
            self.skip.store(skip.saturating_sub(if short { SHORT_WAIT } else { 1 }), Ordering::Relaxed);
            return None;
        }
        Some(if short { PROBE } else { PAYS })
    }

    fn adaptive(&self, limit: Duration, news: &mut dyn FnMut() -> bool) -> bool {
        let took = spin(limit, news);
        match took {
            Some(took) if took <= PAYS => {
                self.penalty.store(0, Ordering::Relaxed);
                self.late.store(0, Ordering::Relaxed);
                self.last_sleep.store(0, Ordering::Relaxed);
            }
            Some(_) if self.late.load(Ordering::Relaxed) < PATIENCE => {
                self.late.fetch_add(1, Ordering::Relaxed);
            }
            _ => self.punish(),
        }
        took.is_some()
    }

    fn punish(&self) {
        let penalty = (self.penalty.load(Ordering::Relaxed) * 2 + 1).min(MAX_SKIP);
        self.penalty.store(penalty, Ordering::Relaxed);
        self.skip.store(penalty, Ordering::Relaxed);
        self.late.store(0, Ordering::Relaxed);
    }
}

/// Looks for news until the time is over; says how long it took.
fn spin(limit: Duration, news: &mut dyn FnMut() -> bool) -> Option<Duration> {
    let start = Instant::now();
    loop {
        // The clock costs as much as several looks.
        for _ in 0..16 {
            if news() {
                return Some(start.elapsed());
            }
            std::hint::spin_loop();
        }
        if start.elapsed() >= limit {
            return None;
        }
    }
}

/// Nanoseconds since some moment of this process; never zero.
fn clock() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// Whether the machine has a second processor. Not whether this thread may use it: the peer may run there.
fn has_second_cpu() -> bool {
    static MANY: OnceLock<bool> = OnceLock::new();
    *MANY.get_or_init(|| {
        // A list like "0-3,8"; a single number is a single processor.
        std::fs::read_to_string("/sys/devices/system/cpu/online")
            .is_ok_and(|list| list.trim().parse::<u32>().is_err())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_never_looks() {
        assert!(!Spinner::new(BusyPoll::Off).wait(1, || panic!("looked")));
    }

    #[test]
    fn busy_poll_gives_up_in_time() {
        assert!(!Spinner::new(BusyPoll::For(Duration::from_micros(50))).wait(1, || false));
        assert!(Spinner::new(BusyPoll::For(Duration::ZERO)).wait(1, || true));
    }

    #[test]
    fn looking_in_vain_is_punished() {
        let s = Spinner::new(BusyPoll::Adaptive);
        let looks = Cell::new(0u32);
        for _ in 0..5000 {
            s.wait(7, || {
                looks.set(looks.get() + 1);
                false
            });
        }
        let after = s.penalty.load(Ordering::Relaxed);
        assert!(after == 0 && looks.get() == 0 || after >= 1023, "single processor, or backed off: {after}");
    }

    #[test]
    fn connections_that_take_turns_on_a_thread_do_not_stay_awake() {
        let (a, b) = (Spinner::new(BusyPoll::Adaptive), Spinner::new(BusyPoll::Adaptive));
        for _ in 0..10 {
            assert!(!a.wait(1, || true));
            assert!(!b.wait(2, || true));
        }
    }

    #[test]
    fn short_sleeps_are_tried_awake() {
        let s = Spinner::new(BusyPoll::Adaptive);
        assert!(!s.wait(3, || true), "the first wait of a thread sleeps");
        s.awake();
        assert!(s.last_sleep.load(Ordering::Relaxed) < u64::MAX);
    }
}
