use super::*;
use crate::clc::wire::{
    Eid, FEATURE_EMULATED_ISM, GidEntry, Ipv4Prefix, Ipv6Prefix, Message, Release, SmcdV2Extension, Ueid,
    UpTo,
};

/// The Proposal of a Linux host whose one device is the loopback device.
fn loopback() -> Proposal {
    let ueid: Ueid = "SMCV2-EXAMPLE-UEID".parse().unwrap();
    let chid = Chid(0xffff);
    let entries = [0x3f25_04e0_4f89_41d3, 0x9a0c_0305_e82c_3301].map(|gid| GidEntry { gid, chid });
    Proposal {
        version: Version::V2,
        roce: RoceIdentity::default(),
        smcd: Some(SmcdArea::default()),
        v1: None,
        v2: Some(V2Offer {
            flavours: Flavours::D,
            release: Release::R1,
            seid_offered: false,
            roce_gid: [0; 16],
            max_conns: 0,
            max_links: 0,
            feature_mask: FEATURE_EMULATED_ISM,
            ueids: UpTo::first_of([ueid.eid()]),
            smcd: Some(SmcdV2Extension { seid: Eid::ZERO, entries: UpTo::first_of(entries) }),
        }),
    }
}

#[rustfmt::skip]
const GOLDEN: [u8; 224] = [
    0xe2, 0xd4, 0xc3, 0xd9, 0x01, 0x00, 0xe0, 0x26, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x00, 0x00, 0x00, 0x1c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x01, 0x02, 0x00, 0x10, 0x00, 0x00, 0x00, 0x40, 0, 0, 0, 0, 0, 0, 0, 0,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0, 0, 0, 0,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x53, 0x4d, 0x43, 0x56, 0x32, 0x2d, 0x45, 0x58,
    0x41, 0x4d, 0x50, 0x4c, 0x45, 0x2d, 0x55, 0x45, 0x49, 0x44, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20,
    0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x3f, 0x25, 0x04, 0xe0, 0x4f, 0x89, 0x41, 0xd3,
    0xff, 0xff, 0x9a, 0x0c, 0x03, 0x05, 0xe8, 0x2c, 0x33, 0x01, 0xff, 0xff, 0xe2, 0xd4, 0xc3, 0xd9,
];

/// Everything a Proposal can carry, 652 bytes.
fn largest() -> Proposal {
    let ipv6 = UpTo::first_of((0..9).map(|i| Ipv6Prefix { addr: [i; 16].into(), len: 64 }));
    let mut proposal = loopback();
    proposal.smcd = Some(SmcdArea {
        gid: u64::MAX,
        chid: Chid(0x0123),
        vendor_oui: [1, 2, 3],
        vendor_options: [4, 5, 6, 7, 8],
    });
    proposal.roce = RoceIdentity { id_for_peer: [9; 8], gid: [10; 16], mac: [11; 6] };
    proposal.v1 = Some(V1Offer {
        flavours: Flavours::B,
        prefixes: Prefixes { ipv4: Ipv4Prefix { addr: [1, 2, 3, 4].into(), len: 24 }, ipv6 },
    });
    let v2 = proposal.v2.as_mut().unwrap();
    v2.flavours = Flavours::B;
    v2.seid_offered = true;
    v2.roce_gid = [12; 16];
    (v2.max_conns, v2.max_links) = (255, 2);
    v2.ueids = UpTo::first_of((0..9).map(|i| Eid::from_bytes([b'A' + i; 32])));
    let entries = (0..9).map(|i| GidEntry { gid: i, chid: Chid(i as u16) });
    v2.smcd = Some(SmcdV2Extension { seid: Eid::from_bytes([b'S'; 32]), entries: UpTo::first_of(entries) });
    proposal
}

/// The Proposal of version 1 with one IPv4 subnet.
fn version_1(smcd: Option<SmcdArea>) -> Proposal {
    let prefixes = Prefixes::ipv4(Ipv4Prefix { addr: [10, 0, 0, 0].into(), len: 8 });
    let v1 = Some(V1Offer { flavours: Flavours::B, prefixes });
    Proposal { version: Version::V1, roce: RoceIdentity::default(), smcd, v1, v2: None }
}

