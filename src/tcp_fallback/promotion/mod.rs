//! How the two processes of a TCP connection find each other, and prove that they are its ends.
//!
//! Both know the connection's addresses, and so a name: the first that wants SMC-D listens under it, the second
//! connects. Anybody could listen there. So each end asks the kernel who owns the other end of the TCP connection, and
//! who is at the other end of the side channel; if that is not the same user, the connection stays TCP.

mod channel;
mod four_tuple;
mod name;
mod owner;
mod policy;
mod rendezvous;

pub(crate) use channel::{Channel, Look, Packet};
pub(crate) use owner::counts_by_address;
pub use policy::Promotion;
pub(crate) use rendezvous::{Meeting, Proof, Rendezvous, Waiting, is_peer_here};
