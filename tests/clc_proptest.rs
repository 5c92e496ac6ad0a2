//! Any bytes parse to a value or an error, and any value survives its bytes.

use proptest::{array::uniform, collection::vec, option, prelude::*};
use smcd::{
    clc::{
        DeclineCode,
        wire::{
            Accept, Assembler, Confirm, Decline, DeclineV2, DecodeError, DmbeSize, Eid, Eyecatcher,
            FirstContact, FirstContactV2x, Flavours, GidEntry, Hostname, Ipv4Prefix, Ipv6Prefix, LinkId,
            Message, Os, PROPOSAL_MAX, Prefixes, Proposal, Release, RoceIdentity, SmcdArea, SmcdBody,
            SmcdBodyV2, SmcdV2Extension, Ueid, UpTo, V1Offer, V2Offer, Version, announced_len,
        },
    },
    dibs::{Chid, DmbToken, Gid},
};

fn bytes<const N: usize>() -> impl Strategy<Value = [u8; N]> {
    uniform(any::<u8>())
}

fn up_to_8<T: std::fmt::Debug>(item: impl Strategy<Value = T>) -> impl Strategy<Value = UpTo<T, 8>> {
    vec(item, 0..=8).prop_map(UpTo::first_of)
}

fn flavours() -> impl Strategy<Value = Flavours> {
    prop_oneof![Just(Flavours::R), Just(Flavours::D), Just(Flavours::B)]
}

fn later_version() -> impl Strategy<Value = Version> {
    (2..=15_u8).prop_map(|number| Version::new(number).unwrap())
}

fn roce() -> impl Strategy<Value = RoceIdentity> {
    (bytes(), bytes(), bytes()).prop_map(|(id_for_peer, gid, mac)| RoceIdentity { id_for_peer, gid, mac })
}

fn smcd_area() -> impl Strategy<Value = SmcdArea> {
    (any::<u64>(), any::<u16>(), bytes(), bytes()).prop_map(|(gid, chid, vendor_oui, vendor_options)| {
        SmcdArea { gid, chid: Chid(chid), vendor_oui, vendor_options }
    })
}

fn v1_offer() -> impl Strategy<Value = V1Offer> {
    let ipv4 = (bytes::<4>(), any::<u8>()).prop_map(|(addr, len)| Ipv4Prefix { addr: addr.into(), len });
    let ipv6 = (bytes::<16>(), any::<u8>()).prop_map(|(addr, len)| Ipv6Prefix { addr: addr.into(), len });
    let prefixes = (ipv4, up_to_8(ipv6)).prop_map(|(ipv4, ipv6)| Prefixes { ipv4, ipv6 });
    (flavours(), prefixes).prop_map(|(flavours, prefixes)| V1Offer { flavours, prefixes })
}

fn v2_extension() -> impl Strategy<Value = SmcdV2Extension> {
    let entry = (any::<u64>(), any::<u16>()).prop_map(|(gid, chid)| GidEntry { gid, chid: Chid(chid) });
    (bytes(), up_to_8(entry))
        .prop_map(|(seid, entries)| SmcdV2Extension { seid: Eid::from_bytes(seid), entries })
}

fn v2_offer() -> impl Strategy<Value = V2Offer> {
    let numbers = (any::<u8>(), any::<u8>(), any::<u16>());
    let head = (flavours(), 0..16_u8, any::<bool>(), bytes(), numbers);
    let parts = (head, up_to_8(bytes().prop_map(Eid::from_bytes)), option::of(v2_extension()));
    parts.prop_map(|((flavours, release, seid_offered, roce_gid, numbers), ueids, smcd)| V2Offer {
        flavours,
        release: Release::from_nibble(release),
        seid_offered,
        roce_gid,
        max_conns: numbers.0,
        max_links: numbers.1,
        feature_mask: numbers.2,
        ueids,
        smcd: smcd.filter(|_| flavours.has_d()),
    })
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let v1 = (roce(), option::of(smcd_area()), v1_offer()).prop_map(|(roce, smcd, v1)| Proposal {
        version: Version::V1,
        roce,
        smcd,
        v1: Some(v1),
        v2: None,
    });
    let parts = (later_version(), roce(), smcd_area(), option::of(v1_offer()), option::of(v2_offer()));
    let v2 = parts.prop_map(|(version, roce, mut smcd, v1, v2)| {
        if v1.is_none() {
            smcd.gid &= !0xf7; // its last byte is taken for a number of prefixes, up to 8
        }
        Proposal { version, roce, smcd: Some(smcd), v1, v2 }
    });
    prop_oneof![v1, v2]
}

