//! The v2 extension of a Proposal: release, UEIDs, and where the SMC-D v2 extension is.

use bytes::BufMut;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16};

use super::{
    DecodeError, Eid, Flavours, Release, SmcdV2Extension, UpTo, area::Area, smcd_v2_extension::extension_len,
};

/// Bit of the feature mask: the sender knows emulated fabrics. Informational in Linux 7.3.
pub const FEATURE_EMULATED_ISM: u16 = 0x0001;

/// The SMC-D v2 extension is found at 1 to 288 bytes from the end of the head; elsewhere it counts as absent.
const SMCD_V2_EXT_OFFSET_MAX: u16 = 32 + 32 * 8;

/// `smcd_v2_ext_offset` counts from here, in bytes from the start of the v2 extension.
const SMCD_V2_EXT_BASE: usize = 8;

/// What a Proposal offers for version 2.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct V2Offer {
    /// The flavours offered.
    pub flavours: Flavours,
    /// Release of version 2 that the client speaks.
    pub release: Release,
    /// True if the SEID of [`V2Offer::smcd`] is offered along with the UEIDs.
    pub seid_offered: bool,
    /// RoCEv2 GID; SMC-R only.
    pub roce_gid: [u8; 16],
    /// Connections per link group; SMC-R only.
    pub max_conns: u8,
    /// Links per link group; SMC-R only.
    pub max_links: u8,
    /// Features the client knows, see [`FEATURE_EMULATED_ISM`].
    pub feature_mask: u16,
    /// The UEIDs, in the client's order of preference. Linux 7.3 sends up to 4.
    pub ueids: UpTo<Eid, 8>,
    /// SEID and devices for SMC-D. `None` if the extension is missing though SMC-D is offered, which a server
    /// declines, or if SMC-D is not offered, in which case it is not emitted either.
    pub smcd: Option<SmcdV2Extension>,
}

/// Layout of the extension without its list.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawV2Extension {
    eid_count: u8,
    gid_count: u8,
    reserved: u8,
    release_and_flags: u8,
    reserved2: [u8; 2],
    smcd_v2_ext_offset: U16,
    roce_gid: [u8; 16],
    max_conns: u8,
    max_links: u8,
    feature_mask: U16,
    reserved3: [u8; 12],
}

const HEAD_LEN: usize = size_of::<RawV2Extension>();

impl V2Offer {
    /// Length in bytes of the v2 extension and, if SMC-D is offered, the SMC-D v2 extension.
    pub fn wire_len(&self) -> usize {
        let smcd = if self.flavours.has_d() { extension_len(self.gid_count()) } else { 0 };
        self.head_and_ueids_len() + smcd
    }

    fn head_and_ueids_len(&self) -> usize {
        HEAD_LEN + size_of::<Eid>() * self.ueids.len()
    }

    fn gid_count(&self) -> u8 {
        self.smcd.as_ref().map_or(0, |smcd| smcd.entries.count())
    }

    /// Reads the extension at `offset`. Returns the offer, and the length in bytes that its counts imply.
    pub(super) fn parse(
        flavours: Flavours,
        area: Area<'_>,
        offset: usize,
    ) -> Result<(Self, usize), DecodeError> {
        let raw: RawV2Extension = area.at(offset)?;
        if raw.eid_count > 8 {
            return Err(DecodeError::UeidCount(raw.eid_count));
        }
        if flavours.has_d() && raw.gid_count > 8 {
            return Err(DecodeError::GidCount(raw.gid_count));
        }
        let smcd_offset = raw.smcd_v2_ext_offset.get();
        let smcd = if flavours.has_d() && (1..=SMCD_V2_EXT_OFFSET_MAX).contains(&smcd_offset) {
            let at = offset + SMCD_V2_EXT_BASE + usize::from(smcd_offset);
            Some(SmcdV2Extension::parse(area, at, raw.gid_count)?)
        } else {
            None
        };
        let offer = Self {
            flavours,
            release: Release::from_nibble(raw.release_and_flags >> 4),
            seid_offered: raw.release_and_flags & 1 != 0,
            roce_gid: raw.roce_gid,
            max_conns: raw.max_conns,
            max_links: raw.max_links,
            feature_mask: raw.feature_mask.get(),
            ueids: UpTo::first_of(area.list(offset + HEAD_LEN, raw.eid_count)?),
            smcd,
        };
        let smcd_len = if flavours.has_d() { extension_len(raw.gid_count) } else { 0 };
        let len = offer.head_and_ueids_len() + smcd_len;
        Ok((offer, len))
    }

    pub(super) fn emit(&self, buf: &mut impl BufMut) {
        let smcd = self.smcd.as_ref().filter(|_| self.flavours.has_d());
        let smcd_v2_ext_offset =
            smcd.map_or(0, |_| (self.head_and_ueids_len() - SMCD_V2_EXT_BASE) as u16 /* at most 288 */);
        let raw = RawV2Extension {
            eid_count: self.ueids.count(),
            gid_count: smcd.map_or(0, |smcd| smcd.entries.count()),
            reserved: 0,
            release_and_flags: self.release.nibble() << 4 | u8::from(self.seid_offered),
            reserved2: [0; 2],
            smcd_v2_ext_offset: smcd_v2_ext_offset.into(),
            roce_gid: self.roce_gid,
            max_conns: self.max_conns,
            max_links: self.max_links,
            feature_mask: self.feature_mask.into(),
            reserved3: [0; 12],
        };
        buf.put_slice(raw.as_bytes());
        for ueid in &self.ueids {
            buf.put_slice(ueid.as_bytes());
        }
        if self.flavours.has_d() {
            // A peer counts on the room of the extension even where it is told that there is none.
            smcd.cloned().unwrap_or_default().emit(buf);
        }
    }
}
