//! What a fabric is to be like.

use std::{io, path::PathBuf};

use crate::{
    dibs::{
        Chid, DeviceError,
        region::{
            ivshmem::protocol::MAX_VECTORS,
            layout::{Geometry, LayoutError, Liveness, REGION_FABRIC},
        },
    },
    unix::entrance::EntranceError,
};

/// What the region of a [`FabricServer`](super::FabricServer) is like.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FabricSettings {
    /// Bytes of the region, a power of two; by default 256 MiB.
    pub bytes: usize,
    /// Endpoints that there is room for, 2 to 64; by default 8.
    pub slots: usize,
    /// DMBs that an endpoint can own, 16 to 1024 and a multiple of 16; by default 256.
    pub entries: usize,
    /// The fabric id, 0xFF00 to 0xFFFE; by default 0xFF52.
    pub fabric: Chid,
    /// Doorbells of each client, of which the first is used; by default 1.
    pub vectors: usize,
}

impl Default for FabricSettings {
    fn default() -> Self {
        Self { bytes: 256 << 20, slots: 8, entries: 256, fabric: REGION_FABRIC, vectors: 1 }
    }
}

impl FabricSettings {
    /// The region that they describe, if there can be one.
    pub(super) fn geometry(&self) -> Result<Geometry, FabricError> {
        // The size of a PCI BAR.
        if !self.bytes.is_power_of_two() {
            return Err(FabricError::Size(self.bytes));
        }
        if !(1..=MAX_VECTORS).contains(&self.vectors) {
            return Err(FabricError::Vectors(self.vectors));
        }
        Ok(Geometry::new(self.bytes, self.slots, self.entries, self.fabric, Liveness::Server)?)
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FabricError {
    /// Virtual machines can only have memory of another size.
    #[error("{0} bytes are no power of two, which the memory of a PCI device has to be")]
    Size(usize),
    /// No doorbells, or too many.
    #[error("a client has 1 to {MAX_VECTORS} doorbells, not {0}")]
    Vectors(usize),
    /// There can be no such region.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The region cannot be made.
    #[error(transparent)]
    Region(#[from] crate::dibs::region::RegionError),
    /// Another server listens there.
    #[error("a server listens at {0}")]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{0} is there, and is no socket")]
    NoSocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen at {path}: {error}")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The memory cannot be had.
    #[error("cannot make the memory of the region: {0}")]
    Memory(#[from] DeviceError),
    /// A system call failed.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<EntranceError> for FabricError {
    fn from(error: EntranceError) -> Self {
        match error {
            EntranceError::InUse(path) => Self::InUse(path),
            EntranceError::NoSocket(path) => Self::NoSocket(path),
            EntranceError::Listen { path, error } => Self::Listen { path, error },
        }
    }
}

impl From<rustix::io::Errno> for FabricError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::System(errno.into())
    }
}