fn first_contact() -> impl Strategy<Value = FirstContact> {
    let v2x = (any::<u16>(), bytes())
        .prop_map(|(feature_mask, vendor_options)| FirstContactV2x { feature_mask, vendor_options });
    (any::<bool>(), 0..16_u8, 0..16_u8, bytes(), v2x).prop_map(|(v2_direct, os, release, hostname, v2x)| {
        FirstContact {
            v2_direct,
            os: Os::from_nibble(os),
            release: Release::from_nibble(release),
            hostname: Hostname::from_bytes(hostname),
            v2x: (release > 0).then_some(v2x),
        }
    })
}

fn body() -> impl Strategy<Value = SmcdBody> {
    let v2 = (later_version(), any::<u16>(), bytes(), option::of(first_contact()));
    let head = (bytes(), any::<u64>(), any::<u8>(), 0..16_u8, bytes(), any::<bool>());
    (head, option::of(v2)).prop_map(|((gid, token, dmbe_idx, size, link_id, first_contact), v2)| {
        let gid = Gid::from_bytes(gid);
        SmcdBody {
            gid: if v2.is_some() { gid } else { Gid::from_halves(gid.high(), 0) },
            token: DmbToken(token),
            dmbe_idx,
            dmbe_size: DmbeSize::from_code(size),
            link_id: LinkId(link_id),
            first_contact,
            v2: v2.map(|(version, chid, eid, extension)| SmcdBodyV2 {
                version,
                chid: Chid(chid),
                eid: Eid::from_bytes(eid),
                extension: extension.filter(|_| first_contact),
            }),
        }
    })
}

fn decline() -> impl Strategy<Value = Decline> {
    let v2 = (later_version(), 0..16_u8, uniform(any::<u32>()))
        .prop_map(|(version, os, additional)| DeclineV2 { version, os: Os::from_nibble(os), additional });
    (any::<bool>(), bytes(), any::<u32>(), option::of(v2)).prop_map(
        |(out_of_sync, id_for_peer, diagnosis, v2)| Decline {
            out_of_sync,
            id_for_peer,
            diagnosis: DeclineCode(diagnosis),
            v2,
        },
    )
}

/// An Accept or Confirm of SMC-R, whose insides are of no interest.
fn smcr() -> impl Strategy<Value = Message> {
    let version_and_len = prop_oneof![Just((1, 68_usize)), (2..16_u8, 108..160_usize)];
    (2..4_u8, version_and_len, vec(any::<u8>(), 160)).prop_map(|(kind, (version, len), mut bytes)| {
        bytes.truncate(len);
        bytes[..4].copy_from_slice(&Eyecatcher::Smcr.to_bytes());
        let last = version << 4 | bytes[7] & 0x0c;
        bytes[4..8].copy_from_slice(&[kind, 0, len as u8, last]);
        bytes[len - 4..].copy_from_slice(&Eyecatcher::Smcr.to_bytes());
        Message::parse(&bytes).unwrap()
    })
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        3 => proposal().prop_map(Message::from),
        2 => body().prop_map(|body| Accept(body).into()),
        2 => body().prop_map(|body| Confirm(body).into()),
        1 => decline().prop_map(Message::from),
        1 => smcr(),
    ]
}

/// Emits into a dirty buffer, which shows a byte that was skipped.
fn emitted(message: &Message, dirt: u8) -> Vec<u8> {
    let mut bytes = vec![dirt; message.wire_len()];
    let mut rest = bytes.as_mut_slice();
    message.emit(&mut rest);
    assert!(rest.is_empty(), "{} bytes not written", rest.len());
    bytes
}

