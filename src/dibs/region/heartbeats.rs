//! Knowing of each other's ends where nobody else tells: each endpoint changes a word all the time.

use std::time::{Duration, Instant};

use super::{
    layout::{Geometry, control},
    words::{get64, put64},
};
use crate::dibs::Memory;

/// How often an endpoint changes its word.
pub(super) const BEAT: Duration = Duration::from_millis(100);

/// An endpoint that has not changed its word for so long has come to its end.
const SILENCE: Duration = Duration::from_secs(5);

/// What is known of the hearts of others.
#[derive(Debug)]
pub(super) struct Heartbeats {
    geometry: Geometry,
    own: u64,
    beaten: Option<Instant>,
    others: Vec<Heart>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Heart {
    word: u64,
    /// When the word was last found changed. None until it was: what stands there may be of long ago.
    changed: Option<Instant>,
    was_seen: bool,
    is_alive: bool,
}

impl Heartbeats {
    pub(super) fn new(geometry: Geometry) -> Self {
        Self { geometry, own: 0, beaten: None, others: vec![Heart::default(); geometry.slots()] }
    }

    /// Changes the own word and looks at those of the others, if it is time to. To be called often.
    pub(super) fn beat(&mut self, memory: &Memory, slot: usize, now: Instant) {
        if self.beaten.is_some_and(|beaten| now.duration_since(beaten) < BEAT) {
            return;
        }
        let was_away = self.beaten.is_some_and(|beaten| now.duration_since(beaten) >= SILENCE);
        self.beaten = Some(now);
        self.own = self.own.wrapping_add(1);
        put64(memory, self.geometry.control(slot) + control::HEARTBEAT, self.own);
        for (slot, heart) in self.others.iter_mut().enumerate() {
            heart.look(get64(memory, self.geometry.control(slot) + control::HEARTBEAT), now, was_away);
        }
    }

    /// True if the endpoint at this slot has shown lately that it is there.
    pub(super) fn is_alive(&self, slot: usize) -> bool {
        self.others.get(slot).is_some_and(|heart| heart.is_alive)
    }
}

impl Heart {
    fn look(&mut self, word: u64, now: Instant, was_away: bool) {
        if !self.was_seen || was_away {
            // Who was away does not know how long the others were silent.
            self.changed = self.changed.map(|_| now);
        }
        if self.was_seen && word != self.word {
            self.changed = Some(now);
        }
        (self.word, self.was_seen) = (word, true);
        self.is_alive = self.changed.is_some_and(|changed| now.duration_since(changed) < SILENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heart_is_alive_from_its_first_beat_until_five_seconds_after_its_last() {
        let (mut heart, start) = (Heart::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        heart.look(7, at(0), false);
        assert!(!heart.is_alive, "the word may be of one that has long ended");
        heart.look(8, at(100), false);
        assert!(heart.is_alive);
        heart.look(8, at(5000), false);
        assert!(heart.is_alive);
        heart.look(8, at(5100), false);
        assert!(!heart.is_alive);
        heart.look(9, at(5200), false);
        assert!(heart.is_alive, "it was merely stopped");
    }

    #[test]
    fn who_was_away_takes_nobody_for_dead() {
        let (mut heart, start) = (Heart::default(), Instant::now());
        heart.look(1, start, false);
        heart.look(2, start + BEAT, false);
        heart.look(2, start + Duration::from_secs(60), true);
        assert!(heart.is_alive);
        heart.look(2, start + Duration::from_secs(65), false);
        assert!(!heart.is_alive);
    }
}
