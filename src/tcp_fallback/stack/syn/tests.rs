use proptest::{collection::vec, prelude::*};
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        EthernetAddress, IpRepr, Ipv4Repr, Ipv6Repr, TcpControl, TcpRepr, TcpSeqNumber, TcpTimestampRepr,
    },
};

use super::*;

const V4: bool = false;
const V6: bool = true;

/// The header that smoltcp would send.
fn repr(control: TcpControl, ack: Option<i32>, payload: &[u8]) -> TcpRepr<'_> {
    TcpRepr {
        src_port: 40_000,
        dst_port: 80,
        control,
        seq_number: TcpSeqNumber(-5),
        ack_number: ack.map(TcpSeqNumber),
        window_len: 64_000,
        window_scale: Some(7),
        max_seg_size: Some(1460),
        sack_permitted: true,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    }
}

fn ip(v6: bool, tcp: &TcpRepr<'_>) -> IpRepr {
    let payload_len = tcp.buffer_len();
    if v6 {
        IpRepr::Ipv6(Ipv6Repr {
            src_addr: "fd00::1".parse().unwrap(),
            dst_addr: "fd00::2".parse().unwrap(),
            next_header: IpProtocol::Tcp,
            payload_len,
            hop_limit: 64,
        })
    } else {
        IpRepr::Ipv4(Ipv4Repr {
            src_addr: "10.0.0.1".parse().unwrap(),
            dst_addr: "10.0.0.2".parse().unwrap(),
            next_header: IpProtocol::Tcp,
            payload_len,
            hop_limit: 64,
        })
    }
}

/// A frame, as smoltcp emits it, with `options` behind those of the header; their length is a multiple of four.
fn frame(v6: bool, medium: Medium, tcp: &TcpRepr<'_>, options: &[u8]) -> Vec<u8> {
    let ip = ip(v6, tcp);
    let caps = ChecksumCapabilities::default();
    let start = if medium == Medium::Ethernet { 14 } else { 0 };
    let mut bytes = vec![0; start + ip.header_len() + tcp.buffer_len()];
    if medium == Medium::Ethernet {
        let mut ethernet = EthernetFrame::new_unchecked(&mut bytes);
        ethernet.set_src_addr(EthernetAddress([2, 0, 0, 0, 0, 1]));
        ethernet.set_dst_addr(EthernetAddress([2, 0, 0, 0, 0, 2]));
        ethernet.set_ethertype(if v6 { EthernetProtocol::Ipv6 } else { EthernetProtocol::Ipv4 });
    }
    ip.emit(&mut bytes[start..], &caps);
    let at = start + ip.header_len();
    tcp.emit(&mut TcpPacket::new_unchecked(&mut bytes[at..]), &ip.src_addr(), &ip.dst_addr(), &caps);
    if options.is_empty() {
        return bytes;
    }
    let end = at + tcp.header_len();
    bytes.splice(end..end, options.iter().copied());
    let place = Place::behind(&bytes[..], start).unwrap();
    place.set_ip_len(&mut bytes).unwrap();
    let mut segment = TcpPacket::new_unchecked(&mut bytes[at..]);
    segment.set_header_len((tcp.header_len() + options.len()) as u8);
    segment.fill_checksum(&place.source, &place.destination);
    bytes
}

fn syn(v6: bool, medium: Medium) -> Vec<u8> {
    frame(v6, medium, &repr(TcpControl::Syn, None, &[]), &[])
}

const KINDS: [(bool, Medium); 4] =
    [(V4, Medium::Ethernet), (V6, Medium::Ethernet), (V4, Medium::Ip), (V6, Medium::Ip)];

#[test]
fn option_is_written_in_front_and_read() {
    for (v6, medium) in KINDS {
        let plain = syn(v6, medium);
        let marked = with_option(&plain, medium, 1514).unwrap();
        assert_eq!(marked.len(), plain.len() + 8);
        let read = Syn::read(&marked, medium).unwrap();
        let was = Syn::read(&plain, medium).unwrap();
        assert!(read.has_option && !was.has_option);
        assert_eq!(Syn { has_option: false, ..read }, was);
        assert_eq!((read.source.port(), read.destination.port()), (40_000, 80));
        assert_eq!((read.seq, read.ack), (0xffff_fffb, None));
        let place = Place::of_syn(&marked, medium).unwrap();
        assert_eq!(marked[place.tcp + 20..place.tcp + 28], [1, 1, 0xfe, 6, 0xe2, 0xd4, 0xc3, 0xd9]);
    }
}

