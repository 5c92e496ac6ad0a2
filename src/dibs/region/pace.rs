//! How often a device looks into its region.

use std::time::Duration;

/// With a doorbell, only in case that a ring was lost: in memory that all share, anybody can take another's.
const BELLED: Duration = Duration::from_millis(200);
/// Without, soon after there was something.
const SHORTEST: Duration = Duration::from_micros(50);
/// Without, if there was nothing for a while.
const LONGEST: Duration = Duration::from_millis(1);
/// Without, if there is no DMB that somebody could write into.
const IDLE: Duration = Duration::from_millis(10);
/// So many looks in vain before they become rarer.
const PATIENCE: u32 = 40;

/// Says how long to wait before the next look.
#[derive(Debug)]
pub(super) struct Pace {
    is_belled: bool,
    in_vain: u32,
    is_idle: bool,
}

impl Pace {
    pub(super) fn new(is_belled: bool) -> Self {
        Self { is_belled, in_vain: 0, is_idle: true }
    }

    /// How long to wait.
    pub(super) fn next(&self) -> Duration {
        if self.is_belled {
            BELLED
        } else if self.is_idle {
            IDLE
        } else {
            let doublings = (self.in_vain / PATIENCE).min(8);
            (SHORTEST * (1 << doublings)).min(LONGEST)
        }
    }

    /// There was something to be seen, or not; and there is something that could be signalled, or not.
    pub(super) fn looked(&mut self, has_news: bool, is_idle: bool) {
        self.in_vain = if has_news { 0 } else { self.in_vain.saturating_add(1) };
        self.is_idle = is_idle;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_become_rarer_until_there_is_news() {
        let mut pace = Pace::new(false);
        assert_eq!(pace.next(), IDLE);
        pace.looked(true, false);
        assert_eq!(pace.next(), SHORTEST);
        let mut before = pace.next();
        for _ in 0..1000 {
            pace.looked(false, false);
            assert!(pace.next() >= before);
            before = pace.next();
        }
        assert_eq!(before, LONGEST);
        pace.looked(true, false);
        assert_eq!(pace.next(), SHORTEST);
    }

    #[test]
    fn with_a_doorbell_looks_are_rare() {
        let mut pace = Pace::new(true);
        pace.looked(true, false);
        assert_eq!(pace.next(), BELLED);
    }
}
