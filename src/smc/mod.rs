//! SMC-D connections.

mod cdc;
mod close;
mod connection;
mod cursor;
mod error;
mod link_group;
mod outlet;
#[cfg(test)]
mod pair;
mod receiver;
mod sender;
#[cfg(feature = "tokio")]
mod smcd;
mod spin;
mod stack;
#[cfg(feature = "tokio")]
mod watched;

pub use connection::ByteCounts;
pub use error::{ConnectionError, PeerMisbehaved};
pub use spin::BusyPoll;
pub use stack::Stack;
