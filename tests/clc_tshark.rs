//! What Wireshark makes of our messages. Skipped, with a line that says so, where `tshark` is not installed.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
    thread,
};

use smcd::{
    clc::{
        DeclineCode,
        wire::{
            Accept, Confirm, Decline, DmbeSize, Eid, FEATURE_EMULATED_ISM, FirstContact, FirstContactV2x,
            Flavours, Ipv4Prefix, Ipv6Prefix, LinkId, Message, Os, Prefixes, Proposal, Release, RoceIdentity,
            Seid, SmcdArea, SmcdBody, SmcdBodyV2, SmcdV2Extension, Ueid, UpTo, V1Offer, V2Offer, Version,
        },
    },
    dibs::{Chid, DmbToken, Gid},
};

const GID: Gid = Gid::from_halves(0x3f25_04e0_4f89_41d3, 0x9a0c_0305_e82c_3301);
const LOOPBACK: Chid = Chid(0xffff);

/// A pcap file with TCP streams between 10.0.0.1 (client) and 10.0.0.2 (server, port 5001).
struct Capture {
    file: Vec<u8>,
    client_port: u16,
    next: [u32; 2],
}

impl Capture {
    const SYN: u8 = 0x02;
    const PSH_ACK: u8 = 0x18;
    const ACK: u8 = 0x10;
    /// NOP, NOP, and the SMC option.
    const SMC_OPTION: [u8; 8] = [1, 1, 254, 6, 0xe2, 0xd4, 0xc3, 0xd9];

