//! Direct Internal Buffer Sharing: devices that share memory buffers (DMBs) between endpoints.
//!
//! A *device* belongs to a *fabric* ([`Chid`]) and has an identity in it ([`Gid`]). It *registers* a buffer
//! ([`Dmb`]) in its own memory for exactly one remote *user*, which is told the [`DmbToken`]. The user writes into
//! the DMB, either by [`Device::move_data`] or, where the device can map remote memory, directly
//! ([`Device::attach_dmb`]), and *signals* the owner ([`Interrupt`], [`Doorbell`]).
//!
//! | backend | memory | doorbell | reaches |
//! |---|---|---|---|
//! | [`loopback`] | sealed memfd | socket pair, futex | the processes of one network namespace |
//! | [`region`] | one shared region: a file, a DAX device, ivshmem | looking, eventfd, MSI-X | processes, virtual machines, hosts |
//! | [`ism`] | memory that a PCI function knows | its interrupt | the systems of a machine (IBM Z), or a model of them |

mod barrier;
mod bell;
mod device;
mod error;
mod eventfd;
mod id;
pub mod ism;
pub mod loopback;
mod memory;
mod parking;
mod pnetid;
pub mod region;
mod sealed;
#[cfg(feature = "vfio")]
mod vfio;
mod writing;

pub(crate) use barrier::order;
pub use device::{Cause, Device, Dmb, Doorbell, Event, Interrupt, RemoteDmb};
pub use error::{BadDmb, DeviceError};
pub use id::{Chid, DmbToken, Gid, VlanId};
pub use memory::Memory;
pub use pnetid::{BadPnetId, PnetId};
pub(crate) use writing::Writing;
