//! What a process has done so far.

use super::{
    counters::Flow,
    layout::{flow, total},
    reason::{NUMBERS, Reason},
};

/// How many connections stayed TCP for a reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Fallback {
    /// Why.
    pub reason: Reason,
    /// How many.
    pub count: u64,
}

/// What a process has done so far, or several.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Totals {
    /// Connections that were begun.
    pub seen: u64,
    /// Connections on which both ends have agreed on SMC-D.
    pub promoted: u64,
    /// Connections that were closed.
    pub closed: u64,
    /// Connections for which the registry had no room.
    pub unrecorded: u64,
    /// Handshakes that came to nothing because something went wrong.
    pub handshake_errors: u64,
    /// What came in. Of connections that live and have no record, nothing yet.
    pub received: Flow,
    /// What went out, in the same way.
    pub sent: Flow,
    /// Connections that stay TCP after they were due, by the reason.
    pub fallbacks: Vec<Fallback>,
}

impl Totals {
    /// Takes the words of [`total`]; those that are missing are zero.
    pub(super) fn of_words(words: &[u64]) -> Self {
        let word = |at: usize| words.get(at).copied().unwrap_or(0);
        let flow = |at: usize| Flow::of_words(words.get(at..at + flow::LEN).unwrap_or_default());
        let fallbacks: Vec<_> = (0..NUMBERS)
            .filter_map(|number| {
                let count = word(total::FALLBACKS + number);
                Reason::counted(number).filter(|_| count > 0).map(|reason| Fallback { reason, count })
            })
            .collect();
        let failed = fallbacks.iter().filter(|fallback| fallback.reason.is_error());
        let failed = failed.fold(0u64, |sum, fallback| sum.saturating_add(fallback.count));
        let [received, sent] = total::FLOWS.map(flow);
        Self {
            seen: word(total::SEEN),
            promoted: word(total::PROMOTED),
            closed: word(total::CLOSED),
            unrecorded: word(total::UNRECORDED),
            handshake_errors: word(total::HANDSHAKE_ERRORS).saturating_add(failed),
            received,
            sent,
            fallbacks,
        }
    }

    /// Adds what another process has done.
    pub fn add(&mut self, other: &Self) {
        let add = |to: &mut u64, n: u64| *to = to.saturating_add(n);
        add(&mut self.seen, other.seen);
        add(&mut self.promoted, other.promoted);
        add(&mut self.closed, other.closed);
        add(&mut self.unrecorded, other.unrecorded);
        add(&mut self.handshake_errors, other.handshake_errors);
        self.received += other.received;
        self.sent += other.sent;
        for fallback in &other.fallbacks {
            match self.fallbacks.iter_mut().find(|known| known.reason == fallback.reason) {
                Some(known) => add(&mut known.count, fallback.count),
                None => self.fallbacks.push(*fallback),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_two_processes() {
        let mut words = [0; 192];
        words[total::SEEN] = 3;
        words[total::FALLBACKS + 3] = 2;
        words[total::FALLBACKS + 5] = 1;
        words[total::FLOWS[1] + flow::TCP_BYTES] = 10;
        let one = Totals::of_words(&words);
        assert_eq!((one.seen, one.sent.tcp.bytes, one.handshake_errors), (3, 10, 1));
        let mut sum = one.clone();
        words[total::FALLBACKS + 1] = 7;
        sum.add(&Totals::of_words(&words));
        let counts: Vec<_> = sum.fallbacks.iter().map(|f| (f.reason.name, f.count)).collect();
        assert_eq!(counts, [("peer-not-local", 4), ("peer-left", 2), ("disabled", 7)]);
        assert_eq!(sum.sent.tcp.bytes, 20);
    }

    #[test]
    fn any_words_are_totals() {
        let mut sum = Totals::of_words(&[u64::MAX; 192]);
        sum.add(&Totals::of_words(&[u64::MAX; 192]));
        assert_eq!(sum.handshake_errors, u64::MAX);
        assert_eq!(Totals::of_words(&[]), Totals::default());
    }
}