    fn new() -> Self {
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4, 0x0002_0004, 0, 0, 0x0004_0000, 101 /* raw IP */] {
            file.extend(u32::to_be_bytes(word));
        }
        Self { file, client_port: 40_000, next: [0; 2] }
    }

    /// A connection on which each side sends these payloads; `true` is the client. One packet each.
    fn stream<'a>(&mut self, payloads: impl IntoIterator<Item = (bool, &'a [u8])>) {
        self.client_port += 1;
        self.next = [1000, 2000];
        self.segment(true, Self::SYN, &Self::SMC_OPTION, &[]);
        self.segment(false, Self::SYN | Self::ACK, &Self::SMC_OPTION, &[]);
        self.segment(true, Self::ACK, &[], &[]);
        for (from_client, payload) in payloads {
            self.segment(from_client, Self::PSH_ACK, &[], payload);
        }
    }

    fn segment(&mut self, from_client: bool, flags: u8, options: &[u8], payload: &[u8]) {
        let (from, to) = if from_client { (0, 1) } else { (1, 0) };
        let ports = [self.client_port, 5001];
        let mut tcp = Vec::new();
        tcp.extend(ports[from].to_be_bytes());
        tcp.extend(ports[to].to_be_bytes());
        tcp.extend(self.next[from].to_be_bytes());
        tcp.extend(if flags & Self::ACK == 0 { 0 } else { self.next[to] }.to_be_bytes());
        tcp.extend([(((20 + options.len()) / 4) << 4) as u8, flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(options);
        tcp.extend(payload);
        self.next[from] += payload.len() as u32 + u32::from(flags & Self::SYN != 0);

        let total = 20 + tcp.len();
        let [hi, lo] = (total as u16).to_be_bytes();
        let addrs = [[10, 0, 0, 1], [10, 0, 0, 2]];
        let length = (total as u32).to_be_bytes();
        self.file.extend([[0; 4], [0; 4], length, length].concat());
        self.file.extend([0x45, 0, hi, lo, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        self.file.extend([addrs[from], addrs[to]].concat());
        self.file.extend(tcp);
    }
}

fn tshark_is_missing() -> bool {
    let version =
        Command::new("tshark").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let missing = version.is_err();
    if missing {
        // Straight to the descriptor: the harness keeps what a passing test prints.
        let _ = writeln!(io::stderr(), "SKIPPED: tshark is not installed (apt-get install tshark)");
    }
    missing
}

/// The decoded tree of each CLC message in a capture: lines without their indent.
fn decode(capture: Vec<u8>) -> Vec<Vec<String>> {
    let mut tshark = Command::new("tshark")
        .args(["-r", "-", "-Y", "smc", "-O", "smc"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = tshark.stdin.take().unwrap();
    let writer = thread::spawn(move || stdin.write_all(&capture).unwrap());
    let output = tshark.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let trees = text.split("Shared Memory Communications\n").skip(1);
    trees
        .map(|tree| tree.lines().take_while(|l| !l.is_empty()).map(|l| l.trim().to_owned()).collect())
        .collect()
}

/// Decodes messages, each from client or server by its kind; all on one stream.
fn decode_messages(messages: &[Message]) -> Vec<Vec<String>> {
    let bytes: Vec<_> = messages.iter().map(|m| (!matches!(m, Message::Accept(_)), m.to_bytes())).collect();
    let mut capture = Capture::new();
    capture.stream(bytes.iter().map(|(from_client, bytes)| (*from_client, bytes.as_slice())));
    let trees = decode(capture.file);
    assert_eq!(trees.len(), messages.len(), "messages recognised");
    trees
}

/// Each line must occur, in this order.
fn assert_lines(tree: &[String], expected: &[&str]) {
    let mut rest = tree.iter();
    for line in expected {
        assert!(rest.any(|l| l.ends_with(line)), "no {line:?}, or not in its place, in {tree:#?}");
    }
}

fn ueid(text: &str) -> Eid {
    text.parse::<Ueid>().unwrap().eid()
}

fn v2_offer(flavours: Flavours) -> V2Offer {
    let mut extension = SmcdV2Extension::default();
    extension.push_device(GID, LOOPBACK).unwrap();
    extension.push_device(Gid::from_halves(0x0102_0304_0506_0708, 0), Chid(0x07c1)).unwrap();
    V2Offer {
        flavours,
        release: Release::R1,
        seid_offered: false,
        roce_gid: [0; 16],
        max_conns: 0,
        max_links: 0,
        feature_mask: FEATURE_EMULATED_ISM,
        ueids: UpTo::first_of([ueid("UEID-1"), ueid("UEID.2")]),
        smcd: Some(extension).filter(|_| flavours.has_d()),
    }
}

fn proposal(version: Version) -> Proposal {
    Proposal {
        version,
        roce: RoceIdentity::default(),
        smcd: Some(SmcdArea::default()),
        v1: None,
        v2: Some(v2_offer(Flavours::D)),
    }
}

fn body(release: Option<Release>) -> SmcdBody {
    let extension = release.map(|release| FirstContact {
        v2_direct: false,
        os: Os::LINUX,
        release,
        hostname: "host.example".parse().unwrap(),
        v2x: Some(FirstContactV2x { feature_mask: 1, vendor_options: [0; 4] }),
    });
    SmcdBody {
        gid: GID,
        token: DmbToken(0x1122_3344_5566_7788),
        dmbe_idx: 5,
        dmbe_size: DmbeSize::from_bytes(64 * 1024).unwrap(),
        link_id: LinkId([0, 1, 0, 0]),
        first_contact: release.is_some(),
        v2: Some(SmcdBodyV2 { version: Version::V2, chid: LOOPBACK, eid: ueid("UEID-1"), extension }),
    }
}

#[test]
fn proposals_of_version_2() {
    if tshark_is_missing() {
        return;
    }
    let smcd = proposal(Version::V2);
    let mut both = proposal(Version::V2);
    both.v1 = Some(V1Offer {
        flavours: Flavours::B,
        prefixes: Prefixes::ipv6(UpTo::first_of([
            Ipv6Prefix::of("fd00:1::1".parse().unwrap(), 64),
            Ipv6Prefix::of("fd00:2::1".parse().unwrap(), 48),
        ])),
    });
    both.smcd = Some(SmcdArea { gid: 0x0a0b_0c0d_0e0f_1011, chid: Chid(0x07c2), ..SmcdArea::default() });
    both.roce = RoceIdentity { id_for_peer: [1; 8], gid: [0xfe; 16], mac: [2, 3, 4, 5, 6, 7] };
    let seid = Seid::of_machine(0x1234, 0x3931).eid();
    let mut offer = V2Offer { seid_offered: true, ..v2_offer(Flavours::B) };
    offer.smcd.as_mut().unwrap().seid = seid;
    both.v2 = Some(offer);
    let trees = decode_messages(&[smcd.clone().into(), both.clone().into()]);
    assert_lines(
        &trees[0],
        &[
            "CLC Message: Proposal (1)",
            &format!("SMC Length: {}", smcd.wire_len()),
            "SMC Version: 2",
            "SMC(v2) Type: SMC-D (1)",
            "SMC(v1) Type: NONE (2)",
            "SMCv2 Extension Offset: 0x001c",
            "EID Count: 2",
            "ISMv2 GID Count: 3",
            "SMC Version Release Number: 1",
            "SEID Indicator: False",
            "SMC-Dv2 Extension Offset: 0x0060",
            "EID: UEID-1",
            "EID: UEID.2",
            "ISM GID: 0x3f2504e04f8941d3",
            "ISMv2 CHID: 0xffff",
            "ISM GID: 0x9a0c0305e82c3301",
            "ISMv2 CHID: 0xffff",
            "ISM GID: 0x0102030405060708",
            "ISMv2 CHID: 0x07c1",
        ],
    );
    assert_lines(
        &trees[1],
        &[
            &format!("SMC Length: {}", both.wire_len()),
            "Flags: 0x2f",
            "Sender (Client) Peer ID: 0x0101010101010101",
            "ISM GID: 0x0a0b0c0d0e0f1011",
            "ISMv2 CHID: 0x07c2",
            "IPv6 Prefix Count: 2",
            "IPv6 Prefix Value: fd00:1::",
            "IPv6 Prefix Length: 64",
            "IPv6 Prefix Value: fd00:2::",
            "IPv6 Prefix Length: 48",
            "EID Count: 2",
            "ISMv2 GID Count: 3",
            "SEID Indicator: True",
            "EID: UEID-1",
            "SEID: IBM-SYSZ-ISMSEID0000000012343931",
            "ISM GID: 0x3f2504e04f8941d3",
        ],
    );
}

#[test]
fn proposal_of_version_1() {
    if tshark_is_missing() {
        return;
    }
    let mut proposal = proposal(Version::V1);
    let prefixes = Prefixes::ipv4(Ipv4Prefix::of([192, 168, 7, 9].into(), 24));
    proposal.v1 = Some(V1Offer { flavours: Flavours::D, prefixes });
    proposal.v2 = None;
    proposal.smcd = Some(SmcdArea { gid: 0x0a0b_0c0d_0e0f_1011, ..SmcdArea::default() });
    let trees = decode_messages(&[proposal.into()]);
    assert_lines(
        &trees[0],
        &[
            "CLC Message: Proposal (1)",
            "SMC Length: 92",
            "SMC Version: 1",
            "SMC(v1) Type: SMC-D (1)",
            "ISM GID: 0x0a0b0c0d0e0f1011",
            "Outgoing Interface Subnet Mask: 192.168.7.0",
            "Outgoing Interface Subnet Mask Number of Significant Bits: 24",
            "IPv6 Prefix Count: 0",
        ],
    );
}

#[test]
fn accepts_and_confirms() {
    if tshark_is_missing() {
        return;
    }
    let v1 = SmcdBody { v2: None, first_contact: true, ..body(None) };
    let bodies = [(v1, 48), (body(None), 78), (body(Some(Release::R0)), 114), (body(Some(Release::R1)), 130)];
    for (body, len) in bodies {
        let trees = decode_messages(&[Accept(body).into(), Confirm(body).into()]);
        for (tree, kind, sender) in [
            (&trees[0], "CLC Message: Accept (2)", "Sender (Server) ISM GID: 0x3f2504e04f8941d3"),
            (&trees[1], "CLC Message: Confirm (3)", "Sender (Client) ISM GID: 0x3f2504e04f8941d3"),
        ] {
            let (length, version) = (format!("SMC Length: {len}"), body.version());
            let first_contact =
                if body.first_contact { "First Contact: True" } else { "First Contact: False" };
            let version = format!("SMC Version: {version}");
            assert_lines(tree, &[kind, &length, &version, first_contact, "SMC Type: SMC-D (1)"]);
            assert_lines(tree, &[sender, "DMB Token: 0x1122334455667788", "DMBE Connection Index: 5"]);
            assert_lines(tree, &["DMBE Size: 0x20", "Link ID: 0x00010000"]);
            if let Some(v2) = body.v2 {
                assert_lines(tree, &["ISMv2 CHID: 0xffff", "Negotiated EID: UEID-1"]);
                if let Some(extension) = v2.extension {
                    let release = format!("SMC Version Release Number: {}", extension.release);
                    assert_lines(tree, &["OS Type: Linux (2)", &release, "Peer Host Name: host.example"]);
                }
            }
        }
    }
}

#[test]
fn declines() {
    if tshark_is_missing() {
        return;
    }
    let codes = [
        (Version::V1, DeclineCode::NO_DEVICE, 28, "0x03030000"),
        (Version::V2, DeclineCode::NO_UEID, 44, "0x03030008"),
        (Version::V2, DeclineCode::SYNC, 44, "0x04000000"),
    ];
    for (version, code, len, shown) in codes {
        let decline = Decline::new(version, code);
        let trees = decode_messages(&[decline.into()]);
        let (length, version) = (format!("SMC Length: {len}"), format!("SMC Version: {version}"));
        let out_of_sync = if decline.out_of_sync { "Out of Sync: True" } else { "Out of Sync: False" };
        assert_lines(&trees[0], &["CLC Message: Decline (4)", &length, &version, out_of_sync]);
        assert!(trees[0].iter().any(|line| line.contains(shown)), "no {shown} in {:#?}", trees[0]);
    }
}

#[test]
fn captured_handshakes_decode_alike_once_emitted_again() {
    if tshark_is_missing() {
        return;
    }
    let unhex = |text: &str| -> Vec<u8> {
        let digits: Vec<_> = text.trim().chars().map(|c| c.to_digit(16).unwrap()).collect();
        digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    };
    let handshakes = [
        [
            include_str!("vectors/linux-7.3/proposal-v2-ueid.hex"),
            include_str!("vectors/linux-7.3/accept-v2-first-contact.hex"),
            include_str!("vectors/linux-7.3/confirm-v2-first-contact.hex"),
        ],
        [
            include_str!("vectors/linux-7.3/proposal-v2-ueid-again.hex"),
            include_str!("vectors/linux-7.3/accept-v2-reuse.hex"),
            include_str!("vectors/linux-7.3/confirm-v2-reuse.hex"),
        ],
    ];
    let mut ours = Capture::new();
    for messages in handshakes {
        let again = messages.map(|text| Message::parse(&unhex(text)).unwrap().to_bytes());
        ours.stream(again.iter().enumerate().map(|(i, bytes)| (i != 1, bytes.as_slice())));
    }
    let linux = decode(include_bytes!("vectors/linux-7.3/smcd-v2-ueid.pcap").to_vec());
    assert_eq!(linux.len(), 6);
    assert_eq!(decode(ours.file), linux);
}
