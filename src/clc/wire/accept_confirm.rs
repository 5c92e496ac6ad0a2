//! Accept and Confirm: what server and client, in this order, tell each other about their DMBs.

use bytes::BufMut;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::*};

use super::{
    DecodeError, Eid, Eyecatcher, FirstContact, Header, MsgType, TRAILER_LEN, Version, area::Area,
    header::RawHeader,
};
use crate::dibs::{Chid, DmbToken, Gid};

/// The server's answer to a Proposal: its choice, and its DMB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Accept(pub SmcdBody);

/// The client's answer to an Accept: its own DMB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Confirm(pub SmcdBody);

/// What Accept and Confirm of SMC-D carry about their sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SmcdBody {
    /// Device of the sender. Version 1 carries bytes 0-7 only; the others are then zero.
    pub gid: Gid,
    /// The DMB into which the sender wants to receive.
    pub token: DmbToken,
    /// Index of the connection's element in that DMB; Linux 7.3 always sends 0.
    pub dmbe_idx: u8,
    /// Size of that element.
    pub dmbe_size: DmbeSize,
    /// Link group of the sender.
    pub link_id: LinkId,
    /// True if the sender made a new link group for this connection.
    pub first_contact: bool,
    /// What version 2 adds; `None` in version 1.
    pub v2: Option<SmcdBodyV2>,
}

/// What version 2 adds to Accept and Confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SmcdBodyV2 {
    /// Version of the message, 2 or above.
    pub version: Version,
    /// Fabric of the chosen device.
    pub chid: Chid,
    /// The negotiated EID.
    pub eid: Eid,
    /// First contact extension. Present and emitted only with [`SmcdBody::first_contact`]; `None` in spite of it
    /// if the message is too short to hold one, which Linux 7.3 does not notice.
    pub extension: Option<FirstContact>,
}

/// Size of a DMB element on the wire: a 4-bit code `n` for 2^(n+14) bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DmbeSize(u8);

impl DmbeSize {
    /// The largest size of SMC-D, 1 MiB.
    pub const MAX: Self = Self(6);

    /// The size with this code; only the low 4 bits count.
    pub const fn from_code(code: u8) -> Self {
        Self(code & 0x0f)
    }

    /// The size of `len` bytes; `None` unless it is a power of two from 16 KiB to 1 MiB.
    pub const fn from_bytes(len: usize) -> Option<Self> {
        let log = len.trailing_zeros();
        if len.is_power_of_two() && log >= 14 && log <= 20 { Some(Self((log - 14) as u8)) } else { None }
    }

    /// The smallest size that holds `len` bytes, at most [`DmbeSize::MAX`].
    pub const fn holding(len: usize) -> Self {
        let mut size = Self(0);
        while size.bytes() < len && size.0 < Self::MAX.0 {
            size.0 += 1;
        }
        size
    }

    /// The code, 0 to 15.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// The size in bytes: 16 KiB to 512 MiB, of which SMC-D uses up to [`DmbeSize::MAX`].
    pub const fn bytes(self) -> usize {
        1 << (self.0 + 14)
    }
}

/// Names a link group to its owner. Opaque to the peer; Linux 7.3 ignores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LinkId(pub [u8; 4]);

/// Layout of what both versions have.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBody {
    header: RawHeader,
    gid: U64,
    token: U64,
    dmbe_idx: u8,
    dmbe_size: u8,
    reserved: [u8; 2],
    link_id: [u8; 4],
}

/// Layout of what follows in version 2.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBodyV2 {
    chid: U16,
    eid: Eid,
    gid_ext: U64,
}

const BODY_LEN: usize = size_of::<RawBody>();
const V1_RESERVED: [u8; 12] = [0; 12];
const EXTENSION_AT: usize = BODY_LEN + size_of::<RawBodyV2>();

