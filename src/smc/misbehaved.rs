//! What a correct peer never does.

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
