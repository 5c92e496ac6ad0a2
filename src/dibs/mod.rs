//! Direct Internal Buffer Sharing: devices that share memory buffers (DMBs) between endpoints.

mod id;

pub use id::{Chid, DmbToken, Gid, VlanId};
