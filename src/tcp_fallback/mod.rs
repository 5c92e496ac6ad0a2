//! The TCP connection below SMC-D: how the peer's capability is found out, and what it means to stay TCP.

pub(crate) mod detect;
mod prefix;
pub(crate) mod promotion;
mod reason;
mod receive;
#[cfg(feature = "stack")]
pub mod stack;
pub mod syn_option;

pub use prefix::{InvalidPrefix, IpPrefix};
pub use promotion::Promotion;
pub use reason::FallbackReason;
pub(crate) use receive::recv_into;
