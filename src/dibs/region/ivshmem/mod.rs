//! Regions that an ivshmem server hands out: to virtual machines, as a PCI device of QEMU's, and to processes of the host.
//!
//! Clients reach the server by a unix socket. Each gets a number, the memory, and a doorbell (an eventfd) for each other
//! client and for itself. The protocol is QEMU's (`docs/specs/ivshmem-spec` there); the server here keeps the connections
//! page of the region besides, so that endpoints know of each other's end.

mod client;
pub(super) mod connections;
mod protocol;
mod server;

pub use client::ConnectError;
pub use protocol::ProtocolError;
pub use server::{FabricError, FabricServer, FabricSettings, FabricStop};
