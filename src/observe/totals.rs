//! What a process has done so far.

use super::{
    counters::Flow,
    layout::{flow, total},
    reason::{NUMBERS, Reason},
    snapshot::Connection,
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

/// A part of the connections, and what they carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Share {
    /// How many.
    pub connections: u64,
    /// What came in.
    pub received: Flow,
    /// What went out.
    pub sent: Flow,
}

impl Share {
    fn add(&mut self, other: &Self) {
        self.connections = self.connections.saturating_add(other.connections);
        self.received += other.received;
        self.sent += other.sent;
    }
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
    /// Connections with a record whose peer is on this host: those that can be SMC-D.
    pub eligible: Share,
    /// Those of them that have carried enough to be promoted by the default policy.
    pub well_suited: Share,
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
        let share = |connections: usize, flows: [usize; 2]| {
            let [received, sent] = flows.map(flow);
            Share { connections: word(connections), received, sent }
        };
        Self {
            seen: word(total::SEEN),
            promoted: word(total::PROMOTED),
            closed: word(total::CLOSED),
            unrecorded: word(total::UNRECORDED),
            handshake_errors: word(total::HANDSHAKE_ERRORS).saturating_add(failed),
            received,
            sent,
            eligible: share(total::ELIGIBLE, total::ELIGIBLE_FLOWS),
            well_suited: share(total::SUITED, total::SUITED_FLOWS),
            fallbacks,
        }
    }

    /// Adds what a connection has counted that lives.
    pub(super) fn add_live(&mut self, connection: &Connection) {
        let (received, sent) = (connection.received, connection.sent);
        self.received += received;
        self.sent += sent;
        if connection.eligible == Some(true) {
            let share = Share { connections: 1, received, sent };
            self.eligible.add(&share);
            if connection.is_well_suited() {
                self.well_suited.add(&share);
            }
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
        self.eligible.add(&other.eligible);
        self.well_suited.add(&other.well_suited);
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
    use super::{super::layout::TOTALS_LEN, *};

    #[test]
    fn sums_of_two_processes() {
        let mut words = [0; TOTALS_LEN];
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
        let mut sum = Totals::of_words(&[u64::MAX; TOTALS_LEN]);
        sum.add(&Totals::of_words(&[u64::MAX; TOTALS_LEN]));
        assert_eq!(sum.handshake_errors, u64::MAX);
        assert_eq!(Totals::of_words(&[]), Totals::default());
    }
}
