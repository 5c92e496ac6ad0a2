//! Taking back bytes that were written and not read: how the two ends agree on whether the writer does so.
//!
//! The reader asks. The writer takes the request, sends the bytes by another way, and says how many it has sent. If
//! nobody takes the request, the reader withdraws it. How far that is stands in one word of the reader's DMB, and each
//! step that the two may want to take at the same time is one exchange of it:
//!
//! ```text
//!           ask             take              finish
//! Nothing ───────▶ Asked ──────────▶ Taken ────────────▶ Done(n)
//!    ▲    (reader)   │    (writer)          (writer)
//!    └───────────────┘
//!     withdraw (reader)
//! ```
//!
//! So nothing is done after a request that was withdrawn, and one that was taken is carried out, unless the writer dies
//! over it. The reader publishes its cursor before it asks, and consumes nothing until it has withdrawn, or knows how
//! much was sent. So who takes the request finds all that is unread by that cursor.
//!
//! Whatever else the peer writes to the word says something of the peer's own bytes alone.

use super::words::{join, split};
use crate::sync::{AtomicU64, Ordering};

const ASKED: u32 = 1;
const TAKEN: u32 = 2;
const DONE: u32 = 3;

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stand {
    /// Nobody has asked, or the request was withdrawn.
    Nothing,
    /// The reader asks for what is unread, less so many bytes at its beginning.
    Asked(u32),
    /// The writer is at it.
    Taken,
    /// The writer has sent so many bytes, from the beginning, and sends no more of them.
    Done(u32),
    /// Something that cannot be.
    Unknown,
}

impl Stand {
    fn to_word(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Asked(skip) => join(skip, ASKED),
            Self::Taken => join(0, TAKEN),
            Self::Done(sent) => join(sent, DONE),
            Self::Unknown => u64::MAX,
        }
    }

    fn from_word(word: u64) -> Self {
        match split(word) {
            (0, 0) => Self::Nothing,
            (skip, ASKED) => Self::Asked(skip),
            (0, TAKEN) => Self::Taken,
            (sent, DONE) => Self::Done(sent),
            _ => Self::Unknown,
        }
    }
}

fn exchange(word: &AtomicU64, from: Stand, to: Stand) -> Result<(), Stand> {
    let exchanged = word.compare_exchange(from.to_word(), to.to_word(), Ordering::AcqRel, Ordering::Acquire);
    exchanged.map(drop).map_err(Stand::from_word)
}

/// How far it is. What the writer did before is visible.
pub(crate) fn look(word: &AtomicU64) -> Stand {
    Stand::from_word(word.load(Ordering::Acquire))
}

/// The reader asks. It has published its cursor, and consumes nothing from now on.
pub(crate) fn ask(word: &AtomicU64, skip: u32) {
    // Release: who takes the request sees the cursor.
    word.store(Stand::Asked(skip).to_word(), Ordering::Release);
}

/// The reader withdraws its request, or finds that it is too late for that, and how far it is.
pub(crate) fn withdraw(word: &AtomicU64, skip: u32) -> Stand {
    exchange(word, Stand::Asked(skip), Stand::Nothing).map_or_else(|stand| stand, |()| Stand::Nothing)
}

/// The writer takes the request, if there is one: says how many bytes are to be left out. It has to
/// [`finish`] it.
pub(crate) fn take(word: &AtomicU64) -> Option<u32> {
    let Stand::Asked(skip) = look(word) else { return None };
    exchange(word, Stand::Asked(skip), Stand::Taken).ok().map(|()| skip)
}

/// The writer has sent so many bytes, and sends no more of them.
pub(crate) fn finish(word: &AtomicU64, sent: u32) {
    word.store(Stand::Done(sent).to_word(), Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::model;

    #[test]
    fn a_request_is_taken_once() {
        model(|| {
            let word = AtomicU64::new(0);
            assert_eq!(take(&word), None);
            ask(&word, 8);
            assert_eq!(take(&word), Some(8));
            assert_eq!((take(&word), withdraw(&word, 8)), (None, Stand::Taken));
            finish(&word, 100);
            assert_eq!((take(&word), withdraw(&word, 8)), (None, Stand::Done(100)));
        });
    }

    #[test]
    fn a_request_that_was_withdrawn_is_not_taken() {
        model(|| {
            let word = AtomicU64::new(0);
            ask(&word, 0);
            assert_eq!(withdraw(&word, 0), Stand::Nothing);
            assert_eq!((take(&word), look(&word)), (None, Stand::Nothing));
        });
    }

    #[test]
    fn a_scribbled_word_is_no_request() {
        model(|| {
            for scribbled in [u64::MAX, 7, join(1, TAKEN), join(0, 9)] {
                let word = AtomicU64::new(scribbled);
                assert_eq!((take(&word), look(&word)), (None, Stand::Unknown));
                assert_eq!(withdraw(&word, 0), Stand::Unknown);
            }
        });
    }
}