fn emitted(proposal: &Proposal) -> Vec<u8> {
    let mut bytes = [0xa5; PROPOSAL_MAX];
    let mut rest = &mut bytes[..];
    proposal.emit(&mut rest);
    let written = PROPOSAL_MAX - rest.len();
    assert_eq!(written, proposal.wire_len());
    bytes[..written].to_vec()
}

fn parse(bytes: &[u8]) -> Result<Proposal, DecodeError> {
    match Message::parse(bytes)? {
        Message::Proposal(proposal) => Ok(proposal),
        other => panic!("parsed as {other:?}"),
    }
}

/// `bytes` with one changed.
fn with(bytes: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] = value;
    bytes
}

#[test]
fn golden_bytes() {
    assert_eq!(emitted(&loopback()), GOLDEN);
    assert_eq!(parse(&GOLDEN), Ok(loopback()));
}

#[test]
fn largest_proposal_is_652_bytes() {
    let bytes = emitted(&largest());
    assert_eq!(bytes.len(), PROPOSAL_MAX);
    assert_eq!(u16::from_be_bytes([bytes[50], bytes[51]]), 172);
    assert_eq!(parse(&bytes), Ok(largest()));
}

#[test]
fn version_1_with_and_without_the_smcd_area() {
    let area = SmcdArea { gid: u64::MAX, ..SmcdArea::default() };
    for (smcd, len) in [(None, 52), (Some(area), 92)] {
        let proposal = version_1(smcd);
        let bytes = emitted(&proposal);
        assert_eq!((bytes.len(), bytes[7]), (len, 0x13));
        assert_eq!(parse(&bytes), Ok(proposal));
    }
}

#[test]
fn version_1_must_offer_something() {
    let bytes = with(&emitted(&version_1(None)), 7, 0x12);
    assert_eq!(parse(&bytes), Err(DecodeError::NothingOffered));
}

#[test]
fn reserved_bytes_are_ignored() {
    let mut bytes = GOLDEN.to_vec();
    let reserved = [60..80, 82..83, 84..86, 108..120, 184..200];
    reserved.into_iter().for_each(|range| bytes[range].fill(0xff));
    bytes[83] |= 0x0e;
    assert_eq!(parse(&bytes), Ok(loopback()));
}

#[test]
fn either_eyecatcher_is_taken() {
    let bytes = with(&with(&GOLDEN, 3, 0xc4), 223, 0xc4);
    assert_eq!(parse(&bytes), Ok(loopback()));
    assert_eq!(parse(&with(&GOLDEN, 223, 0)), Err(DecodeError::Trailer([0xe2, 0xd4, 0xc3, 0])));
}

#[test]
fn versions_above_2_are_parsed_as_2() {
    let proposal = parse(&with(&GOLDEN, 7, 0x76)).unwrap();
    assert_eq!(proposal, Proposal { version: Version::new(7).unwrap(), ..loopback() });
    assert_eq!(emitted(&proposal), with(&GOLDEN, 7, 0x76));
}

/// CVE-2024-49571: `iparea_offset` and the number of IPv6 prefixes were trusted.
#[test]
fn prefix_area_outside_its_limits_is_refused() {
    let bytes = emitted(&largest());
    assert_eq!(parse(&with(&bytes, 39, 41)), Err(DecodeError::PrefixAreaOffset(41)));
    assert_eq!(parse(&with(&bytes, 38, 0xff)), Err(DecodeError::PrefixAreaOffset(0xff28)));
    assert_eq!(parse(&with(&bytes, 87, 9)), Err(DecodeError::Ipv6Count(9)));
    assert_eq!(parse(&with(&bytes, 87, 255)), Err(DecodeError::Ipv6Count(255)));
    let announced = 652;
    assert_eq!(
        parse(&with(&bytes, 87, 7)),
        Err(DecodeError::ProposalLength { announced, parts: announced - 17 })
    );
}

/// CVE-2024-49568: `v2_ext_offset` and the numbers of UEIDs and GIDs were trusted.
#[test]
fn v2_extension_outside_its_limits_is_refused() {
    assert_eq!(parse(&with(&GOLDEN, 51, 0)), Err(DecodeError::V2ExtensionOffset(0)));
    assert_eq!(parse(&with(&GOLDEN, 51, 173)), Err(DecodeError::V2ExtensionOffset(173)));
    assert_eq!(parse(&with(&GOLDEN, 50, 0xff)), Err(DecodeError::V2ExtensionOffset(0xff1c)));
    assert_eq!(parse(&with(&GOLDEN, 80, 9)), Err(DecodeError::UeidCount(9)));
    assert_eq!(parse(&with(&GOLDEN, 80, 255)), Err(DecodeError::UeidCount(255)));
    assert_eq!(parse(&with(&GOLDEN, 81, 9)), Err(DecodeError::GidCount(9)));
    assert_eq!(parse(&with(&GOLDEN, 80, 2)), Err(DecodeError::ProposalLength { announced: 224, parts: 256 }));
    assert_eq!(parse(&with(&GOLDEN, 81, 3)), Err(DecodeError::ProposalLength { announced: 224, parts: 234 }));
}