/// False for a Proposal without version 1 whose GID ends as no count of prefixes does: it is taken for one where we put
/// it, while a peer may have named another place.
fn can_be_sent(message: &Message) -> bool {
    match message {
        Message::Proposal(proposal) if proposal.v1.is_none() => {
            proposal.smcd.is_none_or(|area| area.gid & 0xff <= 8)
        }
        _ => true,
    }
}

/// Parses, and if that gives a message, checks that it can be emitted and parsed again.
fn parse_is_total(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(message) = Message::parse(bytes)
        && can_be_sent(&message)
    {
        let again = emitted(&message, 0xa5);
        prop_assert_eq!(Message::parse(&again), Ok(message));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn emitted_messages_parse_to_themselves(message in message()) {
        let bytes = emitted(&message, 0xa5);
        prop_assert_eq!(&bytes, &emitted(&message, 0x5a));
        prop_assert_eq!(&bytes, &message.to_bytes());
        prop_assert_eq!(announced_len(bytes.first_chunk().unwrap()), Ok(bytes.len()));
        prop_assert!(bytes.len() <= PROPOSAL_MAX);
        prop_assert_eq!(Message::parse(&bytes), Ok(message));
    }

    #[test]
    fn part_of_a_message_is_incomplete(message in message()) {
        let bytes = message.to_bytes();
        for given in 0..bytes.len() {
            let announced = if given < 8 { 8 } else { bytes.len() };
            let error = Message::parse(&bytes[..given]);
            prop_assert_eq!(error, Err(DecodeError::Incomplete { announced, given }));
        }
    }

    #[test]
    fn one_message_is_taken_off_a_stream(message in message(), steps in vec(1..700_usize, 1..20)) {
        let stream = [message.to_bytes(), vec![0xe2; 100]].concat();
        let (mut assembler, mut rest) = (Assembler::new(), stream.as_slice());
        for step in steps.iter().cycle() {
            let (bytes, tail) = rest.split_at(assembler.missing().min(*step));
            rest = tail;
            if let Some(taken) = assembler.push(bytes).unwrap() {
                prop_assert_eq!(taken, message);
                break;
            }
        }
        prop_assert_eq!(rest.len(), 100);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..800)) {
        parse_is_total(&bytes)?;
    }

    #[test]
    fn random_bytes_behind_a_valid_header_never_panic(
        kind in 1..5_u8,
        last in any::<u8>(),
        mut bytes in vec(prop_oneof![Just(0), Just(0xff), 0..10_u8, any::<u8>()], 28..700),
    ) {
        let len = bytes.len();
        bytes[..4].copy_from_slice(&Eyecatcher::Smcd.to_bytes());
        bytes[4..8].copy_from_slice(&[kind, (len >> 8) as u8, len as u8, last]);
        bytes[len - 4..].copy_from_slice(&Eyecatcher::Smcr.to_bytes());
        parse_is_total(&bytes)?;
    }

    #[test]
    fn mutated_messages_never_panic(
        message in message(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        len in option::weighted(0.2, 0..800_usize),
    ) {
        let mut bytes = message.to_bytes();
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(len) = len {
            bytes.resize(len, 0);
        }
        parse_is_total(&bytes)?;
        let (mut assembler, mut rest) = (Assembler::new(), bytes.as_slice());
        while assembler.missing() > 0 && !rest.is_empty() {
            let (taken, tail) = rest.split_at(assembler.missing().min(rest.len()));
            rest = tail;
            if assembler.push(taken).is_err() {
                break;
            }
        }
    }

    #[test]
    fn ueids_survive_their_text(text in "[A-Z0-9][A-Z0-9.-]{0,31}") {
        let ueid: Ueid = text.parse().unwrap();
        prop_assert_eq!(ueid.to_string(), text);
        prop_assert_eq!(Ueid::try_from(ueid.eid()), Ok(ueid));
    }

    #[test]
    fn any_text_is_a_ueid_or_not(text in ".{0,40}") {
        if let Ok(ueid) = text.parse::<Ueid>() {
            prop_assert_eq!(ueid.to_string(), text);
        }
    }
}
