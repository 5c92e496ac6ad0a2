//! The first contact extension: what two hosts tell each other once per link group.

use std::fmt;

use bytes::BufMut;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16};

use super::{DecodeError, Hostname, area::Area};

/// Operating system of an endpoint: a 4-bit code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Os(u8);

impl Os {
    /// z/OS.
    pub const ZOS: Self = Self(1);
    /// Linux.
    pub const LINUX: Self = Self(2);
    /// AIX.
    pub const AIX: Self = Self(3);

    /// The system with this code; only the low 4 bits count.
    pub const fn from_nibble(code: u8) -> Self {
        Self(code & 0x0f)
    }

    /// The code, 0 to 15.
    pub const fn nibble(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Os {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ZOS => f.write_str("z/OS"),
            Self::LINUX => f.write_str("Linux"),
            Self::AIX => f.write_str("AIX"),
            Self(code) => write!(f, "OS {code}"),
        }
    }
}

/// Release of version 2: a 4-bit number, 1 for v2.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Release(u8);

impl Release {
    /// v2.0.
    pub const R0: Self = Self(0);
    /// v2.1.
    pub const R1: Self = Self(1);

    /// The release with this number; only the low 4 bits count.
    pub const fn from_nibble(number: u8) -> Self {
        Self(number & 0x0f)
    }

    /// The number, 0 to 15.
    pub const fn nibble(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// First contact extension (FCE) of an Accept or Confirm of version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FirstContact {
    /// SMC-R only: the hosts are directly connected.
    pub v2_direct: bool,
    /// Operating system of the sender.
    pub os: Os,
    /// The negotiated release.
    pub release: Release,
    /// Name of the sender.
    pub hostname: Hostname,
    /// What releases from 1 on add; `None` in release 0, or if the message is too short to hold it. Not emitted
    /// in release 0.
    pub v2x: Option<FirstContactV2x>,
}

/// The part of the first contact extension that release 1 added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FirstContactV2x {
    /// Features of the sender, see [`FEATURE_EMULATED_ISM`](super::FEATURE_EMULATED_ISM).
    pub feature_mask: u16,
    /// Experimental options of the vendor.
    pub vendor_options: [u8; 4],
}

/// Layout of the part that every release has.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFirstContact {
    flags: u8,
    os_and_release: u8,
    reserved: [u8; 2],
    hostname: Hostname,
}

/// Layout of the part that release 1 added.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFirstContactV2x {
    smcr: [u8; 2],
    feature_mask: U16,
    vendor_options: [u8; 4],
    reserved: [u8; 8],
}

const V2_DIRECT: u8 = 0x80;

impl FirstContact {
    /// Length of the extension in bytes: 36, or 52 from release 1 on.
    pub fn wire_len(&self) -> usize {
        size_of::<RawFirstContact>() + self.v2x_on_wire().map_or(0, |_| size_of::<RawFirstContactV2x>())
    }

    fn v2x_on_wire(&self) -> Option<&FirstContactV2x> {
        self.v2x.as_ref().filter(|_| self.release >= Release::R1)
    }

    /// Reads the extension from an area that ends where the message does, less its trailer.
    pub(super) fn parse(area: Area<'_>, offset: usize) -> Result<Self, DecodeError> {
        let raw: RawFirstContact = area.at(offset)?;
        let release = Release::from_nibble(raw.os_and_release);
        let v2x = area.at::<RawFirstContactV2x>(offset + size_of::<RawFirstContact>()).ok();
        Ok(Self {
            v2_direct: raw.flags & V2_DIRECT != 0,
            os: Os::from_nibble(raw.os_and_release >> 4),
            release,
            hostname: raw.hostname,
            v2x: v2x.filter(|_| release >= Release::R1).map(|raw| FirstContactV2x {
                feature_mask: raw.feature_mask.get(),
                vendor_options: raw.vendor_options,
            }),
        })
    }

    pub(super) fn emit(&self, buf: &mut impl BufMut) {
        let raw = RawFirstContact {
            flags: if self.v2_direct { V2_DIRECT } else { 0 },
            os_and_release: self.os.nibble() << 4 | self.release.nibble(),
            reserved: [0; 2],
            hostname: self.hostname,
        };
        buf.put_slice(raw.as_bytes());
        if let Some(v2x) = self.v2x_on_wire() {
            let raw = RawFirstContactV2x {
                smcr: [0; 2],
                feature_mask: v2x.feature_mask.into(),
                vendor_options: v2x.vendor_options,
                reserved: [0; 8],
            };
            buf.put_slice(raw.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_systems() {
        assert_eq!(Os::from_nibble(0x52).to_string(), "Linux");
        assert_eq!(Os::from_nibble(9).to_string(), "OS 9");
    }

    #[test]
    fn release_1_adds_16_bytes() {
        let v2x = Some(FirstContactV2x { feature_mask: 1, vendor_options: [0; 4] });
        let hostname = Hostname::BLANK;
        let mut fce = FirstContact { v2_direct: false, os: Os::LINUX, release: Release::R1, hostname, v2x };
        assert_eq!(fce.wire_len(), 52);
        fce.release = Release::R0;
        assert_eq!(fce.wire_len(), 36);
    }
}