/// CVE-2024-47408: `smcd_v2_ext_offset` was trusted. Linux 7.3 takes the extension for absent and declines.
#[test]
fn smcd_v2_extension_outside_its_limits_is_absent() {
    for offset in [0_u16, 289, 0xffff] {
        let mut bytes = GOLDEN;
        bytes[86..88].copy_from_slice(&offset.to_be_bytes());
        assert_eq!(parse(&bytes).unwrap().v2.unwrap().smcd, None);
    }
}

#[test]
fn missing_smcd_v2_extension_still_takes_its_room() {
    let mut proposal = loopback();
    proposal.v2.as_mut().unwrap().smcd = None;
    let bytes = emitted(&proposal);
    assert_eq!(bytes.len(), 224 - 20);
    assert_eq!(parse(&bytes), Ok(proposal));
}

#[test]
fn v2_extension_needs_the_prefix_area_behind_the_smcd_area() {
    let mut proposal = largest();
    proposal.v1.as_mut().unwrap().prefixes.ipv6 = UpTo::new();
    let bytes = emitted(&proposal);
    assert_eq!(parse(&with(&bytes, 39, 0)), Err(DecodeError::Ipv6Count(0xff)));
    let mut bytes = with(&bytes, 39, 8); // the number of prefixes is then read from byte 55
    bytes[55] = 0;
    assert_eq!(parse(&bytes), Err(DecodeError::V2ExtensionOffset(36)));
    // SMC-R alone does not need the area, and the v2 extension is found.
    let v2_only_r = with(&bytes, 7, 0x2c);
    assert!(parse(&v2_only_r).is_ok());
}

#[test]
fn gid_without_an_offer_of_version_1_is_read_as_a_number_of_prefixes() {
    assert_eq!(parse(&with(&GOLDEN, 47, 9)), Err(DecodeError::Ipv6Count(9)));
    assert_eq!(parse(&with(&GOLDEN, 47, 8)).unwrap().smcd.unwrap().gid, 8);
    // The same trap with the other offset: the byte is the low one of `smcd_v2_ext_offset`.
    assert_eq!(parse(&with(&GOLDEN, 39, 40)), Err(DecodeError::Ipv6Count(0x40)));
}

#[test]
fn part_placed_past_the_end_reads_as_zeros() {
    let mut proposal = loopback();
    let v2 = proposal.v2.as_mut().unwrap();
    (v2.flavours, v2.smcd, v2.ueids) = (Flavours::R, None, UpTo::new());
    let bytes = with(&emitted(&proposal), 51, 172);
    assert_eq!(bytes.len(), 124);
    let v2 = parse(&bytes).unwrap().v2.unwrap();
    assert_eq!((v2.release, v2.ueids.len(), v2.feature_mask), (Release::R0, 0, 0));
}

#[test]
fn offering_nothing_in_version_2_is_well_formed() {
    let bytes = [&[0xe2, 0xd4, 0xc3, 0xd9, 1, 0, 84, 0x2a][..], &[0; 72], &[0xe2, 0xd4, 0xc3, 0xd9]].concat();
    let proposal = parse(&bytes).unwrap();
    assert_eq!((&proposal.v1, &proposal.v2), (&None, &None));
    assert_eq!(emitted(&proposal), bytes);
}

#[test]
fn every_other_length_is_refused() {
    for bytes in [&GOLDEN[..], &emitted(&largest()), &emitted(&version_1(None))] {
        for len in 0..bytes.len() {
            assert!(
                matches!(parse(&bytes[..len]), Err(DecodeError::Incomplete { given, .. }) if given == len)
            );
        }
        let longer = [bytes, &[0]].concat();
        assert!(matches!(parse(&longer), Err(DecodeError::Incomplete { .. })));
    }
}
