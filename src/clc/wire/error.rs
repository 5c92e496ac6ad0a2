//! Why bytes are not a CLC message.

use super::{MsgType, Version};

/// Bytes that are not a CLC message, with what was found.
///
/// Linux 7.3 answers each of these by closing the connection; it sends no Decline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The first four bytes are not an SMC eyecatcher: not CLC at all.
    #[error("no SMC eyecatcher: {0:02x?}")]
    Eyecatcher([u8; 4]),
    /// The last four bytes are not an SMC eyecatcher.
    #[error("no SMC eyecatcher at the end: {0:02x?}")]
    Trailer([u8; 4]),
    /// A message type other than 1 to 4.
    #[error("unknown message type {0}")]
    MsgType(u8),
    /// Version 0.
    #[error("version 0")]
    Version,
    /// An Accept or Confirm whose flavour, a 2-bit value, is neither SMC-R nor SMC-D.
    #[error("flavour {0} in Accept or Confirm")]
    Flavour(u8),
    /// The header announces a length that no message of this type and version has.
    #[error("a {msg_type} of version {version} cannot be {length} bytes long")]
    Length {
        /// Type of the message.
        msg_type: MsgType,
        /// Version of the message.
        version: Version,
        /// Announced length in bytes.
        length: u16,
    },
    /// The bytes given are not as many as the header announces.
    #[error("{given} bytes given for a message of {announced}")]
    Incomplete {
        /// Length in bytes that the header announces; 8 if not even the header is there.
        announced: usize,
        /// Bytes given.
        given: usize,
    },
    /// A part of the message would start or end outside the largest message there is.
    #[error("no room for {len} bytes at offset {offset}")]
    OutOfBounds {
        /// Offset in bytes from the start of the message.
        offset: usize,
        /// Size of the part in bytes.
        len: usize,
    },
    /// `iparea_offset` of a Proposal above 40.
    #[error("IP prefix area at offset {0}, above 40")]
    PrefixAreaOffset(u16),
    /// More than 8 IPv6 prefixes, or what stands in the place of their number in a v2-only Proposal.
    #[error("{0} IPv6 prefixes, above 8")]
    Ipv6Count(u8),
    /// A Proposal of version 1 that offers neither flavour.
    #[error("a Proposal of version 1 that offers nothing")]
    NothingOffered,
    /// A Proposal offers a v2 flavour, but `v2_ext_offset` is not in 1 to 172, or the SMC-D v1 area that holds
    /// it is missing.
    #[error("no v2 extension at offset {0}")]
    V2ExtensionOffset(u16),
    /// More than 8 UEIDs.
    #[error("{0} UEIDs, above 8")]
    UeidCount(u8),
    /// More than 8 GID entries.
    #[error("{0} GID entries, above 8")]
    GidCount(u8),
    /// The parts of a Proposal do not add up to its length.
    #[error("a Proposal of {announced} bytes whose parts take {parts}")]
    ProposalLength {
        /// Length in bytes that the header announces.
        announced: usize,
        /// Length in bytes that follows from types and counts.
        parts: usize,
    },
}
