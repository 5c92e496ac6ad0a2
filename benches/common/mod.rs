//! What the benches share: the transports that are compared, and a process at the other end of each.
//!
//! Every measurement has a process of its own at the other end, pinned to a processor of its own. Both ends run the
//! same code for every transport; each knows its transport only as a [`Stream`].

// Each bench uses its part.
#![allow(dead_code)]

mod clock;
pub(crate) mod contender;
pub(crate) mod cpu;
pub(crate) mod figures;
pub(crate) mod peer;
pub(crate) mod process;
mod ring;
pub(crate) mod session;
mod stream;

pub(crate) use clock::Clock;
pub(crate) use contender::{Contender, Mode, Transport};
pub(crate) use peer::{Job, Peer};
pub(crate) use session::Session;
pub(crate) use stream::Stream;

/// Failures end a bench; nobody takes them apart.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Receivers read into a buffer of at least this size.
pub(crate) const READ_BUFFER: usize = 64 * 1024;
