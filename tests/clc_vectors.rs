//! Messages captured from Linux 7.3 parse to what they mean and emit back to the same bytes.

use smcd::clc::{
    DeclineCode,
    wire::{
        Accept, Confirm, Decline, DeclineV2, DmbeSize, Eid, FirstContact, FirstContactV2x, Flavours,
        GidEntry, LinkId, Message, Os, Proposal, Release, RoceIdentity, SmcdArea, SmcdBody, SmcdBodyV2,
        SmcdV2Extension, Ueid, UpTo, V2Offer, Version,
    },
};
use smcd::dibs::{Chid, DmbToken, Gid};

const LOOPBACK: Chid = Chid(0xffff);
const GID: Gid = Gid::from_halves(0x3485_6d4b_6648_4741, 0x8956_8d87_5776_4448);

macro_rules! vector {
    ($name:literal) => {
        unhex(include_str!(concat!("vectors/linux-7.3/", $name, ".hex")))
    };
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.trim().chars().map(|c| c.to_digit(16).expect("hexadecimal")).collect();
    digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn check(bytes: &[u8], expected: impl Into<Message>) {
    let expected = expected.into();
    assert_eq!(Message::parse(bytes), Ok(expected.clone()));
    assert_eq!(expected.to_bytes(), bytes);
    assert_eq!(expected.wire_len(), bytes.len());
}

fn ueid() -> Eid {
    "SMCV2-TEST-UEID".parse::<Ueid>().unwrap().eid()
}

fn proposal(ueids: impl IntoIterator<Item = Eid>) -> Proposal {
    let entries = [GID.high(), GID.low()].map(|gid| GidEntry { gid, chid: LOOPBACK });
    Proposal {
        version: Version::V2,
        roce: RoceIdentity { id_for_peer: [0; 8], gid: [0; 16], mac: [0; 6] },
        smcd: Some(SmcdArea { gid: 0, chid: Chid(0), vendor_oui: [0; 3], vendor_options: [0; 5] }),
        v1: None,
        v2: Some(V2Offer {
            flavours: Flavours::D,
            release: Release::R1,
            seid_offered: false,
            roce_gid: [0; 16],
            max_conns: 0,
            max_links: 0,
            feature_mask: 1,
            ueids: UpTo::first_of(ueids),
            smcd: Some(SmcdV2Extension { seid: Eid::ZERO, entries: UpTo::first_of(entries) }),
        }),
    }
}

fn body(token: u64, link_id: [u8; 4], first_contact: bool) -> SmcdBody {
    let extension = first_contact.then(|| FirstContact {
        v2_direct: false,
        os: Os::LINUX,
        release: Release::R1,
        hostname: "(none)".parse().unwrap(),
        v2x: Some(FirstContactV2x { feature_mask: 1, vendor_options: [0; 4] }),
    });
    SmcdBody {
        gid: GID,
        token: DmbToken(token),
        dmbe_idx: 0,
        dmbe_size: DmbeSize::from_bytes(64 * 1024).unwrap(),
        link_id: LinkId(link_id),
        first_contact,
        v2: Some(SmcdBodyV2 { version: Version::V2, chid: LOOPBACK, eid: ueid(), extension }),
    }
}

#[test]
fn proposal_without_ueid() {
    check(&vector!("proposal-v2-no-ueid"), proposal([]));
}

#[test]
fn decline_of_a_proposal_without_ueid() {
    let v2 = Some(DeclineV2 { version: Version::V2, os: Os::LINUX, additional: [0; 4] });
    let diagnosis = DeclineCode::NO_UEID;
    let decline = Decline { out_of_sync: false, id_for_peer: [0; 8], diagnosis, v2 };
    check(&vector!("decline-v2-no-ueid"), decline);
    assert_eq!(Decline::new(Version::V2, diagnosis), decline);
}

#[test]
fn first_contact() {
    check(&vector!("proposal-v2-ueid"), proposal([ueid()]));
    let server = body(0x0797_3640_dfb2_8047, [0, 1, 0, 0], true);
    check(&vector!("accept-v2-first-contact"), Accept(server));
    let client = body(0x5d3f_32bc_5836_5bb4, [0, 2, 0, 0], true);
    check(&vector!("confirm-v2-first-contact"), Confirm(client));
}

#[test]
fn reuse_of_a_link_group() {
    check(&vector!("proposal-v2-ueid-again"), proposal([ueid()]));
    check(&vector!("accept-v2-reuse"), Accept(body(0x0797_3640_dfb2_8047, [0, 1, 0, 0], false)));
    check(&vector!("confirm-v2-reuse"), Confirm(body(0xebdf_3fc9_f365_be50, [0, 1, 0, 0], false)));
}
