//! A fabric in one shared memory: a region, cut into a slice for each endpoint.
//!
//! The region may be a file that the processes of a host map, the memory of an ivshmem device that virtual machines and
//! host share, or a DAX device (CXL). `LAYOUT.md` beside this file describes it, byte by byte.

mod attachment;
mod ivshmem;
mod layout;

pub use ivshmem::{ConnectError, FabricError, FabricServer, FabricSettings, FabricStop, ProtocolError};
pub use layout::{Geometry, LayoutError, Liveness, REGION_FABRIC};
