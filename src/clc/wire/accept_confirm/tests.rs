use super::*;
use crate::clc::wire::{FirstContactV2x, Message, Os, Release, Ueid};

/// An Accept of the loopback device.
fn accept(extension: Option<FirstContact>) -> SmcdBody {
    let ueid: Ueid = "SMCV2-EXAMPLE-UEID".parse().unwrap();
    SmcdBody {
        gid: Gid::from_halves(0x3f25_04e0_4f89_41d3, 0x9a0c_0305_e82c_3301),
        token: DmbToken(0x1122_3344_5566_7788),
        dmbe_idx: 0,
        dmbe_size: DmbeSize::from_code(2),
        link_id: LinkId([0, 1, 0, 0]),
        first_contact: extension.is_some(),
        v2: Some(SmcdBodyV2 { version: Version::V2, chid: Chid(0xffff), eid: ueid.eid(), extension }),
    }
}

fn extension(release: Release, hostname: &str) -> FirstContact {
    let v2x = FirstContactV2x { feature_mask: 1, vendor_options: [0; 4] };
    FirstContact {
        v2_direct: false,
        os: Os::LINUX,
        release,
        hostname: hostname.parse().unwrap(),
        v2x: (release >= Release::R1).then_some(v2x),
    }
}

#[rustfmt::skip]
const GOLDEN: [u8; 130] = [
    0xe2, 0xd4, 0xc3, 0xc4, 0x02, 0x00, 0x82, 0x29, 0x3f, 0x25, 0x04, 0xe0, 0x4f, 0x89, 0x41, 0xd3,
    0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x00, 0x20, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00,
    0xff, 0xff, 0x53, 0x4d, 0x43, 0x56, 0x32, 0x2d, 0x45, 0x58, 0x41, 0x4d, 0x50, 0x4c, 0x45, 0x2d,
    0x55, 0x45, 0x49, 0x44, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20,
    0x20, 0x20, 0x9a, 0x0c, 0x03, 0x05, 0xe8, 0x2c, 0x33, 0x01, 0x00, 0x21, 0x00, 0x00, 0x73, 0x65,
    0x72, 0x76, 0x65, 0x72, 0x68, 0x6f, 0x73, 0x74, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20,
    0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x00, 0x00,
    0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xe2, 0xd4,
    0xc3, 0xc4,
];

/// Emits into a dirty buffer, and checks that the bytes parse to the same message.
fn emitted(message: Message) -> Vec<u8> {
    let mut bytes = [0xa5; 160];
    let mut rest = &mut bytes[..];
    message.emit(&mut rest);
    let written = 160 - rest.len();
    assert_eq!(written, message.wire_len());
    let bytes = bytes[..written].to_vec();
    assert_eq!(Message::parse(&bytes), Ok(message));
    bytes
}

/// The golden Accept, announcing another length, with or without the flag.
fn of_length(len: u16, last: u8) -> Vec<u8> {
    let mut bytes = GOLDEN.to_vec();
    bytes.resize(usize::from(len), 0);
    bytes[5..8].copy_from_slice(&[(len >> 8) as u8, len as u8, last]);
    let trailer = bytes.len() - 4;
    bytes[trailer..].copy_from_slice(&Eyecatcher::Smcd.to_bytes());
    bytes
}

fn parsed(bytes: &[u8]) -> SmcdBody {
    match Message::parse(bytes) {
        Ok(Message::Accept(Accept(body))) => body,
        other => panic!("parsed as {other:?}"),
    }
}

#[test]
fn first_contact_is_130_bytes() {
    let body = accept(Some(extension(Release::R1, "serverhost")));
    assert_eq!(emitted(Accept(body).into()), GOLDEN);
}

#[test]
fn confirm_differs_in_type_alone() {
    let mut body = accept(Some(extension(Release::R1, "clienthost")));
    body.token = DmbToken(0x99aa_bbcc_ddee_ff00);
    body.link_id = LinkId([0, 2, 0, 0]);
    let mut golden = GOLDEN;
    golden[4] = 3;
    golden[16..24].copy_from_slice(&[0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x00]);
    golden[28..32].copy_from_slice(&[0, 2, 0, 0]);
    golden[78..88].copy_from_slice(b"clienthost");
    assert_eq!(emitted(Confirm(body).into()), golden);
}

