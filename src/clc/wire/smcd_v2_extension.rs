//! The SMC-D v2 extension of a Proposal: the SEID and the devices on offer.

use bytes::BufMut;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::*};

use super::{DecodeError, Eid, UpTo, area::Area};
use crate::dibs::Chid;

/// SEID and devices that a client offers for SMC-D v2.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SmcdV2Extension {
    /// The SEID; offered only if [`V2Offer::seid_offered`](super::V2Offer::seid_offered), else zero.
    pub seid: Eid,
    /// The devices, in the client's order of preference. A device of an emulated fabric takes two entries.
    pub entries: UpTo<GidEntry, 8>,
}

/// One entry of the device list: half a GID, and a CHID.
///
/// An entry of an emulated fabric is followed by a second one with the same CHID and the other half of the GID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GidEntry {
    /// Bytes 0-7 of a GID or, in the second entry of an emulated device, bytes 8-15.
    pub gid: u64,
    /// Fabric of the device.
    pub chid: Chid,
}

/// Layout of the extension without its list.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSmcdV2Extension {
    seid: Eid,
    reserved: [u8; 16],
}

/// Layout of one entry.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawGidEntry {
    gid: U64,
    chid: U16,
}

/// Length in bytes of an extension with `count` entries.
pub(super) fn extension_len(count: u8) -> usize {
    size_of::<RawSmcdV2Extension>() + size_of::<RawGidEntry>() * usize::from(count)
}

impl SmcdV2Extension {
    /// Length of the extension in bytes.
    pub fn wire_len(&self) -> usize {
        extension_len(self.entries.count())
    }

    pub(super) fn parse(area: Area<'_>, offset: usize, count: u8) -> Result<Self, DecodeError> {
        let raw: RawSmcdV2Extension = area.at(offset)?;
        let entries: Vec<RawGidEntry> = area.list(offset + size_of::<RawSmcdV2Extension>(), count)?;
        let entries = entries.iter().map(|e| GidEntry { gid: e.gid.get(), chid: Chid(e.chid.get()) });
        Ok(Self { seid: raw.seid, entries: UpTo::first_of(entries) })
    }

    pub(super) fn emit(&self, buf: &mut impl BufMut) {
        buf.put_slice(RawSmcdV2Extension { seid: self.seid, reserved: [0; 16] }.as_bytes());
        for entry in &self.entries {
            let raw = RawGidEntry { gid: entry.gid.into(), chid: entry.chid.0.into() };
            buf.put_slice(raw.as_bytes());
        }
    }
}

/// No SEID and no devices.
impl Default for SmcdV2Extension {
    fn default() -> Self {
        Self { seid: Eid::ZERO, entries: UpTo::new() }
    }
}
