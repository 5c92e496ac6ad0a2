//! What the two devices of a link group say to each other, beside their connections (`spec/cdc-and-data.md` §12).

use crate::{clc::wire::LinkId, dibs::VlanId};

/// Code of the event that ends link groups.
const SHUTDOWN: u32 = 0x80;
/// Code of the event that asks for an answer.
const TEST_LINK: u32 = 0x83;

/// In the last two bytes of the data of a test.
const REQUEST: [u8; 2] = 1u16.to_ne_bytes();
const RESPONSE: [u8; 2] = 2u16.to_ne_bytes();

/// An event of SMC-D. Its data is eight bytes, each field in the order of the host: link id, VLAN, request or response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GroupEvent {
    /// The sender has let go of its group with us.
    Shutdown,
    /// The sender wants this data back.
    TestLink(u64),
}

/// Code and data of the event by which a group is ended.
pub(crate) fn shutdown(link: LinkId, vlan: Option<VlanId>) -> (u32, u64) {
    let LinkId([l0, l1, l2, l3]) = link;
    let [v0, v1] = vlan.map_or(0, |vlan| vlan.0).to_ne_bytes();
    (SHUTDOWN, u64::from_ne_bytes([l0, l1, l2, l3, v0, v1, 0, 0]))
}

impl GroupEvent {
    /// What an event means; `None` if nothing is to be done.
    pub(crate) fn parse(code: u32, data: u64) -> Option<Self> {
        let [l0, l1, l2, l3, v0, v1, kind @ ..] = data.to_ne_bytes();
        match code {
            SHUTDOWN => Some(Self::Shutdown),
            TEST_LINK if kind == REQUEST => {
                let [r0, r1] = RESPONSE;
                Some(Self::TestLink(u64::from_ne_bytes([l0, l1, l2, l3, v0, v1, r0, r1])))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_answered_and_an_answer_is_not() {
        let request = u64::from_ne_bytes([0, 0, 1, 0, 5, 0, REQUEST[0], REQUEST[1]]);
        let response = u64::from_ne_bytes([0, 0, 1, 0, 5, 0, RESPONSE[0], RESPONSE[1]]);
        assert_eq!(GroupEvent::parse(0x83, request), Some(GroupEvent::TestLink(response)));
        assert_eq!(GroupEvent::parse(0x83, response), None);
    }

    #[test]
    fn ours_is_understood() {
        let (code, data) = shutdown(LinkId([1, 2, 3, 4]), Some(VlanId(5)));
        assert_eq!(GroupEvent::parse(code, data), Some(GroupEvent::Shutdown));
        assert_eq!(data.to_ne_bytes()[..4], [1, 2, 3, 4]);
    }

    #[test]
    fn a_shutdown_is_one_whatever_it_says() {
        assert_eq!(GroupEvent::parse(0x80, 0), Some(GroupEvent::Shutdown));
        assert_eq!(GroupEvent::parse(0x80, u64::MAX), Some(GroupEvent::Shutdown));
        assert_eq!(GroupEvent::parse(0x81, 0), None);
    }
}
