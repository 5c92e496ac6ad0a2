//! Where everything lies in a region. `LAYOUT.md` beside this file says what it means, and who writes it.
//!
//! Nothing here touches the region. All places are computed from a [`Geometry`], which is checked once.

use std::ops::Range;

use crate::dibs::{Chid, DmbToken};

/// Everything in a region lies at multiples of this, and so do DMBs.
pub(crate) const PAGE: usize = 4096;

/// Most slots that a region can have.
pub(crate) const MAX_SLOTS: usize = 64;

/// Bytes of a header.
pub(crate) const HEADER_LEN: usize = 36;

const MAGIC: [u8; 8] = *b"smcdreg1";
const VERSION: u32 = 1;

/// Where the connections of the server's clients are noted.
const CONNECTIONS: usize = PAGE;
/// Where the first slot lies.
const SLOTS: usize = 2 * PAGE;
/// Bytes of a directory entry.
const ENTRY: usize = 256;

/// Fabric id of a region, if nobody asks for another.
pub const REGION_FABRIC: Chid = Chid(0xff52);

/// How the others know that an endpoint has come to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Liveness {
    /// A server says who is connected to it.
    Server,
    /// Each holds a lock on a byte of the file.
    Locks,
    /// Each changes a word every 100 ms. For memory that several machines share.
    Heartbeats,
}

impl Liveness {
    const fn code(self) -> u32 {
        match self {
            Self::Server => 1,
            Self::Locks => 2,
            Self::Heartbeats => 3,
        }
    }

    const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Server),
            2 => Some(Self::Locks),
            3 => Some(Self::Heartbeats),
            _ => None,
        }
    }
}

/// What the header of a region says: how the region is divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    bytes: usize,
    slots: usize,
    entries: usize,
    fabric: Chid,
    liveness: Liveness,
}

/// Why there can be no such region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// It does not begin as a region does.
    #[error("the memory is not a region")]
    NoRegion,
    /// It is of a version that is not known here.
    #[error("the region has layout version {0}, where {VERSION} is known")]
    Version(u32),
    /// From 2 to 64 slots can be.
    #[error("a region cannot have {0} slots; 2 to 64 can be")]
    Slots(usize),
    /// From 16 to 1024 entries can be, in steps of 16.
    #[error("a slot cannot have {0} DMBs; 16 to 1024 can be, in steps of 16")]
    Entries(usize),
    /// The fabric ids of emulated devices are 0xFF00 to 0xFFFE.
    #[error("{0} is not the fabric id of an emulated device; these are 0xff00 to 0xfffe")]
    Fabric(Chid),
    /// The way in which ends are known is not known itself.
    #[error("the region has liveness {0}, which is not known")]
    Liveness(u32),
    /// The region is larger than the memory, or not of whole pages, or too small for a DMB for each slot.
    #[error("{bytes} bytes cannot be divided so, or are more than the {memory} bytes of the memory")]
    Size {
        /// Bytes of the region.
        bytes: u64,
        /// Bytes of the memory.
        memory: usize,
    },
}

impl Geometry {
    /// A region of so many bytes, for so many endpoints with so many DMBs each.
    ///
    /// # Errors
    /// If there can be no such region.
    pub fn new(
        bytes: usize,
        slots: usize,
        entries: usize,
        fabric: Chid,
        liveness: Liveness,
    ) -> Result<Self, LayoutError> {
        let size = LayoutError::Size { bytes: bytes as u64, memory: bytes };
        if !(2..=MAX_SLOTS).contains(&slots) {
            return Err(LayoutError::Slots(slots));
        }
        if !(16..=1024).contains(&entries) || !entries.is_multiple_of(16) {
            return Err(LayoutError::Entries(entries));
        }
        if !(0xff00..=0xfffe).contains(&fabric.0) {
            return Err(LayoutError::Fabric(fabric));
        }
        let geometry = Self { bytes, slots, entries, fabric, liveness };
        // Slices of at least a DMB; then nothing below can wrap or be empty.
        let least = geometry.slices() + slots * 4 * PAGE;
        if bytes < least || !bytes.is_multiple_of(PAGE) { Err(size) } else { Ok(geometry) }
    }

