//! The header that starts every CLC message, and the eyecatcher that ends it.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16};

use super::{DecodeError, PROPOSAL_MAX};

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 8;

/// Length in bytes of the eyecatcher that ends every message.
pub const TRAILER_LEN: usize = 4;

/// Bit of the last header byte: first contact in Accept and Confirm, out of sync in Decline.
const FLAG: u8 = 0x08;

/// The four bytes that start and end every message, "SMCR" or "SMCD" in EBCDIC.
///
/// Linux 7.3 takes either in either place; it sends SMCD only in Accept and Confirm of SMC-D.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Eyecatcher {
    /// "SMCR", also used by the messages that belong to neither flavour.
    Smcr,
    /// "SMCD".
    Smcd,
}

impl Eyecatcher {
    /// The eyecatcher with these bytes, if it is one.
    pub const fn from_bytes(bytes: [u8; 4]) -> Option<Self> {
        match bytes {
            [0xe2, 0xd4, 0xc3, 0xd9] => Some(Self::Smcr),
            [0xe2, 0xd4, 0xc3, 0xc4] => Some(Self::Smcd),
            _ => None,
        }
    }

    /// The bytes on the wire.
    pub const fn to_bytes(self) -> [u8; 4] {
        match self {
            Self::Smcr => [0xe2, 0xd4, 0xc3, 0xd9],
            Self::Smcd => [0xe2, 0xd4, 0xc3, 0xc4],
        }
    }
}

/// What kind of message this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MsgType {
    /// Client to server: devices and EIDs on offer.
    Proposal = 1,
    /// Server to client: what the server chose, and its DMB.
    Accept = 2,
    /// Client to server: the client's DMB.
    Confirm = 3,
    /// Either way, in place of any other message: no SMC on this connection.
    Decline = 4,
}

impl MsgType {
    const fn from_wire(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Proposal),
            2 => Some(Self::Accept),
            3 => Some(Self::Confirm),
            4 => Some(Self::Decline),
            _ => None,
        }
    }
}

impl fmt::Display for MsgType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Proposal => "Proposal",
            Self::Accept => "Accept",
            Self::Confirm => "Confirm",
            Self::Decline => "Decline",
        })
    }
}

/// Version of a message: 1 to 15.
///
/// Linux 7.3 parses versions above 2 as version 2. Never send one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u8);

impl Version {
    /// Version 1.
    pub const V1: Self = Self(1);
    /// Version 2, with the releases 2.0 and 2.1.
    pub const V2: Self = Self(2);

