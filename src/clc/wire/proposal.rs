//! Proposal: what the client offers.

use bytes::BufMut;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::*};

use super::{
    DecodeError, Eyecatcher, Flavours, Header, Prefixes, TRAILER_LEN, V2Offer, Version, area::Area,
    header::RawHeader, prefixes::RawPrefixArea,
};
use crate::dibs::Chid;

/// Length in bytes of the largest Proposal: 8 IPv6 prefixes, 8 UEIDs, 8 GID entries.
///
/// Every area that a Proposal can place within the limits of its offsets and counts ends at or before this.
pub const PROPOSAL_MAX: usize = 652;

const BASE_LEN: usize = size_of::<RawBase>();
const SMCD_AREA_LEN: usize = size_of::<RawSmcdArea>();

/// `v2_ext_offset` counts from here, in bytes from the start of the message.
const V2_EXT_BASE: usize = 52;

/// The v2 extension is found at 1 to 172 bytes from there; elsewhere it counts as absent.
const V2_EXT_OFFSET_MAX: u16 = 28 + 8 + 8 * 17;

/// The first message: flavours, devices, EIDs and subnets that the client offers.
///
/// Linux 7.3 always sends version 2, even if it offers flavours of version 1 only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// Version of the message.
    pub version: Version,
    /// Who the client is to SMC-R; zero unless it offers SMC-R v1.
    pub roce: RoceIdentity,
    /// The client's device of version 1. Only a Proposal of version 1 may leave it out; in later versions `None`
    /// is emitted as zeros.
    pub smcd: Option<SmcdArea>,
    /// The offer of version 1, if any. A Proposal of version 1 must have one.
    pub v1: Option<V1Offer>,
    /// The offer of version 2, if any. A Proposal of version 1 has none and emits none.
    pub v2: Option<V2Offer>,
}

/// Identity of the client in SMC-R v1; kept, not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RoceIdentity {
    /// System id: 2 random bytes and a MAC address.
    pub id_for_peer: [u8; 8],
    /// RoCE v1 GID.
    pub gid: [u8; 16],
    /// MAC address of the RoCE port.
    pub mac: [u8; 6],
}

/// The client's SMC-D device of version 1, and vendor data.
///
/// In a Proposal that offers nothing of version 1 leave it zero: Linux 7.3 then reads the last byte of the GID as
/// a number of IPv6 prefixes, and refuses the message if it is above 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SmcdArea {
    /// The 64-bit GID of the device.
    pub gid: u64,
    /// Fabric of the device; 0 if there is none.
    pub chid: Chid,
    /// Organisation that defines the vendor options.
    pub vendor_oui: [u8; 3],
    /// Experimental options of the vendor.
    pub vendor_options: [u8; 5],
}

/// What a Proposal offers for version 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct V1Offer {
    /// The flavours offered.
    pub flavours: Flavours,
    /// Subnets of the client; the server must be in one of them.
    pub prefixes: Prefixes,
}

/// Layout of the part that every Proposal has.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBase {
    header: RawHeader,
    id_for_peer: [u8; 8],
    roce_gid: [u8; 16],
    roce_mac: [u8; 6],
    iparea_offset: U16,
}

/// Layout of the SMC-D v1 area.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSmcdArea {
    gid: U64,
    chid: U16,
    v2_ext_offset: U16,
    vendor_oui: [u8; 3],
    vendor_options: [u8; 5],
    reserved: [u8; 20],
}

impl Proposal {
    /// Length of the message in bytes.
    pub fn wire_len(&self) -> usize {
        let smcd = if self.has_smcd_area() { SMCD_AREA_LEN } else { 0 };
        let v2 = self.v2_on_wire().map_or(0, V2Offer::wire_len);
        BASE_LEN + smcd + self.prefixes_len() + v2 + TRAILER_LEN
    }

    /// Writes the message.
    ///
    /// # Panics
    ///
    /// If `buf` has less than [`Proposal::wire_len`] bytes of room.
    pub fn emit(&self, buf: &mut impl BufMut) {
        let typev1 = self.v1.as_ref().map(|v1| v1.flavours);
        let typev2 = self.v2_on_wire().map(|v2| v2.flavours);
        // Without an offer of version 1 the offset stays 0, though the SMC-D area is there: any other value
        // makes Linux 7.3 look for a number of prefixes inside the v2 extension.
        let skip_smcd_area = self.v1.is_some() && self.has_smcd_area();
        let base = RawBase {
            header: RawHeader::proposal(self.version, self.wire_len(), typev2, typev1),
            id_for_peer: self.roce.id_for_peer,
            roce_gid: self.roce.gid,
            roce_mac: self.roce.mac,
            iparea_offset: if skip_smcd_area { SMCD_AREA_LEN as u16 } else { 0 }.into(),
        };
        buf.put_slice(base.as_bytes());
        if self.has_smcd_area() {
            let v2_at = BASE_LEN + SMCD_AREA_LEN + self.prefixes_len();
            let v2_ext_offset = self.v2_on_wire().map_or(0, |_| v2_at - V2_EXT_BASE);
            self.smcd.unwrap_or_default().emit(v2_ext_offset as u16 /* at most 172 */, buf);
        }
        if let Some(v1) = &self.v1 {
            v1.prefixes.emit(buf);
        }
        if let Some(v2) = self.v2_on_wire() {
            v2.emit(buf);
        }
        buf.put_slice(&Eyecatcher::Smcr.to_bytes());
    }

