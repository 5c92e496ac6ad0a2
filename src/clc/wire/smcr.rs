//! Accept and Confirm of SMC-R: recognised, so that they can be declined, and not looked into.

use bytes::BufMut;

use super::{Header, MsgType, Version};

/// An Accept or Confirm of SMC-R, undecoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Smcr {
    msg_type: MsgType,
    version: Version,
    message: Vec<u8>,
}

impl Smcr {
    /// Accept or Confirm.
    pub const fn msg_type(&self) -> MsgType {
        self.msg_type
    }

    /// Version of the message.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Number of bytes kept of the message, see [`Header::kept_len`].
    pub fn wire_len(&self) -> usize {
        self.message.len()
    }

    /// Writes the bytes as they came.
    ///
    /// # Panics
    ///
    /// If `buf` has less than [`Smcr::wire_len`] bytes of room.
    pub fn emit(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.message);
    }

    pub(super) fn parse(header: Header, message: &[u8]) -> Self {
        Self { msg_type: header.msg_type(), version: header.version(), message: message.to_vec() }
    }
}
