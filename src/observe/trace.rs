//! CDC messages that are written down for a tracer.
//!
//! A tracer switches it on by the word TRACE of the registry: the highest bit, then the second of the monotonic clock
//! until which it is on, and in the lowest 16 bits the port of the connections that are meant, or zero for all. A tracer
//! that goes on renews it; if one dies, it is over by itself.
//!
//! An event says that this process has published a CDC message, and holds all that is needed to make sense of it.

use std::{
    sync::atomic::{Ordering, fence},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};

use super::{
    layout::{EVENT_WORDS, EVENTS, TRACE, TRACE_AT, TRACE_HEAD, field},
    record::Record,
};

/// Words of an event.
pub(super) mod event {
    /// The number of the event, plus one; zero while it is written.
    pub(crate) const SEQ: usize = 0;
    /// Nanoseconds since 1970.
    pub(crate) const TIME: usize = 1;
    /// Which words of the CDC message were published.
    pub(crate) const WHICH: usize = 2;
    pub(crate) const PROD: usize = 3;
    pub(crate) const CONS: usize = 4;
    /// Two words.
    pub(crate) const LOCAL: usize = 5;
    /// Two words.
    pub(crate) const PEER: usize = 7;
    pub(crate) const PORTS: usize = 9;
    pub(crate) const COOKIE: usize = 10;
    pub(crate) const RINGS: usize = 11;
}

/// Which words of a CDC message are published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CdcWord {
    /// The producer cursor.
    Prod = 1,
    /// The consumer cursor and the flags.
    Cons = 2,
    /// All of it, as a device moves it.
    Both = 3,
}

const ON: u64 = 1 << 63;

/// The value of the word that has this port traced for so many seconds from now on.
pub(super) fn control(port: u16, seconds: u64) -> u64 {
    ON | ((now().saturating_add(seconds) & 0x7fff_ffff_ffff) << 16) | u64::from(port)
}

/// Seconds for which a control word is still on.
pub(super) fn seconds_left(control: u64) -> u64 {
    if control & ON == 0 {
        return 0;
    }
    ((control & !ON) >> 16).saturating_sub(now())
}

fn now() -> u64 {
    u64::try_from(clock_gettime(ClockId::Monotonic).tv_sec).unwrap_or(0)
}

/// Writes an event down, if this connection is meant.
#[cold]
pub(super) fn emit(record: &Record, control: u64, which: CdcWord, (prod, cons): (u64, u64)) {
    let registry = record.registry();
    if seconds_left(control) == 0 {
        if let Some(word) = registry.word(TRACE) {
            // Unless a tracer has just renewed it.
            let _ = word.compare_exchange(control, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        return;
    }
    let (port, ports) = (control as u16, record.described(field::PORTS));
    if port != 0 && port != ports as u16 && port != (ports >> 16) as u16 {
        return;
    }
    let Some(index) = registry.word(TRACE_HEAD).map(|head| head.fetch_add(1, Ordering::AcqRel)) else {
        return;
    };
    let slot = TRACE_AT + (index % EVENTS as u64) as usize * EVENT_WORDS;
    let Some(words) = registry.words::<EVENT_WORDS>(slot) else { return };
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    words[event::SEQ].store(0, Ordering::Relaxed);
    // Who sees anything of what follows sees the zero too.
    fence(Ordering::Release);
    let set = |at: usize, value: u64| words[at].store(value, Ordering::Relaxed);
    set(event::TIME, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    set(event::WHICH, which as u64);
    set(event::PROD, prod);
    set(event::CONS, cons);
    set(event::PORTS, ports);
    for (to, from) in [
        (event::LOCAL, field::LOCAL),
        (event::LOCAL + 1, field::LOCAL + 1),
        (event::PEER, field::PEER),
        (event::PEER + 1, field::PEER + 1),
        (event::COOKIE, field::COOKIE),
        (event::RINGS, field::RINGS),
    ] {
        set(to, record.described(from));
    }
    words[event::SEQ].store(index.wrapping_add(1), Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_word_says_how_long() {
        let word = control(7000, 5);
        assert_eq!(word as u16, 7000);
        assert!((4..=5).contains(&seconds_left(word)));
        assert_eq!(seconds_left(0), 0);
        assert_eq!(seconds_left(control(0, 0)), 0);
        assert!(seconds_left(u64::MAX) > 0, "nonsense is a long time");
    }
}