    fn v2_on_wire(&self) -> Option<&V2Offer> {
        self.v2.as_ref().filter(|_| !self.version.is_v1())
    }

    fn has_smcd_area(&self) -> bool {
        self.smcd.is_some() || !self.version.is_v1()
    }

    fn prefixes_len(&self) -> usize {
        self.v1.as_ref().map_or(0, |v1| v1.prefixes.wire_len())
    }

    /// Reads the message, by the checks of Linux 7.3: offsets and counts within their limits, and a length that
    /// is exactly what the counts add up to. Where the parts are is up to the sender.
    pub(super) fn parse(header: Header, message: &[u8]) -> Result<Self, DecodeError> {
        // Linux 7.3 reads a Proposal into a zeroed buffer of this size and looks for the parts in the buffer, not
        // in the message. A part that is placed past the end therefore reads as zeros, there and here.
        let mut buffer = [0; PROPOSAL_MAX];
        buffer.iter_mut().zip(message).for_each(|(to, from)| *to = *from);
        let area = Area(&buffer);

        let base: RawBase = area.at(0)?;
        let iparea_offset = base.iparea_offset.get();
        if usize::from(iparea_offset) > SMCD_AREA_LEN {
            return Err(DecodeError::PrefixAreaOffset(iparea_offset));
        }
        let prefixes_at = BASE_LEN + usize::from(iparea_offset);
        // Checked whether or not there are prefixes, see `SmcdArea`.
        let ipv6_count = area.at::<RawPrefixArea>(prefixes_at)?.ipv6_count;
        if ipv6_count > 8 {
            return Err(DecodeError::Ipv6Count(ipv6_count));
        }
        let v1 = match header.typev1() {
            Some(flavours) => Some(V1Offer { flavours, prefixes: Prefixes::parse(area, prefixes_at)? }),
            None => None,
        };
        let roce = RoceIdentity { id_for_peer: base.id_for_peer, gid: base.roce_gid, mac: base.roce_mac };
        let mut proposal = Self { version: header.version(), roce, smcd: None, v1, v2: None };
        let has_area = usize::from(iparea_offset) == SMCD_AREA_LEN;
        let parts = if header.version().is_v1() {
            proposal.parse_v1(area, has_area)?;
            prefixes_at + proposal.prefixes_len() + TRAILER_LEN
        } else {
            let v2_len = proposal.parse_v2(header, area, has_area)?;
            BASE_LEN + SMCD_AREA_LEN + proposal.prefixes_len() + v2_len + TRAILER_LEN
        };
        let announced = header.length();
        if parts == announced { Ok(proposal) } else { Err(DecodeError::ProposalLength { announced, parts }) }
    }

    /// Fills in what only a message of version 1 has.
    fn parse_v1(&mut self, area: Area<'_>, has_area: bool) -> Result<(), DecodeError> {
        if self.v1.is_none() {
            return Err(DecodeError::NothingOffered);
        }
        if has_area {
            self.smcd = Some(area.at::<RawSmcdArea>(BASE_LEN)?.into());
        }
        Ok(())
    }

    /// Fills in what only later versions have. Returns the length in bytes of the v2 extensions.
    fn parse_v2(&mut self, header: Header, area: Area<'_>, at_40: bool) -> Result<usize, DecodeError> {
        let raw: RawSmcdArea = area.at(BASE_LEN)?;
        // Linux 7.3: if SMC-D v1 is offered, the prefix area must follow the SMC-D area, or there is none.
        let present = at_40 || !self.v1.as_ref().is_some_and(|v1| v1.flavours.has_d());
        let v2_ext_offset = raw.v2_ext_offset.get();
        self.smcd = Some(if present { raw.into() } else { SmcdArea::default() });
        let Some(flavours) = header.typev2() else { return Ok(0) };
        if !present || !(1..=V2_EXT_OFFSET_MAX).contains(&v2_ext_offset) {
            return Err(DecodeError::V2ExtensionOffset(v2_ext_offset));
        }
        let (v2, len) = V2Offer::parse(flavours, area, V2_EXT_BASE + usize::from(v2_ext_offset))?;
        self.v2 = Some(v2);
        Ok(len)
    }
}

impl SmcdArea {
    fn emit(&self, v2_ext_offset: u16, buf: &mut impl BufMut) {
        let raw = RawSmcdArea {
            gid: self.gid.into(),
            chid: self.chid.0.into(),
            v2_ext_offset: v2_ext_offset.into(),
            vendor_oui: self.vendor_oui,
            vendor_options: self.vendor_options,
            reserved: [0; 20],
        };
        buf.put_slice(raw.as_bytes());
    }
}

/// No device.
impl Default for SmcdArea {
    fn default() -> Self {
        Self { gid: 0, chid: Chid(0), vendor_oui: [0; 3], vendor_options: [0; 5] }
    }
}

impl From<RawSmcdArea> for SmcdArea {
    fn from(raw: RawSmcdArea) -> Self {
        Self {
            gid: raw.gid.get(),
            chid: Chid(raw.chid.get()),
            vendor_oui: raw.vendor_oui,
            vendor_options: raw.vendor_options,
        }
    }
}

#[cfg(test)]
mod tests;
