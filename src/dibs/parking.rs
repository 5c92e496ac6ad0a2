//! Doorbell suppression: how a sleeper tells its peer that it wants to be rung, and a busy one that it need not.
//!
//! One 32-bit word for each thing that can be waited for lies in memory that both sides map. The sleeper arms it
//! and then *looks again* before it sleeps; the writer publishes and then looks at the word. A full fence between
//! the two steps on each side makes sure that at least one of them sees the other:
//!
//! ```text
//! sleeper: arm      ─ fence ─ look for news ─ sleep
//! writer:  publish  ─ fence ─ take the word ─ ring if it was armed
//! ```
//!
//! A peer that scribbles over the word causes needless wake-ups, or misses its own chance to wake us, which it could
//! do as well by not writing at all.

use crate::sync::{AtomicU32, Ordering, fence};

/// How a sleeper waits, and so how it has to be woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sleeper {
    /// An event loop waits for the interrupt's descriptor.
    EventLoop,
    /// A thread is blocked on the word itself (a futex).
    Thread,
}

impl Sleeper {
    /// The value of an armed word; zero is "nobody waits".
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::EventLoop => 1,
            Self::Thread => 2,
        }
    }
}

/// Announces that the owner of the word is about to sleep. It has to look for news once more afterwards.
pub(crate) fn arm(word: &AtomicU32, how: Sleeper) {
    // A swap, as in `take`: so all changes of the word stand in one order, each next to the one that it saw.
    word.swap(how.code(), Ordering::Relaxed);
    // Orders the arming before the second look; pairs with the fence in `take`.
    fence(Ordering::SeqCst);
}

/// Takes the announcement back: the owner is awake. False if a peer has taken it first, and rings or will ring.
pub(crate) fn disarm(word: &AtomicU32) -> bool {
    word.swap(0, Ordering::Relaxed) != 0
}

/// To be called after news were published: says who has to be rung, at most once for each arming.
#[inline]
pub(crate) fn take(word: &AtomicU32) -> Option<Sleeper> {
    // Orders the publication before the look at the word; pairs with the fence in `arm`.
    fence(Ordering::SeqCst);
    // The common case only reads, so that the line stays shared between the two processors.
    if word.load(Ordering::Relaxed) == 0 {
        return None;
    }
    match word.swap(0, Ordering::Relaxed) {
        0 => None,
        code if code == Sleeper::Thread.code() => Some(Sleeper::Thread),
        _ => Some(Sleeper::EventLoop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::model;

    #[test]
    fn an_armed_word_is_taken_once() {
        model(|| {
            let word = AtomicU32::new(0);
            assert_eq!(take(&word), None);
            arm(&word, Sleeper::Thread);
            assert_eq!(take(&word), Some(Sleeper::Thread));
            assert_eq!(take(&word), None);
        });
    }

    #[test]
    fn a_disarmed_word_rings_nobody() {
        model(|| {
            let word = AtomicU32::new(0);
            arm(&word, Sleeper::EventLoop);
            assert!(disarm(&word));
            assert_eq!(take(&word), None);
            assert!(!disarm(&word));
        });
    }

    #[test]
    fn a_scribbled_word_is_an_event_loop() {
        model(|| {
            let word = AtomicU32::new(0xdead_beef);
            assert_eq!(take(&word), Some(Sleeper::EventLoop));
        });
    }
}
