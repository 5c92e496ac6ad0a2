//! Paths that lose, hold up, double and reorder frames, by a seed.

use std::time::Duration;

use smcd::tcp_fallback::stack::memory::{Arrival, Path, Way};

/// A small generator, so that a run can be told by its seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn percent(&mut self, of: u64) -> bool {
        self.next() % 100 < of
    }
}

/// How bad a path is. Each of the three is in percent of the frames.
pub(crate) struct Weather {
    pub(crate) random: Random,
    pub(crate) loss: u64,
    pub(crate) doubled: u64,
    pub(crate) late: u64,
    /// How long each frame takes, and how much longer those do that are late: others overtake them.
    pub(crate) delay: Duration,
    pub(crate) lateness: Duration,
}

impl Weather {
    pub(crate) fn fair(seed: u64) -> Self {
        let delay = Duration::from_millis(5);
        Self { random: Random::new(seed), loss: 0, doubled: 0, late: 0, delay, lateness: delay * 10 }
    }
}

impl Path for Weather {
    fn carry(&mut self, _: Way, frame: Vec<u8>) -> Vec<Arrival> {
        let copies = if self.random.percent(self.loss) {
            0
        } else if self.random.percent(self.doubled) {
            2
        } else {
            1
        };
        let mut arrivals = Vec::new();
        for _ in 0..copies {
            let late = self.random.percent(self.late);
            arrivals.push((self.delay + if late { self.lateness } else { Duration::ZERO }, frame.clone()));
        }
        arrivals
    }
}
