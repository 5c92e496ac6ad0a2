//! The IP prefix area of a Proposal: in version 1, both ends must be in the same subnet.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::BufMut;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{DecodeError, UpTo, area::Area};

/// An IPv4 subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ipv4Prefix {
    /// Address of the subnet; its host bits are zero.
    pub addr: Ipv4Addr,
    /// Prefix length in bits.
    pub len: u8,
}

/// An IPv6 subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ipv6Prefix {
    /// Address of the subnet; its host bits are zero.
    pub addr: Ipv6Addr,
    /// Prefix length in bits.
    pub len: u8,
}

/// The subnets of the network device under a TCP connection.
///
/// Linux 7.3 sends the one IPv4 subnet of the local address or, for a native IPv6 connection, up to 8 IPv6
/// subnets of the device and an all-zero IPv4 subnet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prefixes {
    /// The IPv4 subnet; all zero in a list of IPv6 subnets.
    pub ipv4: Ipv4Prefix,
    /// The IPv6 subnets; empty for an IPv4 connection.
    pub ipv6: UpTo<Ipv6Prefix, 8>,
}

/// Layout of the area without its list.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawPrefixArea {
    ipv4_addr: [u8; 4],
    ipv4_len: u8,
    reserved: [u8; 2],
    pub(super) ipv6_count: u8,
}

/// Layout of one element of the list.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawIpv6Prefix {
    addr: [u8; 16],
    len: u8,
}

impl Ipv4Prefix {
    /// The subnet of `addr` with a prefix of `len` bits; more than 32 count as 32.
    pub fn of(addr: Ipv4Addr, len: u8) -> Self {
        let len = len.min(32);
        let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
        Self { addr: Ipv4Addr::from_bits(addr.to_bits() & mask), len }
    }
}

impl Ipv6Prefix {
    /// The subnet of `addr` with a prefix of `len` bits; more than 128 count as 128.
    pub fn of(addr: Ipv6Addr, len: u8) -> Self {
        let len = len.min(128);
        let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
        Self { addr: Ipv6Addr::from_bits(addr.to_bits() & mask), len }
    }
}

impl Prefixes {
    /// The one subnet of an IPv4 connection.
    pub const fn ipv4(subnet: Ipv4Prefix) -> Self {
        Self { ipv4: subnet, ipv6: UpTo::new() }
    }

    /// The subnets of an IPv6 connection.
    pub const fn ipv6(subnets: UpTo<Ipv6Prefix, 8>) -> Self {
        Self { ipv4: Ipv4Prefix { addr: Ipv4Addr::UNSPECIFIED, len: 0 }, ipv6: subnets }
    }

    /// True if a device in these subnets may serve a client that offers `theirs`.
    ///
    /// The rule of Linux 7.3: an offer without IPv6 subnets asks for the same IPv4 subnet, any other for one
    /// IPv6 subnet in common; lengths must be equal.
    pub fn serve(&self, theirs: &Self) -> bool {
        if theirs.ipv6.is_empty() {
            // An IPv6-only device has no IPv4 subnet, which must not pass for 0.0.0.0/0.
            self.ipv6.is_empty() && self.ipv4 == theirs.ipv4
        } else {
            self.ipv6.iter().any(|ours| theirs.ipv6.contains(ours))
        }
    }

    /// Length of the area in bytes.
    pub fn wire_len(&self) -> usize {
        RawPrefixArea::wire_len(self.ipv6.count())
    }

    pub(super) fn parse(area: Area<'_>, offset: usize) -> Result<Self, DecodeError> {
        let raw: RawPrefixArea = area.at(offset)?;
        let list: Vec<RawIpv6Prefix> = area.list(offset + size_of::<RawPrefixArea>(), raw.ipv6_count)?;
        let ipv6 = list.iter().map(|p| Ipv6Prefix { addr: p.addr.into(), len: p.len });
        Ok(Self {
            ipv4: Ipv4Prefix { addr: raw.ipv4_addr.into(), len: raw.ipv4_len },
            ipv6: UpTo::first_of(ipv6),
        })
    }

    pub(super) fn emit(&self, buf: &mut impl BufMut) {
        let head = RawPrefixArea {
            ipv4_addr: self.ipv4.addr.octets(),
            ipv4_len: self.ipv4.len,
            reserved: [0; 2],
            ipv6_count: self.ipv6.count(),
        };
        buf.put_slice(head.as_bytes());
        for prefix in &self.ipv6 {
            buf.put_slice(RawIpv6Prefix { addr: prefix.addr.octets(), len: prefix.len }.as_bytes());
        }
    }
}

impl RawPrefixArea {
    /// Length in bytes of an area with `ipv6_count` IPv6 subnets.
    pub(super) fn wire_len(ipv6_count: u8) -> usize {
        size_of::<Self>() + size_of::<RawIpv6Prefix>() * usize::from(ipv6_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(text: &str, len: u8) -> Ipv6Prefix {
        Ipv6Prefix::of(text.parse().unwrap(), len)
    }

    #[test]
    fn host_bits_are_cleared() {
        assert_eq!(Ipv4Prefix::of([127, 0, 0, 1].into(), 8).addr, Ipv4Addr::new(127, 0, 0, 0));
        assert_eq!(Ipv4Prefix::of([10, 1, 2, 3].into(), 0).addr, Ipv4Addr::UNSPECIFIED);
        assert_eq!(Ipv4Prefix::of([10, 1, 2, 3].into(), 99).addr, Ipv4Addr::new(10, 1, 2, 3));
        assert_eq!(v6("fd00:1:2:3::4", 64).addr, "fd00:1:2:3::".parse::<Ipv6Addr>().unwrap());
        assert_eq!(v6("::1", 128).addr, Ipv6Addr::LOCALHOST);
    }

    #[test]
    fn same_ipv4_subnet_serves() {
        let ours = Prefixes::ipv4(Ipv4Prefix::of([10, 1, 2, 3].into(), 24));
        assert!(ours.serve(&Prefixes::ipv4(Ipv4Prefix::of([10, 1, 2, 9].into(), 24))));
        assert!(!ours.serve(&Prefixes::ipv4(Ipv4Prefix::of([10, 1, 3, 9].into(), 24))));
        assert!(!ours.serve(&Prefixes::ipv4(Ipv4Prefix::of([10, 1, 2, 9].into(), 25))));
    }

    #[test]
    fn one_common_ipv6_subnet_serves() {
        let ours = Prefixes::ipv6(UpTo::first_of([v6("fd00:1::", 64), v6("fd00:2::", 64)]));
        assert!(ours.serve(&Prefixes::ipv6(UpTo::first_of([v6("fd00:3::", 64), v6("fd00:2::", 64)]))));
        assert!(!ours.serve(&Prefixes::ipv6(UpTo::first_of([v6("fd00:2::", 63)]))));
        assert!(!ours.serve(&Prefixes::ipv4(Ipv4Prefix::of([0, 0, 0, 0].into(), 0))));
    }
}
