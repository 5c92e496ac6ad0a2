//! Who agrees to what: the handshake of client and server as state machines.
//!
//! Each state is a value; the handler that takes a message consumes it and gives the next one:
//!
//! ```text
//! client  propose -> ExpectAccept -Accept-> Accepted -confirm-> Agreed
//! server  ExpectProposal -Proposal-> Offered -accept-> ExpectConfirm -Confirm-> Agreed
//! ```
//!
//! [`Agreed`] cannot be had in any other way. Nothing here reads a clock or moves a byte: messages and times are
//! arguments, messages are results. While a state waits, its `deadline` says until when; at that time or later,
//! `handle_timeout` ends the handshake.
//!
//! A handshake that fails does so with a [`HandshakeError`], which says what to do: send a Decline and go on with
//! TCP, go on with TCP, or give up the connection.
//!
//! The decisions and their order are those of Linux 7.3. In addition, what Linux leaves unchecked is checked: the
//! size of the peer's DMB element, the EID, the identity of the client in its Confirm, and the presence of the
//! first contact extension.

mod agreed;
pub mod client;
mod error;
mod local;
pub mod server;
mod wait;

pub use agreed::{Agreed, OwnDmb, PeerDmb, PeerInfo, Terms};
pub use error::{HandshakeError, Violation};
pub use local::{CLC_WAIT, Local, LocalDevice, LocalV1, Vlan};
