//! A TCP/IP endpoint in user space, on smoltcp, that can put the SMC option into its SYN segments.
//!
//! User space cannot put options on the SYN of a kernel socket. An [`Endpoint`] has no kernel socket below: it speaks
//! Ethernet or IP over a [`Link`], which is a TAP device ([`Tap`]), the socket of a QEMU network backend
//! ([`QemuStream`], [`QemuDgram`]), or the other end of a [memory link](memory) in tests.
//!
//! ```text
//! StackStream, StackListener     bytes, for tokio
//! Endpoint                       smoltcp's interface and sockets, and a task that drives them
//! signalling                     a device around the link: writes and reads the option of SYN segments
//! Link                           frames
//! ```
//!
//! Whether both SYN and SYN-ACK of a connection had the option is told by [`StackStream::smc_signalled`]. It is no
//! proof that the peer speaks SMC, since some hosts and middleboxes echo options that they do not know; but the peer
//! may take it for an obligation. [`SmcStackStream`](crate::SmcStackStream) does what follows from it.
//!
//! All time is that of tokio, so that tests with a paused clock are quick and have the same outcome every time.

mod clock;
mod core;
mod driver;
mod endpoint;
mod link;
mod listener;
pub mod memory;
mod qemu;
mod settings;
mod signalling;
mod signals;
mod stream;
pub mod syn;
mod tap;

pub use endpoint::Endpoint;
pub use link::Link;
pub use listener::StackListener;
pub use qemu::{QemuDgram, QemuStream};

pub use settings::{EndpointConfig, SynOption};
pub use stream::StackStream;
pub use tap::Tap;
