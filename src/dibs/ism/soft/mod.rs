//! ISM functions in software, all on one fabric: to test the driver on any machine, and to see how the hardware works.
//!
//! A [`SoftIsm`] has functions, and each is a [`Transport`](super::Transport) once it is opened. They take the commands that
//! the hardware takes, and what the hardware would refuse they refuse:
//!
//! - Nothing is answered before the configuration space allows it, and our memory is not touched before that allows it too.
//! - A function writes only into memory that was mapped for it, at each store anew. A function that finds nothing there has
//!   failed.
//! - DMBs have whole pages, lie within 1 MiB, and have an index that no other has. Only the function that was named may
//!   store into them.
//! - A store block lies within a page and has no more bytes than the function says.
//! - If they are told to (`SoftIsmSettings::needs_vlan`), functions are not found in no VLAN.
//! - An interrupt comes when the first signal, or the first event, is set in a page that has none.
//!
//! The hardware's codes of refusal are not known; those here ([`refusal`]) are of its own. Nor is it known which events
//! the hardware sends when a function goes: here all others are told, once.
//!
//! A function counts what it does ([`Counters`]), and fails when it is told to ([`Fault`]).

mod config;
mod counters;
mod dma;
mod fabric;
mod fault;
mod function;
mod model;
pub mod refusal;
#[cfg(feature = "vfio-user")]
mod server;
#[cfg(test)]
mod tests;

pub use counters::Counters;
pub use fabric::{SoftIsm, SoftIsmSettings};
pub use fault::{End, Fault};
pub use function::SoftFunction;
#[cfg(feature = "vfio-user")]
pub use server::{SoftIsmServer, SoftIsmStop};