    /// What the header says of a region in memory of `memory` bytes.
    ///
    /// # Errors
    /// If it is no header, or no region can be as it says.
    pub(crate) fn parse(header: &[u8; HEADER_LEN], memory: usize) -> Result<Self, LayoutError> {
        if header[..8] != MAGIC {
            return Err(LayoutError::NoRegion);
        }
        let version = le32(header, 8);
        if version != VERSION {
            return Err(LayoutError::Version(version));
        }
        let bytes = u64::from(le32(header, 20)) << 32 | u64::from(le32(header, 16));
        let too_large = LayoutError::Size { bytes, memory };
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= memory).ok_or(too_large)?;
        let fabric = le32(header, 12);
        // What does not fit is none of an emulated device either.
        let fabric = Chid(u16::try_from(fabric).unwrap_or(0));
        let code = le32(header, 32);
        let liveness = Liveness::from_code(code).ok_or(LayoutError::Liveness(code))?;
        Self::new(bytes, le32(header, 24) as usize, le32(header, 28) as usize, fabric, liveness)
    }

    /// The header that says so.
    pub(crate) fn header(&self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&u32::from(self.fabric.0).to_le_bytes());
        header[16..24].copy_from_slice(&(self.bytes as u64).to_le_bytes());
        // Both are small.
        header[24..28].copy_from_slice(&(self.slots as u32).to_le_bytes());
        header[28..32].copy_from_slice(&(self.entries as u32).to_le_bytes());
        header[32..36].copy_from_slice(&self.liveness.code().to_le_bytes());
        header
    }

    /// Bytes of the region.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many endpoints there can be at once.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// How many DMBs each can have.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// The fabric id.
    pub fn fabric(&self) -> Chid {
        self.fabric
    }

    /// How ends are known.
    pub fn liveness(&self) -> Liveness {
        self.liveness
    }

    fn area(&self) -> usize {
        PAGE + self.entries * ENTRY
    }

    /// The control page of a slot.
    pub(crate) fn control(&self, slot: usize) -> usize {
        SLOTS + slot * self.area()
    }

    /// What the endpoint of one slot says to that of another.
    pub(crate) fn said(&self, from: usize, to: usize) -> usize {
        self.control(from) + 2048 + 32 * to
    }

    /// An entry of a slot's directory.
    pub(crate) fn entry(&self, slot: usize, entry: usize) -> usize {
        self.control(slot) + PAGE + entry * ENTRY
    }

    fn slices(&self) -> usize {
        SLOTS + self.slots * self.area()
    }

    /// The memory for the DMBs of a slot.
    pub(crate) fn slice(&self, slot: usize) -> Range<usize> {
        let len = (self.bytes - self.slices()) / self.slots / PAGE * PAGE;
        let start = self.slices() + slot * len;
        start..start + len
    }
}

/// The word that says who is connected to the server as this slot. The same in all regions.
pub(crate) const fn connection(slot: usize) -> usize {
    CONNECTIONS + 64 + 8 * slot
}

/// Offsets in a control page.
pub(crate) mod control {
    /// Word of 64 bits: present or not, and the incarnation.
    pub(crate) const STATE: usize = 0;
    /// 16 bytes.
    pub(crate) const GID: usize = 8;
    /// Word of 32 bits.
    pub(crate) const FLAGS: usize = 24;
    /// Word of 64 bits.
    pub(crate) const HEARTBEAT: usize = 32;
    /// 16-bit numbers, two in a word.
    pub(crate) const VLANS: usize = 128;
    /// How many VLANs there can be.
    pub(crate) const MAX_VLANS: usize = 64;

    /// In the state: the endpoint is there.
    pub(crate) const PRESENT: u64 = 1;
    /// In the flags: the endpoint looks at a DMB only after a signal.
    pub(crate) const SIGNALLED: u32 = 1;
    /// In the flags: the endpoint has a doorbell.
    pub(crate) const BELLED: u32 = 2;
}

/// Offsets in what one endpoint says to another. Words of 32 bits but for the data.
pub(crate) mod said {
    /// How often it has signalled.
    pub(crate) const RUNG: usize = 0;
    /// Number of the last event sent.
    pub(crate) const EVENT: usize = 4;
    /// Data of that event, 64 bits.
    pub(crate) const DATA: usize = 8;
    /// Code of that event.
    pub(crate) const CODE: usize = 16;
    /// Number of the last event taken.
    pub(crate) const TAKEN: usize = 20;
}

/// Offsets in a directory entry.
pub(crate) mod entry {
    /// Word of 64 bits.
    pub(crate) const TOKEN: usize = 0;
    /// Word of 64 bits.
    pub(crate) const OFFSET: usize = 8;
    /// Word of 64 bits.
    pub(crate) const LEN: usize = 16;
    /// 16 bytes.
    pub(crate) const USER_GID: usize = 24;
    /// Word of 32 bits.
    pub(crate) const USER_SLOT: usize = 40;
    /// Word of 32 bits.
    pub(crate) const VLAN: usize = 44;
    /// Word of 32 bits.
    pub(crate) const USER_INCARNATION: usize = 48;
    /// Word of 32 bits.
    pub(crate) const ARMED_DATA: usize = 64;
    /// Word of 32 bits.
    pub(crate) const ARMED_SPACE: usize = 68;
    /// Word of 32 bits; the user's.
    pub(crate) const MOVES: usize = 128;
    /// Word of 32 bits; the user's.
    pub(crate) const HELD: usize = 132;
    /// Word of 32 bits; the user's.
    pub(crate) const MAPPED: usize = 136;
}

/// A token, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TokenParts {
    /// The owner's slot, as the token has it: less than 64.
    pub(crate) slot: usize,
    /// The entry, as the token has it: less than 1024.
    pub(crate) entry: usize,
}

