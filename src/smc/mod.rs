//! SMC-D connections.
//!
//! The pure half knows cursors and ring arithmetic, what to send and what was received, and how a connection ends. A
//! connection joins it to the memory that a DIBS device shares. On top of that, streams and listeners of tokio wait,
//! and establish connections by CLC. Those that block are in [`blocking`](crate::blocking).

// What tells whether a stream is ready, urgent bytes, and the handshake with prior knowledge have no front end but that of
// tokio.
#![cfg_attr(not(feature = "tokio"), allow(dead_code))]

pub(crate) mod awake;
mod cdc;
mod close;
mod config;
pub(crate) mod connection;
mod cursor;
mod error;
#[cfg(feature = "tokio")]
mod establish;
pub(crate) mod established;
mod group_event;
#[cfg(feature = "tokio")]
mod half;
pub(crate) mod hybrid;
pub(crate) mod in_band;
mod link_group;
#[cfg(feature = "tokio")]
mod listener;
#[cfg(feature = "tokio")]
mod listener_socket;
mod local;
mod misbehaved;
mod negotiation;
mod outlet;
#[cfg(test)]
pub(crate) mod pair;
mod pnet;
#[cfg(feature = "tokio")]
mod promoted;
mod receiver;
mod returning;
pub(crate) mod scatter;
mod sender;
#[cfg(feature = "tokio")]
mod smcd;
#[cfg(feature = "tokio")]
mod socket;
pub(crate) mod spin;
#[cfg(feature = "tokio")]
pub mod split;
#[cfg(feature = "tokio")]
pub mod split_owned;
mod stack;
#[cfg(feature = "stack")]
mod stack_stream;
#[cfg(feature = "tokio")]
mod stream;
#[cfg(feature = "tokio")]
mod stream_io;
#[cfg(feature = "tokio")]
mod stream_options;
mod transport;
#[cfg(feature = "tokio")]
mod watched;
mod words;

pub use config::{DEFAULT_RECEIVE_BUFFER, DebugOutput, Handshake, InvalidSetting, SmcConfig};
pub use connection::ByteCounts;
pub use error::ConnectionError;
pub use in_band::EstablishError;
#[cfg(feature = "tokio")]
pub use listener::SmcListener;
pub use misbehaved::PeerMisbehaved;
pub use pnet::PnetInterface;
#[cfg(feature = "tokio")]
pub use socket::SmcSocket;
pub use spin::BusyPoll;
pub use stack::{Stack, StackTotals};
#[cfg(feature = "stack")]
pub use stack_stream::SmcStackStream;
#[cfg(feature = "tokio")]
pub use stream::SmcStream;
pub use transport::Transport;
