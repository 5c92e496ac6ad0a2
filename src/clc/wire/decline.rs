//! Decline: no SMC on this connection.

use bytes::BufMut;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U32};

use super::{DecodeError, Eyecatcher, Header, Os, TRAILER_LEN, Version, area::Area, header::RawHeader};
use crate::clc::DeclineCode;

/// The refusal of either side, in place of its next message. The next byte belongs to the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decline {
    /// True if the sender asks the receiver to give up the link group that both believed to share.
    pub out_of_sync: bool,
    /// System id of the sender in SMC-R, else zero.
    pub id_for_peer: [u8; 8],
    /// Why.
    pub diagnosis: DeclineCode,
    /// What version 2 adds; `None` in version 1.
    pub v2: Option<DeclineV2>,
}

/// What version 2 adds to a Decline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeclineV2 {
    /// Version of the message, 2 or above.
    pub version: Version,
    /// Operating system of the sender.
    pub os: Os,
    /// More on the cause; Linux 7.3 sends zeros.
    pub additional: [u32; 4],
}

/// Layout of what both versions have.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawDecline {
    header: RawHeader,
    id_for_peer: [u8; 8],
    diagnosis: U32,
    os: u8,
    reserved: [u8; 3],
}

impl Decline {
    /// The Decline with this diagnosis, in version 1 or 2 as the handshake has it; any later version counts as 2.
    /// Out of sync if the diagnosis is.
    pub const fn new(version: Version, diagnosis: DeclineCode) -> Self {
        let v2 = match version {
            Version::V1 => None,
            _ => Some(DeclineV2 { version: Version::V2, os: Os::LINUX, additional: [0; 4] }),
        };
        Self { out_of_sync: diagnosis.is_out_of_sync(), id_for_peer: [0; 8], diagnosis, v2 }
    }

    /// Version of the message.
    pub fn version(&self) -> Version {
        self.v2.map_or(Version::V1, |v2| v2.version)
    }

    /// Length of the message in bytes: 28 in version 1, 44 in version 2.
    pub fn wire_len(&self) -> usize {
        size_of::<RawDecline>() + self.v2.map_or(0, |v2| size_of_val(&v2.additional)) + TRAILER_LEN
    }

    /// Writes the message.
    ///
    /// # Panics
    ///
    /// If `buf` has less than [`Decline::wire_len`] bytes of room.
    pub fn emit(&self, buf: &mut impl BufMut) {
        let raw = RawDecline {
            header: RawHeader::decline(self.version(), self.wire_len(), self.out_of_sync),
            id_for_peer: self.id_for_peer,
            diagnosis: self.diagnosis.0.into(),
            os: self.v2.map_or(0, |v2| v2.os.nibble() << 4),
            reserved: [0; 3],
        };
        buf.put_slice(raw.as_bytes());
        for word in self.v2.iter().flat_map(|v2| v2.additional) {
            buf.put_u32(word);
        }
        buf.put_slice(&Eyecatcher::Smcr.to_bytes());
    }

    pub(super) fn parse(header: Header, message: &[u8]) -> Result<Self, DecodeError> {
        let area = Area(message);
        let raw: RawDecline = area.at(0)?;
        let v2 = if header.version().is_v1() {
            None
        } else {
            let additional: [U32; 4] = area.at(size_of::<RawDecline>())?;
            Some(DeclineV2 {
                version: header.version(),
                os: Os::from_nibble(raw.os >> 4),
                additional: additional.map(U32::get),
            })
        };
        Ok(Self {
            out_of_sync: header.flag(),
            id_for_peer: raw.id_for_peer,
            diagnosis: DeclineCode(raw.diagnosis.get()),
            v2,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clc::wire::Message;

    fn emitted(decline: Decline) -> Vec<u8> {
        let mut bytes = [0xa5; 64];
        let mut rest = &mut bytes[..];
        decline.emit(&mut rest);
        let written = 64 - rest.len();
        assert_eq!(written, decline.wire_len());
        bytes[..written].to_vec()
    }

    #[test]
    fn version_2_is_44_bytes() {
        let decline = Decline::new(Version::V2, DeclineCode::NO_SMCD_V2_DEVICE);
        let golden = [
            [0xe2, 0xd4, 0xc3, 0xd9, 0x04, 0x00, 0x2c, 0x20, 0, 0, 0, 0, 0, 0, 0, 0].as_slice(),
            &[0x03, 0x03, 0x00, 0x07, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0xe2, 0xd4, 0xc3, 0xd9],
        ]
        .concat();
        assert_eq!(emitted(decline), golden);
        assert_eq!(Message::parse(&golden), Ok(Message::Decline(decline)));
    }

    #[test]
    fn version_1_is_28_bytes() {
        let decline = Decline::new(Version::V1, DeclineCode::NO_DEVICE);
        let golden = [
            [0xe2, 0xd4, 0xc3, 0xd9, 0x04, 0x00, 0x1c, 0x10, 0, 0, 0, 0, 0, 0, 0, 0].as_slice(),
            &[0x03, 0x03, 0x00, 0x00, 0, 0, 0, 0, 0xe2, 0xd4, 0xc3, 0xd9],
        ]
        .concat();
        assert_eq!(emitted(decline), golden);
        assert_eq!(Message::parse(&golden), Ok(Message::Decline(decline)));
    }

    #[test]
    fn sync_error_sets_the_bit() {
        let bytes = emitted(Decline::new(Version::V2, DeclineCode::SYNC));
        assert_eq!((bytes[7], &bytes[16..20]), (0x28, [4, 0, 0, 0].as_slice()));
        assert_eq!(emitted(Decline::new(Version::V1, DeclineCode::SYNC))[7], 0x18);
    }

    #[test]
    fn trailer_is_not_looked_at() {
        let decline = Decline::new(Version::V2, DeclineCode::IPSEC);
        let mut bytes = emitted(decline);
        bytes[40..].fill(0);
        assert_eq!(Message::parse(&bytes), Ok(Message::Decline(decline)));
    }

    #[test]
    fn unknown_diagnosis_is_kept() {
        let decline = Decline::new(Version::V2, DeclineCode(0xdead_beef));
        assert_eq!(Message::parse(&emitted(decline)), Ok(Message::Decline(decline)));
    }
}
