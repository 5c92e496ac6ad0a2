//! Connection Layer Control: the handshake by which two endpoints agree on SMC-D.
//!
//! The TCP client sends a [`Proposal`](wire::Proposal) of devices and EIDs; the server picks one of each and
//! answers with an [`Accept`](wire::Accept) that names its DMB; the client answers with a
//! [`Confirm`](wire::Confirm) that names its own. From there on the data moves through the DMBs. Either side may
//! send a [`Decline`](wire::Decline) in place of its message: the connection then is plain TCP, and the byte
//! after the Decline belongs to the application.
//!
//! - [`wire`] turns the bytes of the messages into values and back. Any bytes give a value or an error.
//! - [`handshake`] decides: one state machine for the client, one for the server, no I/O, no clock.
//! - [`exchange`] (but for its errors with the feature `tokio`) moves whole messages over a byte stream and never reads past one.
//!
//! The formats are those of SMC-D v1, v2 and v2.1; where the standard leaves room, Linux 7.3 is the reference.

mod decline_code;
pub mod exchange;
pub mod handshake;
pub mod wire;

pub use decline_code::DeclineCode;
