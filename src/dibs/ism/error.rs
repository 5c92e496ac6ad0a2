//! Why there is no device on a function.

use std::io;

use crate::dibs::DeviceError;

/// Why a function cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IsmError {
    /// It cannot be reached so: there is no such way, or this program was built without it.
    #[error("not a place of an ISM function that this program can reach")]
    Place,
    /// It is something else.
    #[error("the function is no ISM device but {0:#010x}")]
    OtherDevice(u32),
    /// A way to a function has a window that DMBs do not fit in, or stores nothing.
    #[error("the function has no room for buffers, or takes no data")]
    Useless,
    /// VFIO does not hand it out.
    #[cfg(feature = "vfio")]
    #[error("the function cannot be had by VFIO: {0}")]
    Vfio(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Its server cannot be reached.
    #[cfg(feature = "vfio-user")]
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// Its server has something else.
    #[cfg(feature = "vfio-user")]
    #[error("not a server of an ISM function: {0}")]
    Server(&'static str),
    /// It refuses to begin.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for IsmError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}
