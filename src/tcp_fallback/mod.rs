//! The TCP connection below SMC-D: how the peer's capability is found out, and what it means to stay TCP.

#[cfg(feature = "tokio")]
pub(crate) mod detect;
mod reason;

pub use reason::FallbackReason;
