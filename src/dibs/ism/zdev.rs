//! What Linux tells of a PCI function of IBM Z: capabilities behind `vfio_device_info`, in the order of bytes of the host.

use super::transport::Description;
use crate::dibs::{Chid, PnetId};

/// In the flags: there are capabilities.
const HAS_CAPABILITIES: u32 = 1 << 7;
/// Where the place of the first one is.
const FIRST: usize = 16;
/// Capabilities that are looked at.
const MOST: usize = 16;

const BASE: u16 = 1;
const GROUP: u16 = 2;
const UTILITY: u16 = 3;

/// The kind of function that ISM is.
const ISM: u8 = 5;

/// What is known of an ISM function; `None` if it is something else, or not all is told.
pub(super) fn describe(info: &[u8]) -> Option<Description> {
    if u32_at(info, 4)? & HAS_CAPABILITIES == 0 {
        return None;
    }
    let base = find(info, BASE, 3)?;
    let group = find(info, GROUP, 2)?;
    if *base.get(30)? != ISM {
        return None;
    }
    let name = find(info, UTILITY, 1).and_then(|utility| utility.get(12..)?.first_chunk().copied());
    Some(Description {
        fabric: Chid(u16_at(base, 24)?),
        window: u64_at(base, 8)?..u64_at(base, 16)?.saturating_add(1),
        max_store: u16_at(group, 40)?.into(),
        pnetid: name.and_then(PnetId::from_ebcdic),
    })
}

/// A capability of at least this version, and all behind it.
fn find(info: &[u8], id: u16, version: u16) -> Option<&[u8]> {
    let mut at = u32_at(info, FIRST)? as usize;
    for _ in 0..MOST {
        if at == 0 {
            return None;
        }
        let capability = info.get(at..)?;
        if u16_at(capability, 0)? == id && u16_at(capability, 2)? >= version {
            return Some(capability);
        }
        at = u32_at(capability, 4)? as usize;
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `ism-vfio-pci` tells, as `spec` has it: base at 24, group at 64, utility string at 112.
    fn info() -> Vec<u8> {
        let mut info = vec![0; 256];
        let mut put = |at: usize, bytes: &[u8]| info[at..at + bytes.len()].copy_from_slice(bytes);
        put(4, &(HAS_CAPABILITIES | 2).to_ne_bytes());
        put(16, &24u32.to_ne_bytes());
        for (at, id, version, next) in [(24, 1u16, 3u16, 64u32), (64, 2, 2, 112), (112, 3, 1, 0)] {
            put(at, &id.to_ne_bytes());
            put(at + 2, &version.to_ne_bytes());
            put(at + 4, &next.to_ne_bytes());
        }
        put(24 + 8, &0x1_0000_0000u64.to_ne_bytes());
        put(24 + 16, &0x1_ffff_ffffu64.to_ne_bytes());
        put(24 + 24, &0x07c0u16.to_ne_bytes());
        put(24 + 30, &[5]);
        put(64 + 36, &128u16.to_ne_bytes());
        put(64 + 40, &4096u16.to_ne_bytes());
        put(112 + 8, &64u32.to_ne_bytes());
        put(112 + 12, &[0x40; 64]);
        put(112 + 12, &[0xd5, 0xc5, 0xe3, 0xf1]);
        info
    }

    #[test]
    fn what_is_told() {
        let pnetid = "NET1".parse().ok();
        let expected =
            Description { fabric: Chid(0x07c0), window: 1 << 32..2 << 32, max_store: 4096, pnetid };
        assert_eq!(describe(&info()), Some(expected));
    }

    #[test]
    fn what_is_not() {
        for (at, byte) in [(24 + 30, 4), (24, 9), (64, 9), (24 + 4, 24)] {
            let mut info = info();
            info[at] = byte;
            assert_eq!(describe(&info), None, "{at}");
        }
        assert_eq!(describe(&info()[..100]), None);
        let mut plain = info();
        plain[112..116].fill(9);
        assert_eq!(describe(&plain).unwrap().pnetid, None);
        plain[4..8].fill(0);
        assert_eq!(describe(&plain), None);
    }

    proptest! {
        #[test]
        fn whatever_is_told(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            describe(&bytes);
        }
    }
}
