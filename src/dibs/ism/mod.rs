//! IBM's ISM: a PCI function for each system, all on one fabric, and the hardware moves the data.
//!
//! The function is reached from user space as VFIO offers it ([`Transport`]). A program that has one ([`Ism`]) tells it of
//! memory of its own: of a page in which the function says what was signalled, of an event queue, and of each DMB. Data for
//! the DMBs of others is stored into BAR 0 of the function, one block for each page that it touches; commands go through a
//! mailbox in BAR 2.
//!
//! The hardware is that of IBM Z. [`soft`] has the same in software.

mod addresses;
#[cfg_attr(not(any(feature = "vfio", feature = "vfio-user")), allow(dead_code))]
mod capability;
mod command;
mod device;
mod dmbs;
mod error;
mod events;
mod function;
mod place;
mod signals;
pub mod soft;
mod store;
mod transport;
#[cfg(feature = "vfio")]
mod vfio;
#[cfg(feature = "vfio-user")]
mod vfio_user;
#[cfg(any(feature = "vfio", test))]
mod zdev;

pub use device::Ism;
pub use error::IsmError;
pub use transport::{Description, Transport};
#[cfg(feature = "vfio")]
pub use vfio::{Vfio, VfioWay};
#[cfg(feature = "vfio-user")]
pub use vfio_user::VfioUser;
