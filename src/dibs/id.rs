//! The identifiers of DIBS: fabric, device, buffer, VLAN.

use std::fmt;

/// Global identifier of a DIBS device: 128 bits, in network byte order.
///
/// A device of an emulated fabric (see [`Chid::is_emulated`]) uses all 16 bytes, a UUID. An ISM function uses
/// the first 8; the others are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Gid([u8; 16]);

impl Gid {
    /// The GID with these bytes, as they appear on the wire.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The GID whose halves are `gid` (bytes 0-7) and `gid_ext` (bytes 8-15), as CLC messages carry them.
    pub const fn from_halves(gid: u64, gid_ext: u64) -> Self {
        Self((((gid as u128) << 64) | gid_ext as u128).to_be_bytes())
    }

    /// A GID that no other device has: a UUID of version 4, variant 1, as Linux' loopback device has. So neither half is
    /// zero.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub(crate) fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self(bytes))
    }

    /// All 16 bytes in network byte order.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Bytes 0-7 as a number: the whole GID of an ISM function.
    pub const fn high(self) -> u64 {
        (u128::from_be_bytes(self.0) >> 64) as u64
    }

    /// Bytes 8-15 as a number: `gid_ext` of CLC, zero for an ISM function.
    pub const fn low(self) -> u64 {
        u128::from_be_bytes(self.0) as u64
    }
}

/// Writes the GID in the form of a UUID.
impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = u128::from_be_bytes(self.0);
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            v >> 96,
            (v >> 80) & 0xffff,
            (v >> 64) & 0xffff,
            (v >> 48) & 0xffff,
            v & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gid({self})")
    }
}

/// Fabric identifier of a DIBS device (the PCHID of an ISM function); SMC calls it CHID.
///
/// Devices with different fabric ids never reach each other; devices with equal ids may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Chid(pub u16);

impl Chid {
    /// True for fabric ids 0xFF00 to 0xFFFF: emulated fabrics, whose devices have 128-bit GIDs.
    pub const fn is_emulated(self) -> bool {
        self.0 & 0xff00 == 0xff00
    }
}

impl fmt::Display for Chid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// Names one DMB in its fabric and authenticates access to it: 64 bits that cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DmbToken(pub u64);

impl fmt::Display for DmbToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

impl fmt::Debug for DmbToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmbToken({self})")
    }
}

/// VLAN identifier, 1 to 4094 in use; SMC also passes the reserved id 0x1FFF to ask for "SMC-D v2".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VlanId(pub u16);

impl VlanId {
    /// Reserved id that SMC uses in reachability queries of version 2.
    pub const ISM_V2: Self = Self(0x1fff);
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gid_halves_are_the_wire_bytes() {
        let gid = Gid::from_halves(0x3f25_04e0_4f89_41d3, 0x9a0c_0305_e82c_3301);
        assert_eq!(gid.to_string(), "3f2504e0-4f89-41d3-9a0c-0305e82c3301");
        assert_eq!(gid.to_bytes()[..4], [0x3f, 0x25, 0x04, 0xe0]);
        assert_eq!((gid.high(), gid.low()), (0x3f25_04e0_4f89_41d3, 0x9a0c_0305_e82c_3301));
    }

    #[test]
    fn emulated_fabrics() {
        assert!(Chid(0xffff).is_emulated());
        assert!(Chid(0xff00).is_emulated());
        assert!(!Chid(0xfeff).is_emulated());
    }
}
