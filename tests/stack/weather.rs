//! Paths that lose, hold up, double and reorder frames, by a seed.

use std::time::Duration;

use smcd::tcp_fallback::stack::memory::{Arrival, Path, Way};

use crate::random::Random;

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