#[test]
fn reused_link_group_is_78_bytes() {
    assert_eq!(emitted(Accept(accept(None)).into()), of_length(78, 0x21));
}

#[test]
fn release_0_is_114_bytes() {
    let bytes = emitted(Accept(accept(Some(extension(Release::R0, "serverhost")))).into());
    assert_eq!((bytes.len(), bytes[75]), (114, 0x20));
}

#[test]
fn version_1_is_48_bytes() {
    let body = SmcdBody {
        gid: Gid::from_halves(0x0123_4567_89ab_cdef, 0),
        token: DmbToken(0x0000_00a1_0000_0000),
        dmbe_idx: 0,
        dmbe_size: DmbeSize::from_bytes(65536).unwrap(),
        link_id: LinkId([0, 0, 1, 0]),
        first_contact: true,
        v2: None,
    };
    #[rustfmt::skip]
    let golden = [
        0xe2, 0xd4, 0xc3, 0xc4, 0x02, 0x00, 0x30, 0x19, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
        0x00, 0x00, 0x00, 0xa1, 0x00, 0x00, 0x00, 0x00, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xe2, 0xd4, 0xc3, 0xc4,
    ];
    assert_eq!(emitted(Accept(body).into()), golden);
    let reuse = emitted(Confirm(SmcdBody { first_contact: false, ..body }).into());
    assert_eq!((reuse[4], reuse[7]), (3, 0x11));
}

#[test]
fn extension_is_read_only_with_the_flag() {
    assert_eq!(parsed(&of_length(130, 0x21)), accept(None));
}

#[test]
fn extension_is_never_read_out_of_the_trailer() {
    for (len, present) in [(78, false), (113, false), (114, true), (130, true)] {
        let body = parsed(&of_length(len, 0x29));
        assert!(body.first_contact);
        assert_eq!(body.v2.unwrap().extension.is_some(), present, "{len} bytes");
    }
    // Release 1 announced, but no room for what it adds.
    let body = parsed(&of_length(129, 0x29));
    assert_eq!(body.v2.unwrap().extension.unwrap().v2x, None);
}

#[test]
fn bytes_of_later_releases_are_ignored() {
    assert_eq!(parsed(&of_length(150, 0x29)), accept(Some(extension(Release::R1, "serverhost"))));
    // 160 bytes are kept of a longer one, and its trailer is gone.
    let long = of_length(300, 0x29);
    assert_eq!(parsed(&long[..160]), parsed(&long));
}

#[test]
fn smcr_is_recognised() {
    for (kind, len, last) in [(2, 68, 0x10), (3, 68, 0x18), (2, 108, 0x20), (3, 300, 0x28)] {
        let mut bytes = of_length(len, last);
        bytes[4] = kind;
        let message = Message::parse(&bytes).unwrap();
        assert!(matches!(message, Message::Smcr(_)));
        assert_eq!((message.msg_type() as u8, message.version().number()), (kind, last >> 4));
        assert_eq!(message.to_bytes(), bytes);
    }
}

#[test]
fn every_other_length_is_refused() {
    for len in 0..GOLDEN.len() {
        let given = Message::parse(&GOLDEN[..len]);
        assert!(matches!(given, Err(DecodeError::Incomplete { given, .. }) if given == len));
    }
}

#[test]
fn sizes() {
    assert_eq!(DmbeSize::from_code(0).bytes(), 16 * 1024);
    assert_eq!(DmbeSize::MAX.bytes(), 1024 * 1024);
    assert_eq!(DmbeSize::from_bytes(1024 * 1024), Some(DmbeSize::MAX));
    for len in [0, 1, 8192, 65535, 2 * 1024 * 1024] {
        assert_eq!(DmbeSize::from_bytes(len), None);
    }
}

#[test]
fn sizes_are_rounded_up_to_a_power_of_two() {
    let code = |len| DmbeSize::holding(len).code();
    assert_eq!((code(0), code(16384), code(16385)), (0, 0, 1));
    assert_eq!((code(65536), code(1 << 20), code(usize::MAX)), (2, 6, 6));
}