#[test]
fn smoltcp_reads_the_segment_as_it_was() {
    for (v6, medium) in KINDS {
        let tcp = repr(TcpControl::Syn, Some(77), b"");
        let marked = with_option(&frame(v6, medium, &tcp, &[]), medium, 1514).unwrap();
        let place = Place::of_syn(&marked, medium).unwrap();
        let packet = place.segment(&marked).unwrap();
        let caps = ChecksumCapabilities::default();
        // The checksums are right, and MSS, window scale and the rest are still there.
        assert_eq!(TcpRepr::parse(&packet, &place.source, &place.destination, &caps), Ok(tcp));
        if !v6 {
            assert!(Ipv4Packet::new_checked(&marked[place.ip..]).unwrap().verify_checksum());
        }
        assert_eq!(Syn::read(&marked, medium).unwrap().ack, Some(77));
    }
}

#[test]
fn options_area_without_room_is_left_alone() {
    for (v6, medium) in KINDS {
        let mut tcp = repr(TcpControl::Syn, None, &[]);
        tcp.timestamp = Some(TcpTimestampRepr::new(1, 2));
        let own = tcp.header_len() - 20;
        // Up to 32 bytes there is room for 8 more, in an area of 40.
        for more in (0..=40 - own).step_by(4) {
            let plain = frame(v6, medium, &tcp, &vec![NOP; more]);
            let marked = with_option(&plain, medium, 1514);
            assert_eq!(marked.is_some(), own + more <= 32, "{own} and {more} bytes");
        }
    }
}

#[test]
fn frame_above_the_mtu_is_left_alone() {
    let plain = syn(V4, Medium::Ethernet);
    assert!(with_option(&plain, Medium::Ethernet, plain.len() + 8).is_some());
    assert!(with_option(&plain, Medium::Ethernet, plain.len() + 7).is_none());
}

#[test]
fn payload_of_a_syn_stays_behind_the_options() {
    let plain = frame(V6, Medium::Ip, &repr(TcpControl::Syn, None, b"early"), &[]);
    let marked = with_option(&plain, Medium::Ip, 1500).unwrap();
    assert!(marked.ends_with(b"early"));
    assert!(Syn::read(&marked, Medium::Ip).unwrap().has_option);
}

#[test]
fn only_a_syn_gets_the_option() {
    for control in [TcpControl::None, TcpControl::Fin, TcpControl::Rst, TcpControl::Psh] {
        let other = frame(V4, Medium::Ip, &repr(control, Some(1), &[]), &OPTION);
        assert_eq!(with_option(&other, Medium::Ip, 1500), None);
        assert_eq!(Syn::read(&other, Medium::Ip), None, "the option counts with the SYN flag only");
    }
}

#[test]
fn option_is_not_written_twice() {
    let marked = with_option(&syn(V4, Medium::Ip), Medium::Ip, 1500).unwrap();
    assert_eq!(with_option(&marked, Medium::Ip, 1500), None);
}

#[test]
fn padding_of_ethernet_is_not_part_of_the_packet() {
    let plain = syn(V4, Medium::Ethernet);
    let padded = [plain.clone(), vec![0; 8]].concat();
    let marked = with_option(&plain, Medium::Ethernet, 1514);
    assert_eq!(with_option(&padded, Medium::Ethernet, 1514), marked);
}

#[test]
fn stripped_option_leaves_a_valid_segment() {
    for (v6, medium) in KINDS {
        let plain = syn(v6, medium);
        let stripped = without_option(&with_option(&plain, medium, 1514).unwrap(), medium).unwrap();
        assert_eq!(Syn::read(&stripped, medium), Syn::read(&plain, medium));
        assert_eq!(without_option(&stripped, medium), None);
    }
}

