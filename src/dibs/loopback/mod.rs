//! Loopback: the fabric of the processes of one host.
//!
//! Each process is a device with a random GID. A DMB is a sealed memfd, handed to its user over a unix socket whose
//! abstract name holds the user's GID, so that reach ends exactly where TCP loopback's does: at the network
//! namespace. The owner *pushes* a DMB to its user when it registers it. The user finds it waiting in its socket when
//! the token arrives by CLC, so nobody waits for anybody and there is no thread behind a device.
//!
//! Doorbells are unix socket pairs, one for each DMB. An eventfd would be a little cheaper, but its one file
//! description is shared: a hostile owner could clear `O_NONBLOCK` and fill the counter, and our ring would block.
//! The socket's far end gives its holder no such power (`MSG_DONTWAIT` belongs to the call), and it hangs up when the
//! process at the other end dies.

mod device;
mod inbox;
mod link;
mod offer;

pub use device::{DmbLimits, LOOPBACK_FABRIC, Loopback};
