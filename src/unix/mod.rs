//! What the system offers beside streams: packets with descriptors, from peers that are not trusted, and options.

pub(crate) mod closer;
mod handed;
pub(crate) mod kept;
pub(crate) mod packet;
pub(crate) mod sockopt;

pub(crate) use handed::Handed;
pub(crate) use kept::Kept;
