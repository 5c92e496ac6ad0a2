//! The SMC-D v2 extension of a Proposal: the SEID and the devices on offer.

use bytes::BufMut;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::*};

use super::{DecodeError, Eid, ListFull, UpTo, area::Area};
use crate::dibs::{Chid, Gid};

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
    /// Appends a device to the list.
    ///
    /// # Errors
    ///
    /// [`ListFull`] if its one or two entries do not fit. The list is then as before.
    pub fn push_device(&mut self, gid: Gid, chid: Chid) -> Result<(), ListFull> {
        if chid.is_emulated() && self.entries.room() < 2 {
            return Err(ListFull { max: 8 });
        }
        self.entries.push(GidEntry { gid: gid.high(), chid })?;
        if chid.is_emulated() { self.entries.push(GidEntry { gid: gid.low(), chid }) } else { Ok(()) }
    }

    /// The devices in the list. Of an emulated fabric, an entry whose second half does not follow is left out.
    pub fn devices(&self) -> Vec<(Gid, Chid)> {
        let mut devices = Vec::new();
        let mut rest = &*self.entries;
        while let [entry, tail @ ..] = rest {
            rest = tail;
            let chid = entry.chid;
            if !chid.is_emulated() {
                devices.push((Gid::from_halves(entry.gid, 0), chid));
            } else if let [second, tail @ ..] = tail
                && second.chid == chid
            {
                devices.push((Gid::from_halves(entry.gid, second.gid), chid));
                rest = tail;
            }
        }
        devices
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    const ISM: Chid = Chid(0x07c1);
    const LOOPBACK: Chid = Chid(0xffff);
    const VIRTIO: Chid = Chid(0xff00);

    fn devices(entries: &[(u64, Chid)]) -> Vec<(Gid, Chid)> {
        let entries = entries.iter().map(|&(gid, chid)| GidEntry { gid, chid });
        SmcdV2Extension { entries: UpTo::first_of(entries), ..Default::default() }.devices()
    }

    #[test]
    fn emulated_device_takes_two_entries() {
        let list = [(1, LOOPBACK), (2, LOOPBACK), (3, ISM)];
        assert_eq!(devices(&list), [(Gid::from_halves(1, 2), LOOPBACK), (Gid::from_halves(3, 0), ISM)]);
    }

    #[test]
    fn half_of_an_emulated_device_is_skipped_alone() {
        assert_eq!(devices(&[(1, LOOPBACK), (3, ISM)]), [(Gid::from_halves(3, 0), ISM)]);
        assert_eq!(devices(&[(1, LOOPBACK), (3, VIRTIO), (4, VIRTIO)]), [(Gid::from_halves(3, 4), VIRTIO)]);
        assert_eq!(devices(&[(3, ISM), (1, LOOPBACK)]), [(Gid::from_halves(3, 0), ISM)]);
    }

    #[test]
    fn device_that_does_not_fit_leaves_the_list_as_it_was() {
        let mut extension = SmcdV2Extension::default();
        let gid = Gid::from_halves(1, 2);
        for i in 0..7 {
            extension.push_device(gid, Chid(i)).unwrap();
        }
        assert_eq!(extension.push_device(gid, LOOPBACK), Err(ListFull { max: 8 }));
        assert_eq!(extension.entries.len(), 7);
        extension.push_device(gid, Chid(7)).unwrap();
        assert_eq!(extension.push_device(gid, Chid(8)), Err(ListFull { max: 8 }));
    }
}
