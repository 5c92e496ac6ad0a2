//! How long an end waits for the other one to want SMC-D, too.
//!
//! Counting and looking cost something, and a peer without this library never comes. Nobody says that it has none; but a
//! peer that has it becomes due by the same traffic. So once there was far more of that than it takes, it will not come.

use std::time::{Duration, Instant};

use crate::observe::{Direction, Tally};

/// So many calls that have read something, and so many that have written: as many times the peer has written, and read.
const TURNS: u32 = 256;

/// More than what may be in the buffers of a TCP connection, so that the peer has written or read most of it.
const BYTES: u64 = 32 << 20;

/// The peer may have been in no position to come, and is given the time to get over it.
const LEAST: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug)]
pub(super) struct Hope {
    since: Instant,
    bytes: u64,
    calls: [u32; 2],
}

impl Hope {
    /// From now on the other end is waited for.
    pub(super) fn new(tally: &Tally) -> Self {
        Self { since: Instant::now(), bytes: tally.bytes(), calls: calls(tally) }
    }

    /// True if the peer would have come by now.
    pub(super) fn is_lost(&self, tally: &Tally) -> bool {
        let had_turns =
            calls(tally).into_iter().zip(self.calls).all(|(now, then)| now.saturating_sub(then) >= TURNS);
        let was_enough = had_turns || tally.bytes().saturating_sub(self.bytes) >= BYTES;
        was_enough && self.since.elapsed() >= LEAST
    }
}

fn calls(tally: &Tally) -> [u32; 2] {
    [Direction::In, Direction::Out].map(|direction| tally.calls_of(direction))
}
