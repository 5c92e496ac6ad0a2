//! A fabric in one shared memory: a region, cut into a slice for each endpoint.
//!
//! The region may be a file that the processes of a host map, the memory of an ivshmem device that virtual machines and
//! host share, or a DAX device (CXL). `LAYOUT.md` beside this file describes it, byte by byte, and what it protects from:
//! **who maps a region can read and write all of it**, so all its endpoints must be trusted with the data of all.

mod attachment;
mod device;
mod error;
mod file;
mod heartbeats;
mod ivshmem;
mod layout;
mod pace;
mod peers;
mod place;
mod shelf;
mod slice;
mod target;
#[cfg(feature = "vfio")]
mod vfio;
mod voice;
mod words;

pub use device::Region;
pub use error::RegionError;
pub use ivshmem::{ConnectError, FabricError, FabricServer, FabricSettings, FabricStop, ProtocolError};
pub use layout::{Geometry, LayoutError, Liveness, REGION_FABRIC};
pub use place::PlaceError;
#[cfg(feature = "vfio")]
pub use vfio::VfioRegionError;
