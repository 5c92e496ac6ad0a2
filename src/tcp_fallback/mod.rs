//! The TCP connection below SMC-D: how the peer's capability is found out, and what it means to stay TCP.

#[cfg(feature = "tokio")]
pub(crate) mod detect;
pub(crate) mod promotion;
mod reason;
mod receive;
pub mod syn_option;

pub use promotion::Promotion;
pub use reason::FallbackReason;
pub(crate) use receive::recv_into;