    /// The version with this number; `None` unless it is in 1 to 15.
    pub const fn new(number: u8) -> Option<Self> {
        if 1 <= number && number <= 15 { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// True for version 1, which has layouts of its own.
    pub const fn is_v1(self) -> bool {
        self.0 == 1
    }

    /// The version to answer in: this one, or 2 if this one is above.
    pub const fn answer(self) -> Self {
        if self.is_v1() { Self::V1 } else { Self::V2 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The flavours of SMC that one version of a Proposal offers; offering none is `Option::None`.
///
/// In Accept and Confirm, the one flavour chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Flavours {
    /// SMC-R, over RoCE.
    R = 0,
    /// SMC-D, over DIBS devices.
    D = 1,
    /// Both.
    B = 3,
}

impl Flavours {
    const NONE_ON_WIRE: u8 = 2;

    /// From the low two bits; `None` is the type N, "none".
    const fn from_bits(bits: u8) -> Option<Self> {
        match bits & 3 {
            0 => Some(Self::R),
            1 => Some(Self::D),
            3 => Some(Self::B),
            _ => None,
        }
    }

    /// The two bits on the wire.
    pub(super) fn bits(offered: Option<Self>) -> u8 {
        offered.map_or(Self::NONE_ON_WIRE, |flavours| flavours as u8)
    }

    /// True if SMC-R is among them.
    pub const fn has_r(self) -> bool {
        matches!(self, Self::R | Self::B)
    }

    /// True if SMC-D is among them.
    pub const fn has_d(self) -> bool {
        matches!(self, Self::D | Self::B)
    }
}

/// A header whose type, version and length fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    msg_type: MsgType,
    version: Version,
    length: u16,
    low_bits: u8,
}

/// Layout of the header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    eyecatcher: [u8; 4],
    msg_type: u8,
    length: U16,
    version_and_types: u8,
}

impl Header {
    /// Reads the first 8 bytes of a message.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if they do not start a message, or announce a length that this message cannot have.
    /// Linux 7.3 has no upper limit for Accept and Confirm of version 2; see [`Header::kept_len`].
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, DecodeError> {
        let raw: RawHeader = zerocopy::transmute!(*bytes);
        Eyecatcher::from_bytes(raw.eyecatcher).ok_or(DecodeError::Eyecatcher(raw.eyecatcher))?;
        let header = Self {
            msg_type: MsgType::from_wire(raw.msg_type).ok_or(DecodeError::MsgType(raw.msg_type))?,
            version: Version::new(raw.version_and_types >> 4).ok_or(DecodeError::Version)?,
            length: raw.length.get(),
            low_bits: raw.version_and_types & 0x0f,
        };
        header.check_length()?;
        Ok(header)
    }

    fn check_length(&self) -> Result<(), DecodeError> {
        let v1 = self.version.is_v1();
        let legal = match self.msg_type {
            MsgType::Proposal if v1 => 52..=228,
            MsgType::Proposal => 84..=PROPOSAL_MAX as u16,
            MsgType::Decline if v1 => 28..=28,
            MsgType::Decline => 44..=44,
            MsgType::Accept | MsgType::Confirm => match self.typev1() {
                Some(Flavours::D) if v1 => 48..=48,
                Some(Flavours::D) => 78..=u16::MAX,
                Some(Flavours::R) if v1 => 68..=68,
                Some(Flavours::R) => 108..=u16::MAX,
                Some(Flavours::B) | None => return Err(DecodeError::Flavour(self.low_bits & 3)),
            },
        };
        let Self { msg_type, version, length, .. } = *self;
        if legal.contains(&length) { Ok(()) } else { Err(DecodeError::Length { msg_type, version, length }) }
    }

    /// Kind of the message.
    pub const fn msg_type(&self) -> MsgType {
        self.msg_type
    }

    /// Version of the message.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Length in bytes of the whole message, header and trailer included.
    pub fn length(&self) -> usize {
        usize::from(self.length)
    }

    /// How many bytes of the message count. A reader reads and forgets the others.
    ///
    /// Less than [`Header::length`] only for an Accept above 160 or a Confirm above 652 bytes: the sizes of the
    /// buffers into which Linux 7.3 reads them. The trailer of such a message is not checked.
    pub fn kept_len(&self) -> usize {
        let buffer = match self.msg_type {
            MsgType::Accept => 160,
            MsgType::Proposal | MsgType::Confirm | MsgType::Decline => PROPOSAL_MAX,
        };
        self.length().min(buffer)
    }

    /// Flavours of version 1 in a Proposal; the chosen flavour in Accept and Confirm of any version.
    pub const fn typev1(&self) -> Option<Flavours> {
        Flavours::from_bits(self.low_bits)
    }

    /// Flavours of version 2 in a Proposal; without meaning elsewhere.
    pub const fn typev2(&self) -> Option<Flavours> {
        Flavours::from_bits(self.low_bits >> 2)
    }

    /// First contact in Accept and Confirm, out of sync in Decline; without meaning in a Proposal.
    pub const fn flag(&self) -> bool {
        self.low_bits & FLAG != 0
    }

    /// Checks the trailer of a message as it was kept. Linux 7.3 does not look at that of a Decline, nor, having
    /// thrown it away, at that of a message longer than its buffer.
    pub(super) fn check_trailer(&self, kept: &[u8]) -> Result<(), DecodeError> {
        if self.msg_type == MsgType::Decline || kept.len() < self.length() {
            return Ok(());
        }
        let trailer = kept.last_chunk().copied().unwrap_or_default();
        Eyecatcher::from_bytes(trailer).map(drop).ok_or(DecodeError::Trailer(trailer))
    }
}

impl RawHeader {
    /// A header for a message of `length` bytes. `low_bits` hold the types or the flag.
    fn new(eyecatcher: Eyecatcher, msg_type: MsgType, version: Version, length: usize, low_bits: u8) -> Self {
        Self {
            eyecatcher: eyecatcher.to_bytes(),
            msg_type: msg_type as u8,
            length: U16::new(length as u16), // no message we make is longer than PROPOSAL_MAX
            version_and_types: version.number() << 4 | low_bits,
        }
    }

    pub(super) fn proposal(version: Version, len: usize, v2: Option<Flavours>, v1: Option<Flavours>) -> Self {
        let typev2 = if version.is_v1() { 0 } else { Flavours::bits(v2) };
        Self::new(Eyecatcher::Smcr, MsgType::Proposal, version, len, typev2 << 2 | Flavours::bits(v1))
    }

    pub(super) fn smcd(msg_type: MsgType, version: Version, len: usize, first_contact: bool) -> Self {
        let flag = if first_contact { FLAG } else { 0 };
        Self::new(Eyecatcher::Smcd, msg_type, version, len, flag | Flavours::D as u8)
    }

    pub(super) fn decline(version: Version, len: usize, out_of_sync: bool) -> Self {
        Self::new(Eyecatcher::Smcr, MsgType::Decline, version, len, if out_of_sync { FLAG } else { 0 })
    }
}

/// The length in bytes of the message that starts with these 8 bytes, so that a reader takes exactly one message
/// off a stream.
///
/// An Accept or Confirm of version 2 may announce up to 65535 bytes; [`Message::parse`](super::Message::parse)
/// needs only the first [`Header::kept_len`] of them.
///
/// # Errors
///
/// [`DecodeError`] if the bytes do not start a message that can be received.
pub fn announced_len(bytes: &[u8; HEADER_LEN]) -> Result<usize, DecodeError> {
    Header::parse(bytes).map(|header| header.length())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(msg_type: u8, length: u16, last: u8) -> Result<Header, DecodeError> {
        let [hi, lo] = length.to_be_bytes();
        Header::parse(&[0xe2, 0xd4, 0xc3, 0xd9, msg_type, hi, lo, last])
    }

    fn length(msg_type: MsgType, version: Version, length: u16) -> Result<Header, DecodeError> {
        Err(DecodeError::Length { msg_type, version, length })
    }

    #[test]
    fn last_byte_holds_version_and_types() {
        let h = header(1, 224, 0x26).unwrap();
        assert_eq!((h.version(), h.typev2(), h.typev1()), (Version::V2, Some(Flavours::D), None));
        let h = header(1, 224, 0x2f).unwrap();
        assert_eq!((h.typev2(), h.typev1()), (Some(Flavours::B), Some(Flavours::B)));
        let h = header(2, 130, 0x29).unwrap();
        assert_eq!((h.typev1(), h.flag()), (Some(Flavours::D), true));
        assert!(!header(2, 78, 0x21).unwrap().flag());
        assert!(header(4, 28, 0x18).unwrap().flag());
    }

    #[test]
    fn lengths_that_a_message_cannot_have_are_refused() {
        for (len, byte7) in [(51, 0x11), (229, 0x11), (83, 0x26), (653, 0x26)] {
            let version = Version::new(byte7 >> 4).unwrap();
            assert_eq!(header(1, len, byte7), length(MsgType::Proposal, version, len));
        }
        for (kind, msg_type) in [(2, MsgType::Accept), (3, MsgType::Confirm)] {
            for (len, byte7) in [(47, 0x11), (49, 0x11), (77, 0x21), (67, 0x10), (69, 0x10), (107, 0x20)] {
                let version = Version::new(byte7 >> 4).unwrap();
                assert_eq!(header(kind, len, byte7), length(msg_type, version, len));
            }
            assert_eq!(header(kind, 130, 0x22), Err(DecodeError::Flavour(2)));
            assert_eq!(header(kind, 130, 0x23), Err(DecodeError::Flavour(3)));
        }
        for (len, byte7) in [(27, 0x10), (44, 0x10), (28, 0x20), (45, 0x30)] {
            let version = Version::new(byte7 >> 4).unwrap();
            assert_eq!(header(4, len, byte7), length(MsgType::Decline, version, len));
        }
    }

    #[test]
    fn accept_and_confirm_of_version_2_have_no_upper_limit() {
        assert_eq!(header(2, 0xffff, 0x21).unwrap().kept_len(), 160);
        assert_eq!(header(3, 0xffff, 0x21).unwrap().kept_len(), 652);
        assert_eq!(header(2, 130, 0x29).unwrap().kept_len(), 130);
        assert_eq!(announced_len(&[0xe2, 0xd4, 0xc3, 0xc4, 2, 0xff, 0xff, 0x21]), Ok(0xffff));
    }

    #[test]
    fn versions_above_2_are_read_as_2() {
        assert_eq!(header(1, 224, 0xf6).unwrap().version().answer(), Version::V2);
        assert_eq!(header(4, 44, 0x30).unwrap().version().number(), 3);
        assert_eq!(header(1, 224, 0x06), Err(DecodeError::Version));
    }

    #[test]
    fn other_bytes_are_not_clc() {
        assert_eq!(Header::parse(b"GET / HT"), Err(DecodeError::Eyecatcher(*b"GET ")));
        assert_eq!(header(0, 44, 0x20), Err(DecodeError::MsgType(0)));
        assert_eq!(header(5, 44, 0x20), Err(DecodeError::MsgType(5)));
    }
}
