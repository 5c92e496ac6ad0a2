//! What lies where in a registry.
//!
//! All is words of 64 bits, in the byte order of the host. Offsets are in words.
//!
//! ```text
//!      0  header: MAGIC, LAYOUT, PID, STARTED, FRESH, FOLDS_BEGUN, FOLDS_ENDED; TRACE, TRACE_HEAD
//!     64  totals: of connections, by direction, by reason for staying TCP
//!    512  RECORDS records of RECORD_WORDS words: one for each connection
//!  TRACE_AT  EVENTS events of EVENT_WORDS words
//! ```
//!
//! The file is sparse: only what was ever used takes memory.
//!
//! The description of a record is guarded by its word SEQ, which is odd while the description changes. The counters are
//! not: each is right by itself. When a connection ends its counters are added to the totals; that is why the totals of
//! a process are those in the header and those of all live records together. FOLDS_BEGUN and FOLDS_ENDED differ while
//! that happens.

/// "SMCDREG" and a digit that changes with the layout.
pub(super) const MAGIC_VALUE: u64 = u64::from_be_bytes(*b"SMCDREG2");

/// Name of the memfd.
pub(super) const NAME: &str = "smcd-registry";

pub(super) const MAGIC: usize = 0;
/// Words and number of the records, number of events, so that a reader finds out whether it counts as the writer does.
pub(super) const LAYOUT: usize = 1;
/// As the process itself sees it.
pub(super) const PID: usize = 2;
/// Nanoseconds since 1970.
pub(super) const STARTED: usize = 3;
/// Records that have ever been used: the first ones.
pub(super) const FRESH: usize = 4;
pub(super) const FOLDS_BEGUN: usize = 5;
pub(super) const FOLDS_ENDED: usize = 6;
/// Zero unless CDC messages are traced; see [`super::trace`]. In a cache line of its own: it is read at each message.
pub(super) const TRACE: usize = 16;
/// Events that have ever been written.
pub(super) const TRACE_HEAD: usize = 24;

pub(super) const TOTALS: usize = 64;
pub(super) const TOTALS_LEN: usize = 320;
pub(super) const RECORDS_AT: usize = 512;
pub(super) const RECORD_WORDS: usize = 64;
pub(super) const RECORDS: usize = 16 * 1024;
pub(super) const TRACE_AT: usize = RECORDS_AT + RECORDS * RECORD_WORDS;
pub(super) const EVENT_WORDS: usize = 16;
pub(super) const EVENTS: usize = 16 * 1024;

/// Words in a registry.
pub(super) const LEN: usize = TRACE_AT + EVENTS * EVENT_WORDS;

/// The value of the word [`LAYOUT`].
pub(super) const LAYOUT_VALUE: u64 =
    ((RECORD_WORDS as u64) << 48) | ((EVENT_WORDS as u64) << 40) | ((RECORDS as u64) << 20) | EVENTS as u64;

/// Words of a record.
pub(super) mod field {
    /// Odd while the description changes. Zero in a record that was never used.
    pub(crate) const SEQ: usize = 0;
    /// Phase, whether closed, whether eligible, whether in band (a byte each), and the number of the reason (16 bits).
    pub(crate) const STATUS: usize = 1;
    /// Code of the reason, and the diagnosis of the peer.
    pub(crate) const REASON: usize = 2;
    /// Bytes of the ring that is read from, and of the one that is written to (32 bits each).
    pub(crate) const RINGS: usize = 3;
    /// Two words, an IPv6 address; one of IPv4 in IPv6 form.
    pub(crate) const LOCAL: usize = 4;
    pub(crate) const PEER: usize = 6;
    /// Local and peer port, 16 bits each.
    pub(crate) const PORTS: usize = 8;
    pub(crate) const COOKIE: usize = 9;
    pub(crate) const INODE: usize = 10;
    /// Two words.
    pub(crate) const GID: usize = 11;
    pub(crate) const PEER_GID: usize = 13;
    /// Nanoseconds since 1970.
    pub(crate) const SINCE: usize = 15;
    /// Words of the description.
    pub(crate) const DESCRIPTION: usize = 16;
    /// Where the counters of what comes in lie, and of what goes out: in cache lines of their own.
    pub(crate) const FLOWS: [usize; 2] = [16, 40];
}

/// Words of the counters of one direction, in a record and in the totals.
pub(super) mod flow {
    pub(crate) const RING_BYTES: usize = 0;
    pub(crate) const RING_CALLS: usize = 1;
    pub(crate) const TCP_BYTES: usize = 2;
    pub(crate) const TCP_CALLS: usize = 3;
    /// How often the peer had to be woken.
    pub(crate) const WAKEUPS: usize = 4;
    /// Calls by the size of what they carried.
    pub(crate) const SIZES: usize = 5;
    /// Words in all.
    pub(crate) const LEN: usize = 24;
}

/// Words of the totals.
pub(super) mod total {
    /// Connections that were begun.
    pub(crate) const SEEN: usize = 0;
    /// Both ends have agreed on SMC-D.
    pub(crate) const PROMOTED: usize = 1;
    pub(crate) const CLOSED: usize = 2;
    /// Connections for which there was no record.
    pub(crate) const UNRECORDED: usize = 3;
    /// Handshakes in band that have failed.
    pub(crate) const HANDSHAKE_ERRORS: usize = 4;
    /// Counters of what came in, and of what went out, of connections that have ended.
    pub(crate) const FLOWS: [usize; 2] = [8, 32];
    /// Connections that have ended with a record and whose peer was on this host.
    pub(crate) const ELIGIBLE: usize = 5;
    /// Those of them that carried enough to be worth it.
    pub(crate) const SUITED: usize = 6;
    /// Connections that stay TCP, by the number of the reason.
    pub(crate) const FALLBACKS: usize = 64;
    /// As FLOWS, of connections whose peer was on this host.
    pub(crate) const ELIGIBLE_FLOWS: [usize; 2] = [160, 184];
    /// As FLOWS, of those of them that carried enough to be worth it.
    pub(crate) const SUITED_FLOWS: [usize; 2] = [208, 232];
}

/// Which way bytes go, as this end sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// To us.
    In,
    /// To the peer.
    Out,
}

const _: () = assert!(flow::SIZES + super::counters::CLASSES <= flow::LEN);
const _: () = assert!(field::FLOWS[1] + flow::LEN <= RECORD_WORDS);
const _: () = assert!(total::FALLBACKS + super::reason::NUMBERS <= total::ELIGIBLE_FLOWS[0]);
const _: () = assert!(total::SUITED_FLOWS[1] + flow::LEN <= TOTALS_LEN);
const _: () = assert!(TOTALS + TOTALS_LEN <= RECORDS_AT);