impl SmcdBody {
    /// Version of the message.
    pub fn version(&self) -> Version {
        self.v2.map_or(Version::V1, |v2| v2.version)
    }

    /// Length of the message in bytes: 48 in version 1; 78, 114 or 130 in version 2.
    pub fn wire_len(&self) -> usize {
        let rest = match &self.v2 {
            None => V1_RESERVED.len(),
            Some(v2) => size_of::<RawBodyV2>() + self.extension_on_wire(v2).map_or(0, FirstContact::wire_len),
        };
        BODY_LEN + rest + TRAILER_LEN
    }

    fn extension_on_wire<'a>(&self, v2: &'a SmcdBodyV2) -> Option<&'a FirstContact> {
        v2.extension.as_ref().filter(|_| self.first_contact)
    }

    fn emit(&self, msg_type: MsgType, buf: &mut impl BufMut) {
        let raw = RawBody {
            header: RawHeader::smcd(msg_type, self.version(), self.wire_len(), self.first_contact),
            gid: self.gid.high().into(),
            token: self.token.0.into(),
            dmbe_idx: self.dmbe_idx,
            dmbe_size: self.dmbe_size.code() << 4,
            reserved: [0; 2],
            link_id: self.link_id.0,
        };
        buf.put_slice(raw.as_bytes());
        match &self.v2 {
            None => buf.put_slice(&V1_RESERVED),
            Some(v2) => {
                let gid_ext = self.gid.low().into();
                buf.put_slice(RawBodyV2 { chid: v2.chid.0.into(), eid: v2.eid, gid_ext }.as_bytes());
                if let Some(extension) = self.extension_on_wire(v2) {
                    extension.emit(buf);
                }
            }
        }
        buf.put_slice(&Eyecatcher::Smcd.to_bytes());
    }

    /// Reads the message. Bytes after those known are ignored: later releases may add some.
    pub(super) fn parse(header: Header, message: &[u8]) -> Result<Self, DecodeError> {
        // The trailer is behind everything; keep the first contact extension from being read out of it.
        let end = header.length().saturating_sub(TRAILER_LEN);
        let area = Area(message.get(..end).unwrap_or(message));
        let raw: RawBody = area.at(0)?;
        let first_contact = header.flag();
        let (v2, gid_ext) = if header.version().is_v1() {
            (None, 0)
        } else {
            let raw: RawBodyV2 = area.at(BODY_LEN)?;
            let extension = first_contact.then(|| FirstContact::parse(area, EXTENSION_AT).ok()).flatten();
            let chid = Chid(raw.chid.get());
            let v2 = SmcdBodyV2 { version: header.version(), chid, eid: raw.eid, extension };
            (Some(v2), raw.gid_ext.get())
        };
        Ok(Self {
            gid: Gid::from_halves(raw.gid.get(), gid_ext),
            token: DmbToken(raw.token.get()),
            dmbe_idx: raw.dmbe_idx,
            dmbe_size: DmbeSize::from_code(raw.dmbe_size >> 4),
            link_id: LinkId(raw.link_id),
            first_contact,
            v2,
        })
    }
}

impl Accept {
    /// Length of the message in bytes.
    pub fn wire_len(&self) -> usize {
        self.0.wire_len()
    }

    /// Writes the message.
    ///
    /// # Panics
    ///
    /// If `buf` has less than [`Accept::wire_len`] bytes of room.
    pub fn emit(&self, buf: &mut impl BufMut) {
        self.0.emit(MsgType::Accept, buf);
    }
}

impl Confirm {
    /// Length of the message in bytes.
    pub fn wire_len(&self) -> usize {
        self.0.wire_len()
    }

    /// Writes the message.
    ///
    /// # Panics
    ///
    /// If `buf` has less than [`Confirm::wire_len`] bytes of room.
    pub fn emit(&self, buf: &mut impl BufMut) {
        self.0.emit(MsgType::Confirm, buf);
    }
}

#[cfg(test)]
mod tests;