impl TokenParts {
    pub(crate) fn of(token: DmbToken) -> Self {
        Self { slot: (token.0 >> 10 & 0x3f) as usize, entry: (token.0 & 0x3ff) as usize }
    }

    /// The token with these parts, and 48 bits of `random`. Never zero, which would be no token.
    pub(crate) fn token(self, random: u64) -> DmbToken {
        let random = (random & 0xffff_ffff_ffff).max(1);
        DmbToken(random << 16 | (self.slot as u64 & 0x3f) << 10 | self.entry as u64 & 0x3ff)
    }
}

fn le32(bytes: &[u8; HEADER_LEN], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn geometry() -> Geometry {
        Geometry::new(64 << 20, 8, 256, REGION_FABRIC, Liveness::Locks).unwrap()
    }

    #[test]
    fn a_header_has_these_bytes() {
        let expected = [
            b"smcdreg1".as_slice(),
            &[1, 0, 0, 0],
            &[0x52, 0xff, 0, 0],
            &[0, 0, 0, 4, 0, 0, 0, 0],
            &[8, 0, 0, 0],
            &[0, 1, 0, 0],
            &[2, 0, 0, 0],
        ];
        assert_eq!(geometry().header().as_slice(), expected.concat());
    }

    #[test]
    fn places_are_those_of_the_description() {
        let geometry = geometry();
        assert_eq!(connection(3), 4096 + 64 + 24);
        assert_eq!(geometry.control(0), 8192);
        assert_eq!(geometry.control(2), 8192 + 2 * (4096 + 256 * 256));
        assert_eq!(geometry.said(2, 5), geometry.control(2) + 2048 + 160);
        assert_eq!(geometry.entry(2, 7), geometry.control(2) + 4096 + 7 * 256);
        assert_eq!(geometry.slice(0).start, geometry.control(8));
        assert!(geometry.slice(7).end <= 64 << 20);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let of = |bytes, slots, entries, fabric| {
            Geometry::new(bytes, slots, entries, Chid(fabric), Liveness::Server).unwrap_err()
        };
        assert_eq!(of(1 << 20, 1, 16, 0xff52), LayoutError::Slots(1));
        assert_eq!(of(1 << 30, 65, 16, 0xff52), LayoutError::Slots(65));
        assert_eq!(of(1 << 20, 2, 8, 0xff52), LayoutError::Entries(8));
        assert_eq!(of(1 << 20, 2, 24, 0xff52), LayoutError::Entries(24));
        assert_eq!(of(1 << 30, 2, 1040, 0xff52), LayoutError::Entries(1040));
        assert_eq!(of(1 << 20, 2, 16, 0xffff), LayoutError::Fabric(Chid(0xffff)));
        assert_eq!(of(1 << 20, 2, 16, 0xfeff), LayoutError::Fabric(Chid(0xfeff)));
        assert!(matches!(of(8192, 2, 16, 0xff52), LayoutError::Size { .. }));
        assert!(matches!(of((1 << 20) + 1, 2, 16, 0xff52), LayoutError::Size { .. }));
    }

    #[test]
    fn a_region_must_fit_its_memory() {
        let header = geometry().header();
        assert_eq!(Geometry::parse(&header, 64 << 20), Ok(geometry()));
        assert!(matches!(Geometry::parse(&header, (64 << 20) - 1), Err(LayoutError::Size { .. })));
    }

    proptest! {
        #[test]
        fn any_header_is_taken_or_refused(mut header: [u8; HEADER_LEN], is_ours: bool) {
            if is_ours {
                header[..12].copy_from_slice(&geometry().header()[..12]);
            }
            if let Ok(geometry) = Geometry::parse(&header, 1 << 30) {
                prop_assert!(geometry.slice(geometry.slots() - 1).end <= geometry.bytes());
                prop_assert!(geometry.bytes() <= 1 << 30);
            }
        }

        #[test]
        fn what_is_told_is_understood(
            slots in 2usize..=64, entries in 1usize..=64, pages in 0usize..100_000, fabric in 0xff00u16..=0xfffe,
        ) {
            let made = Geometry::new(pages * PAGE, slots, entries * 16, Chid(fabric), Liveness::Server);
            if let Ok(made) = made {
                prop_assert_eq!(Geometry::parse(&made.header(), made.bytes()), Ok(made));
                for slot in 0..slots {
                    let slice = made.slice(slot);
                    let next = if slot + 1 == slots { made.bytes() } else { made.slice(slot + 1).start };
                    prop_assert!(slice.len() >= 4 * PAGE && slice.start.is_multiple_of(PAGE));
                    prop_assert!(made.entry(slot, made.entries() - 1) + ENTRY <= made.slice(0).start);
                    prop_assert!(slice.end <= next);
                }
            }
        }

        #[test]
        fn tokens_lead_to_their_entries(random: u64, slot in 0usize..64, entry in 0usize..1024) {
            let parts = TokenParts { slot, entry };
            let token = parts.token(random);
            prop_assert_eq!(TokenParts::of(token), parts);
            prop_assert_ne!(token.0, 0);
        }
    }
}
