//! What the system offers beside streams: packets with descriptors, from peers that are not trusted, options, and what
//! `fork` makes of a process.

pub(crate) mod closer;
pub(crate) mod entrance;
pub(crate) mod errno;
pub(crate) mod generation;
mod handed;
pub(crate) mod interfaces;
pub(crate) mod kept;
pub(crate) mod name;
pub(crate) mod packet;
mod per_process;
pub(crate) mod range_lock;
pub(crate) mod sized_memory;
pub(crate) mod sockopt;
#[cfg(test)]
pub(crate) mod starting;
#[cfg(feature = "stack")]
pub(crate) mod tun;

pub(crate) use entrance::Entrance;
pub(crate) use generation::Generation;
pub(crate) use handed::Handed;
pub(crate) use kept::Kept;
pub(crate) use per_process::PerProcess;
pub(crate) use sized_memory::sized_memory;
