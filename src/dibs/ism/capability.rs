//! What is to be known of a function beside its regions, for those who have no more than these: a vendor's capability in the
//! configuration space. Linux tells the same of a real function in other ways.
//!
//! Little-endian:
//!
//! | byte | content |
//! |---|---|
//! | 0 | 0x09, the place of the next capability, 40, 1: a vendor's capability of 40 bytes, in its first form |
//! | 4 | fabric (PCHID), 16 bits |
//! | 6 | bytes of the longest store block, 16 bits |
//! | 8 | first address for memory, 64 bits |
//! | 16 | last address for memory, 64 bits |
//! | 24 | PNETID in ASCII, 16 bytes; zero if there is none |

use super::transport::{Description, config};
use crate::dibs::{Chid, PnetId};

const LEN: usize = 40;
const VENDOR: u8 = 9;
const FORM: u8 = 1;

/// A configuration space has no more capabilities than this.
const MOST: usize = 48;

/// The capability, as the last one.
pub(super) fn emit(description: &Description) -> [u8; LEN] {
    let longest = u16::try_from(description.max_store).unwrap_or(u16::MAX).to_le_bytes();
    let [f0, f1] = description.fabric.0.to_le_bytes();
    let head = [VENDOR, 0, LEN as u8, FORM, f0, f1, longest[0], longest[1]];
    let (start, last) = (description.window.start, description.window.end.saturating_sub(1));
    let name = description.pnetid.map_or([0; PnetId::LEN], PnetId::to_bytes);
    let mut bytes = [0; LEN];
    let parts = [head, start.to_le_bytes(), last.to_le_bytes()];
    bytes.iter_mut().zip(parts.into_iter().flatten().chain(name)).for_each(|(to, from)| *to = from);
    bytes
}

/// What the first such capability of a configuration space says; `None` if there is none.
pub(super) fn find(space: &[u8]) -> Option<Description> {
    if space.get(config::STATUS)? & config::HAS_CAPABILITIES == 0 {
        return None;
    }
    let mut at = usize::from(*space.get(config::CAPABILITIES)?);
    for _ in 0..MOST {
        let [kind, next, ..] = *space.get(at..)?.first_chunk::<4>()?;
        if at == 0 {
            return None;
        }
        if kind == VENDOR
            && let Some(found) = space.get(at..).and_then(parse)
        {
            return Some(found);
        }
        at = usize::from(next);
    }
    None
}

fn parse(bytes: &[u8]) -> Option<Description> {
    let bytes = bytes.first_chunk::<LEN>()?;
    let (head, name) = bytes.split_last_chunk::<{ PnetId::LEN }>()?;
    let (words, _) = head.as_chunks::<8>();
    let [[_, _, len, form, fabric @ .., l0, l1], start, last] = *words else { return None };
    (usize::from(len) == LEN && form == FORM).then(|| Description {
        fabric: Chid(u16::from_le_bytes(fabric)),
        window: u64::from_le_bytes(start)..u64::from_le_bytes(last).saturating_add(1),
        max_store: u16::from_le_bytes([l0, l1]).into(),
        pnetid: PnetId::from_bytes(*name),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn description() -> Description {
        let pnetid = "NET1".parse().ok();
        Description { fabric: Chid(0x1234), window: 0x1000..1 << 32, max_store: 4096, pnetid }
    }

    /// A space in which these are linked.
    fn space(capabilities: &[(u8, &[u8])]) -> [u8; 256] {
        let mut space = [0; 256];
        (space[6], space[0x34]) = (0x10, capabilities[0].0);
        for (number, (at, bytes)) in capabilities.iter().enumerate() {
            let at = usize::from(*at);
            space[at..at + bytes.len()].copy_from_slice(bytes);
            space[at + 1] = capabilities.get(number + 1).map_or(0, |next| next.0);
        }
        space
    }

    #[test]
    fn it_has_these_bytes() {
        let golden = [9, 0, 40, 1, 0x34, 0x12, 0, 0x10, 0, 0x10, 0, 0, 0, 0, 0, 0];
        assert_eq!(emit(&description())[..16], golden);
        assert_eq!(emit(&description())[16..24], [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(emit(&description())[24..], *b"NET1            ");
    }

    #[test]
    fn it_is_found_among_others() {
        let ours = emit(&description());
        let others: (u8, &[u8]) = (0x50, &[5, 0, 0, 0]);
        let foreign: (u8, &[u8]) = (0x60, &[9, 0, 40, 2]);
        assert_eq!(find(&space(&[(0x40, &ours)])), Some(description()));
        assert_eq!(find(&space(&[others, foreign, (0x80, &ours)])), Some(description()));
        assert_eq!(find(&space(&[others, foreign])), None);
        assert_eq!(find(&space(&[(250, &ours[..6])])), None, "over the end");
        let mut none = space(&[(0x40, &ours)]);
        none[6] = 0;
        assert_eq!(find(&none), None);
        let mut ring = space(&[others, foreign]);
        ring[0x61] = 0x50;
        assert_eq!(find(&ring), None, "for ever");
    }

    proptest! {
        #[test]
        fn whatever_stands_there(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            find(&bytes);
        }
    }
}
