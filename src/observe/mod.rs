//! Seeing what happens: the live connections and the counters of each process of a user.
//!
//! A process keeps what it counts in a *registry*: a memfd that it holds open. Nobody has to be asked for it and nothing
//! is left of it when the process dies, however it dies. [`processes`] finds the registries of all processes of this
//! user, and reads them. A registry is made with the first connection that is recorded; `layout.rs` says what is in it.
//!
//! A connection gets a *record* of its own when it begins to negotiate, or when it was due for that and stays TCP. All
//! others, those that are too short to be promoted, are counted together when they end. With
//! [`SmcConfig::observe`](crate::SmcConfig::observe) each connection has a record from its first byte on.
//!
//! What costs time counts plainly: the words of a record have one writer at any time, so that counting a message is a
//! few additions without a lock. What a process counts as a whole is put together by whoever reads it.
//!
//! A process that may be killed before it can be looked at hands its registry to a [`Collector`], if the environment
//! variable `SMCD_COLLECTOR` names one.
//!
//! # Examples
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! for process in smcd::observe::processes()? {
//!     let snapshot = process.snapshot()?;
//!     for connection in &snapshot.connections {
//!         println!("{}: {} to {}", process.pid(), connection.local, connection.peer);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod collector;
mod counters;
mod free_list;
mod layout;
mod process;
mod reason;
mod record;
mod registry;
mod snapshot;
mod source;
mod tally;
mod totals;
mod trace;
mod tracer;

use std::os::fd::RawFd;

pub use collector::Collector;
pub use counters::{ByWay, Flow, SIZE_CLASSES, Sizes};
pub use process::{Process, processes};
pub use reason::Reason;
pub use snapshot::{Connection, Mode, Snapshot, State};
pub use source::BadRegistry;
pub use totals::{Fallback, Share, Totals};
pub use tracer::{CdcEvent, Tracer};

pub(crate) use layout::Direction;
pub(crate) use record::Phase;
pub(crate) use tally::{Meter, Tally};
pub(crate) use trace::CdcWord;

use registry::Book;

/// To be called in a child after `fork`, before it does anything else with a connection: what it does with connections of
/// its parent does not count for that any more. Its own count anyway, in a registry of its own.
pub fn after_fork() {
    Book::forget_inherited();
}

/// A handshake in band has come to nothing because something went wrong.
pub(crate) fn count_handshake_error() {
    Book::own().add(layout::total::HANDSHAKE_ERRORS, 1);
}

/// The descriptor of this process' registry, if there is one: a program that closes descriptors which it did not open
/// would make the process invisible.
pub fn descriptor() -> Option<RawFd> {
    Book::own().registry().and_then(registry::Registry::descriptor)
}
