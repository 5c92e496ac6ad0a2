//! What a correct peer never does.

use super::words::{join, split};

/// The peer wrote something into our DMB that a correct peer never writes. The connection is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// A cursor that is no position, or lies more than a ring ahead or behind.
    #[error("the peer's cursor {seen:?} cannot follow {from:?} in a ring of {ring} bytes")]
    Cursor {
        /// Lap and offset as the peer wrote them.
        seen: (u16, u32),
        /// Lap and offset that they are measured from.
        from: (u16, u32),
        /// Bytes in the ring.
        ring: u32,
    },
    /// The peer confirmed more than it was sent.
    #[error("the peer confirmed {confirmed} bytes where {outstanding} were outstanding")]
    Confirmed {
        /// Bytes confirmed.
        confirmed: u32,
        /// Bytes that could be.
        outstanding: u32,
    },
    /// The peer took back bytes that it had published.
    #[error("the peer published {now} unread bytes where there were {before}")]
    TakenBack {
        /// Unread bytes by the new cursor.
        now: u32,
        /// Unread bytes by the old one.
        before: u32,
    },
}

/// A snapshot of it: which one, and its numbers.
impl PeerMisbehaved {
    pub(crate) fn to_words(self) -> (u8, [u64; 2]) {
        match self {
            Self::Cursor { seen, from, ring } => {
                let laps = u32::from(seen.0) << 16 | u32::from(from.0);
                (1, [join(seen.1, from.1), join(ring, laps)])
            }
            Self::Confirmed { confirmed, outstanding } => (2, [join(confirmed, outstanding), 0]),
            Self::TakenBack { now, before } => (3, [join(now, before), 0]),
        }
    }

    pub(crate) fn from_words(kind: u8, [first, second]: [u64; 2]) -> Option<Self> {
        let ((a, b), (ring, laps)) = (split(first), split(second));
        match (kind, second) {
            (1, _) => {
                let (seen, from) = (((laps >> 16) as u16, a), (laps as u16, b));
                Some(Self::Cursor { seen, from, ring })
            }
            (2, 0) => Some(Self::Confirmed { confirmed: a, outstanding: b }),
            (3, 0) => Some(Self::TakenBack { now: a, before: b }),
            _ => None,
        }
    }
}