#[test]
fn options_by_the_rule_of_linux() {
    let magic = [0xe2, 0xd4, 0xc3, 0xd9];
    let smc = |len: u8, rest: &[u8]| [&[254, len][..], &magic, rest].concat();
    for (what, options, expected) in [
        ("alone", smc(6, &[]), true),
        ("longer and even", smc(8, &[1, 2]), true),
        ("longer and odd", smc(7, &[1]), false),
        ("longer than the area", smc(8, &[]), false),
        ("too short", vec![254, 4, 0xe2, 0xd4], false),
        ("other magic", vec![254, 6, 0xe2, 0xd4, 0xc3, 0xc4], false),
        ("behind others", [&[1, 2, 4, 5, 0xb4, 4, 2][..], &smc(6, &[])].concat(), true),
        ("behind another of its kind", [&[254, 6, 1, 2, 3, 4][..], &smc(6, &[])].concat(), true),
        ("behind the end", [&[0][..], &smc(6, &[])].concat(), false),
        ("behind an option of length 0", [&[2, 0][..], &smc(6, &[])].concat(), false),
        ("behind an option of length 1", [&[2, 1][..], &smc(6, &[])].concat(), false),
        ("inside another", [&[30, 8][..], &smc(6, &[])].concat(), false),
        ("cut off", smc(6, &[])[..5].to_vec(), false),
        ("nothing", vec![], false),
    ] {
        assert_eq!(is_among(&options), expected, "{what}");
    }
}

#[test]
fn wrong_checksum_is_no_syn() {
    let mut marked = with_option(&syn(V4, Medium::Ip), Medium::Ip, 1500).unwrap();
    *marked.last_mut().unwrap() ^= 1;
    assert_eq!(Syn::read(&marked, Medium::Ip), None);
}

#[test]
fn fragments_are_not_looked_into() {
    let plain = syn(V4, Medium::Ip);
    for fragment in [[0x20, 0], [0, 1]] {
        let mut bytes = plain.clone();
        bytes[6..8].copy_from_slice(&fragment);
        Ipv4Packet::new_unchecked(&mut bytes).fill_checksum();
        assert_eq!(Syn::read(&bytes, Medium::Ip), None);
        assert_eq!(with_option(&bytes, Medium::Ip, 1500), None);
    }
}

fn total(bytes: &[u8]) {
    for medium in [Medium::Ethernet, Medium::Ip] {
        let _ = Syn::read(bytes, medium);
        if let Some(marked) = with_option(bytes, medium, 1514) {
            let read = Syn::read(&marked, medium).expect("what was written can be read");
            assert!(read.has_option);
        }
        if let Some(stripped) = without_option(bytes, medium) {
            assert!(Syn::read(&stripped, medium).is_some());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes_give_an_answer(bytes in vec(any::<u8>(), 0..200)) {
        total(&bytes);
    }

    #[test]
    fn mutated_frames_give_an_answer(
        (v6, medium) in prop::sample::select(&KINDS[..]),
        mark in any::<bool>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        len in prop::option::weighted(0.3, 0..120_usize),
    ) {
        let mut bytes = syn(v6, medium);
        if mark {
            bytes = with_option(&bytes, medium, 1514).unwrap();
        }
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(len.unwrap_or(usize::MAX));
        total(&bytes);
    }

    #[test]
    fn any_options_give_an_answer(options in vec(prop_oneof![Just(254), Just(6), 0..10_u8, any::<u8>()], 0..41)) {
        let _ = is_among(&options);
    }

    #[test]
    fn the_option_survives_among_any_others(
        before in vec((2..254_u8, 0..5_usize), 0..3),
        padding in 0..3_usize,
    ) {
        let mut options = Vec::new();
        for (kind, len) in before {
            options.extend([kind, len as u8 + 2]);
            options.resize(options.len() + len, 0x55);
        }
        options.resize(options.len() + padding, NOP);
        prop_assert!(!is_among(&options));
        options.extend(OPTION);
        prop_assert!(is_among(&options));
    }
}
