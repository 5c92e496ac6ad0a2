//! The bytes of the CLC messages.
//!
//! One file per message. A message is a plain value: [`Message::parse`] makes it from exactly the bytes of one
//! message, `emit` writes it, `wire_len` says how many bytes that takes. Parsing never panics, whatever the bytes.
//! Emitting panics only if the buffer is too small, as every [`bytes::BufMut`] does.
//!
//! The parsers accept and refuse what Linux 7.3 accepts and refuses, no more: whether a well-formed message makes
//! sense is decided in [`handshake`](super::handshake). Reserved fields are ignored on receipt and sent as zero.
//! Fields that have a meaning but none for SMC-D (RoCE addresses, vendor options) are kept, so that a message
//! emits to the bytes it was parsed from.
//!
//! A reader takes one message off a stream with an [`Assembler`], or asks [`announced_len`] itself.

mod accept_confirm;
mod area;
mod assembler;
mod decline;
mod eid;
mod error;
mod first_contact;
mod header;
mod hostname;
mod message;
mod prefixes;
mod proposal;
mod smcd_v2_extension;
mod smcr;
mod up_to;
mod v2_extension;

pub use accept_confirm::{Accept, Confirm, DmbeSize, LinkId, SmcdBody, SmcdBodyV2};
pub use assembler::Assembler;
pub use decline::{Decline, DeclineV2};
pub use eid::{Eid, InvalidEid, Seid, Ueid};
pub use error::DecodeError;
pub use first_contact::{FirstContact, FirstContactV2x, Os, Release};
pub use header::{Eyecatcher, Flavours, HEADER_LEN, Header, MsgType, TRAILER_LEN, Version, announced_len};
pub use hostname::{Hostname, NonAsciiHostname};
pub use message::Message;
pub use prefixes::{Ipv4Prefix, Ipv6Prefix, Prefixes};
pub use proposal::{PROPOSAL_MAX, Proposal, RoceIdentity, SmcdArea, V1Offer};
pub use smcd_v2_extension::{GidEntry, SmcdV2Extension};
pub use smcr::Smcr;
pub use up_to::{ListFull, UpTo};
pub use v2_extension::{FEATURE_EMULATED_ISM, V2Offer};
