//! Every diagnosis of a Decline: who comes to it and how, and that the other side takes it for what it is. A code without
//! a row here fails the test.

use std::time::Instant;

use smcd::{
    FallbackReason,
    clc::{
        DeclineCode,
        handshake::{
            HandshakeError, Local, LocalDevice, LocalV1, OwnDmb, Vlan,
            client::{self, Accepted, ExpectAccept},
            server::{ExpectConfirm, ExpectProposal, Offered},
        },
        wire::{
            Accept, Confirm, Decline, DmbeSize, Flavours, Ipv4Prefix, LinkId, Message, Prefixes, Proposal,
            Release, UpTo, Version,
        },
    },
    dibs::{Chid, DmbToken, Gid},
};

/// Where a code comes from.
enum Origin {
    /// A client sends it.
    Client(fn() -> Decline),
    /// A server sends it.
    Server(fn() -> Decline),
    /// Either may; both are shown.
    Both(fn() -> Decline, fn() -> Decline),
    /// Never on the wire: it says of this side's own accord why a connection is TCP.
    Local(FallbackReason),
    /// Of SMC-R, which is never spoken here. Only understood.
    SmcR,
    /// Linux defines it and never sends it. Only understood.
    Unused,
}

use Origin::{Both, Client, Local as OnlyLocal, Server, SmcR, Unused};

const ORIGINS: &[(DeclineCode, Origin)] = &[
    (DeclineCode::MEMORY, Both(client_after_accept::<{ DeclineCode::MEMORY.0 }>, server_without_buffers)),
    (DeclineCode::TIMEOUT_CONFIRM_LINK, SmcR),
    (DeclineCode::TIMEOUT_ADD_LINK, SmcR),
    (DeclineCode::CONFIG, Client(client_without_prefixes)),
    (DeclineCode::PEER_NO_SMC, Server(server_offered_nothing)),
    (DeclineCode::IPSEC, Both(client_with_ipsec, server_with_ipsec)),
    (DeclineCode::NO_DEVICE, Client(client_without_devices)),
    (DeclineCode::NO_SMCD_DEVICE, Server(server_of_another_enterprise)),
    (DeclineCode::NO_SMCR_DEVICE, Server(server_offered_smcr)),
    (DeclineCode::NO_ISM_V2, Server(server_without_version_2)),
    (DeclineCode::NO_V2_EXTENSION, Server(server_told_to::<{ DeclineCode::NO_V2_EXTENSION.0 }>)),
    (DeclineCode::NO_SMCD_V2_EXTENSION, Server(server_offered_no_smcd_extension)),
    (DeclineCode::NO_SEID, Unused),
    (DeclineCode::NO_SMCD_V2_DEVICE, Server(server_out_of_reach)),
    (DeclineCode::NO_UEID, Server(server_offered_no_eid)),
    (DeclineCode::RELEASE, Server(server_confirmed_in_another_release)),
    (DeclineCode::MAX_CONNECTIONS, SmcR),
    (DeclineCode::MAX_LINKS, SmcR),
    (DeclineCode::MODE_UNSUPPORTED, Client(client_accepted_in_version_1)),
    (DeclineCode::RMB_EYECATCHER, SmcR),
    (DeclineCode::OPTION_UNSUPPORTED, OnlyLocal(FallbackReason::Declined(DeclineCode::OPTION_UNSUPPORTED))),
    (DeclineCode::PREFIX_MISMATCH, Server(server_of_another_subnet)),
    (DeclineCode::VLAN_UNKNOWN, Server(server_of_unknown_vlan)),
    (DeclineCode::VLAN_REGISTRATION, Server(server_of_refused_vlan)),
    (DeclineCode::NO_ACTIVE_LINK, SmcR),
    (DeclineCode::SERVER_LINK_UNKNOWN, SmcR),
    (DeclineCode::VERSION_MISMATCH, Unused),
    (
        DeclineCode::NO_FREE_DMB,
        Both(
            client_after_accept::<{ DeclineCode::NO_FREE_DMB.0 }>,
            server_told_to::<{ DeclineCode::NO_FREE_DMB.0 }>,
        ),
    ),
    (DeclineCode::NO_ROUTE, SmcR),
    (DeclineCode::INDIRECT_MISMATCH, SmcR),
    (DeclineCode::SYNC, Client(client_after_accept::<{ DeclineCode::SYNC.0 }>)),
    (DeclineCode::PEER_DECLINED, OnlyLocal(FallbackReason::PeerDeclined(DeclineCode::NO_UEID))),
    (
        DeclineCode::INTERNAL,
        Both(
            client_after_accept::<{ DeclineCode::INTERNAL.0 }>,
            server_told_to::<{ DeclineCode::INTERNAL.0 }>,
        ),
    ),
    (DeclineCode::RTOKEN, SmcR),
    (DeclineCode::READY_LINK, SmcR),
    (DeclineCode::REGISTER_RMB, SmcR),
];

const LOOPBACK: Chid = Chid(0xffff);
const ISM: Chid = Chid(0x07c1);
const DMB: OwnDmb = OwnDmb { token: DmbToken(7), size: DmbeSize::from_code(2), index: 0 };

fn host(number: u64) -> Local {
    let device = LocalDevice { gid: Gid::from_halves(number, number), chid: LOOPBACK };
    Local { ueids: UpTo::first_of(["UEID-1".parse().unwrap()]), ..Local::new(vec![device]) }
}

/// A host that speaks version 1 only, in a subnet of this prefix length.
fn version_1(number: u64, prefix: u8) -> Local {
    let prefixes = Some(Prefixes::ipv4(Ipv4Prefix::of([10, 1, 2, 3].into(), prefix)));
    let device = LocalDevice { gid: Gid::from_halves(number, 0), chid: ISM };
    Local { v2_capable: false, v1: Some(LocalV1 { device: 0, prefixes }), ..Local::new(vec![device]) }
}

fn through_bytes(message: impl Into<Message>) -> Message {
    Message::parse(&message.into().to_bytes()).unwrap()
}

fn proposal_of(local: &Local) -> (Proposal, ExpectAccept) {
    client::propose(local, Instant::now()).unwrap()
}

fn receive(local: Local, proposal: Proposal) -> Result<Offered, HandshakeError> {
    ExpectProposal::new(local, Instant::now()).on_message(through_bytes(proposal))
}

fn offered() -> Offered {
    receive(host(2), proposal_of(&host(1)).0).unwrap()
}

fn accept(offered: Offered) -> (Accept, ExpectConfirm) {
    let candidates = offered.candidates(|_, _, _| true).unwrap();
    let first = *candidates.iter().next().unwrap();
    offered.accept(&first, DMB, true, LinkId::default(), Instant::now())
}

fn accepted() -> (Accepted, ExpectConfirm) {
    let (proposal, expect_accept) = proposal_of(&host(1));
    let (accept, expect_confirm) = accept(receive(host(2), proposal).unwrap());
    (expect_accept.on_message(through_bytes(accept)).unwrap(), expect_confirm)
}

/// The Decline that a refused message calls for.
fn decline_of<T: std::fmt::Debug>(result: Result<T, HandshakeError>) -> Decline {
    *result.unwrap_err().decline().expect("no Decline")
}

/// The Decline of a server that finds no way to connect.
fn no_candidate(server: Local, proposal: Proposal) -> Decline {
    let offered = receive(server, proposal).unwrap();
    let code = offered.candidates(|_, _, _| true).unwrap_err();
    offered.decline(code)
}

fn client_without_prefixes() -> Decline {
    let mut local = version_1(1, 8);
    local.v1.as_mut().unwrap().prefixes = None;
    client::propose(&local, Instant::now()).unwrap_err()
}

fn client_without_devices() -> Decline {
    client::propose(&Local::new(Vec::new()), Instant::now()).unwrap_err()
}

fn client_with_ipsec() -> Decline {
    client::decline(&host(1), DeclineCode::IPSEC)
}

fn client_accepted_in_version_1() -> Decline {
    let (accept, _) = accept(offered());
    let mut body = accept.0;
    body.v2 = None;
    decline_of(proposal_of(&host(1)).1.on_message(through_bytes(Accept(body))))
}

/// A client that could not get what it needs to confirm.
fn client_after_accept<const CODE: u32>() -> Decline {
    accepted().0.decline(DeclineCode(CODE))
}

/// A server whose caller found out what the handshake itself cannot.
fn server_told_to<const CODE: u32>() -> Decline {
    offered().decline(DeclineCode(CODE))
}

fn server_with_ipsec() -> Decline {
    offered().decline(DeclineCode::IPSEC)
}

fn server_without_buffers() -> Decline {
    let offered = offered();
    let candidates = offered.candidates(|_, _, _| true).unwrap();
    offered.decline(candidates.decline_code(DeclineCode::MEMORY))
}

fn server_offered_nothing() -> Decline {
    let (mut proposal, _) = proposal_of(&host(1));
    proposal.v2 = None;
    decline_of(receive(host(2), proposal))
}

fn server_offered_smcr() -> Decline {
    let (mut proposal, _) = proposal_of(&host(1));
    let v2 = proposal.v2.as_mut().unwrap();
    (v2.flavours, v2.smcd) = (Flavours::R, None);
    no_candidate(host(2), proposal)
}

fn server_offered_no_smcd_extension() -> Decline {
    let (mut proposal, _) = proposal_of(&host(1));
    proposal.v2.as_mut().unwrap().smcd = None;
    decline_of(receive(host(2), proposal))
}

fn server_offered_no_eid() -> Decline {
    decline_of(receive(host(2), proposal_of(&Local { ueids: UpTo::new(), ..host(1) }).0))
}

fn server_without_version_2() -> Decline {
    decline_of(receive(version_1(2, 8), proposal_of(&host(1)).0))
}

fn server_of_another_enterprise() -> Decline {
    let server = Local { ueids: UpTo::first_of(["OTHER".parse().unwrap()]), ..host(2) };
    no_candidate(server, proposal_of(&host(1)).0)
}

fn server_out_of_reach() -> Decline {
    let offered = offered();
    let code = offered.candidates(|_, _, _| false).unwrap_err();
    offered.decline(code)
}

fn server_of_another_subnet() -> Decline {
    no_candidate(version_1(2, 16), proposal_of(&version_1(1, 8)).0)
}

fn server_of_unknown_vlan() -> Decline {
    no_candidate(Local { vlan: Vlan::Unknown, ..version_1(2, 8) }, proposal_of(&version_1(1, 8)).0)
}

fn server_of_refused_vlan() -> Decline {
    no_candidate(Local { vlan: Vlan::Refused, ..version_1(2, 8) }, proposal_of(&version_1(1, 8)).0)
}

fn server_confirmed_in_another_release() -> Decline {
    let (accepted, expect_confirm) = accepted();
    let (Confirm(mut body), _) = accepted.confirm(DMB, LinkId::default());
    let extension = body.v2.as_mut().unwrap().extension.as_mut().unwrap();
    (extension.release, extension.v2x) = (Release::R0, None);
    decline_of(expect_confirm.on_message(through_bytes(Confirm(body))))
}

/// A state of the other side, waiting, and what it makes of a message.
type Waiting = fn(Message) -> HandshakeError;

const SERVERS: [Waiting; 2] = [
    |message| ExpectProposal::new(host(2), Instant::now()).on_message(message).unwrap_err(),
    |message| accepted().1.on_message(message).unwrap_err(),
];
const CLIENTS: [Waiting; 1] = [|message| proposal_of(&host(1)).1.on_message(message).unwrap_err()];

/// A Decline is understood wherever it may come, and names the reason for staying TCP on both sides.
fn is_understood(code: DeclineCode, decline: Decline, states: &[Waiting]) {
    assert_eq!((decline.diagnosis, decline.out_of_sync), (code, code.is_out_of_sync()));
    for state in states {
        let error = state(through_bytes(decline));
        let HandshakeError::PeerDeclined { diagnosis, out_of_sync } = error else {
            panic!("{code}: {error:?}")
        };
        assert_eq!((diagnosis, out_of_sync), (code, code.is_out_of_sync()));
        assert!(error.falls_back() && error.decline().is_none());
        let reason = FallbackReason::PeerDeclined(diagnosis);
        assert_eq!((reason.code(), reason.peer_diagnosis()), (DeclineCode::PEER_DECLINED, Some(code)));
        assert!(reason.to_string().contains(code.name().unwrap()), "{reason}");
    }
    let reason = FallbackReason::Declined(code);
    assert_eq!((reason.code(), reason.peer_diagnosis()), (code, None));
    assert!(reason.to_string().contains(code.name().unwrap()), "{reason}");
}

#[test]
fn every_code_has_an_origin_and_is_understood() {
    for &code in DeclineCode::ALL {
        let mut rows = ORIGINS.iter().filter(|(of, _)| *of == code);
        let (_, origin) = rows.next().unwrap_or_else(|| panic!("{code} has no row"));
        assert!(rows.next().is_none(), "{code} has two rows");
        match origin {
            Client(produce) => is_understood(code, produce(), &SERVERS),
            Server(produce) => is_understood(code, produce(), &CLIENTS),
            Both(client, server) => {
                is_understood(code, client(), &SERVERS);
                is_understood(code, server(), &CLIENTS);
            }
            OnlyLocal(reason) => assert_eq!(reason.code(), code),
            SmcR | Unused => {
                for version in [Version::V1, Version::V2] {
                    let decline = Decline::new(version, code);
                    is_understood(code, decline, &SERVERS);
                    is_understood(code, decline, &CLIENTS);
                }
            }
        }
    }
}

/// Those that the specification marks as possible on a path of SMC-D are not only understood but produced.
#[test]
fn codes_of_smcd_are_produced() {
    let smcd = [
        0x0101_0000,
        0x0300_0000,
        0x0301_0000,
        0x0302_0000,
        0x0303_0000,
        0x0303_0001,
        0x0303_0003,
        0x0303_0004,
        0x0303_0005,
        0x0303_0007,
        0x0303_0008,
        0x0303_0009,
        0x0304_0000,
        0x0307_0000,
        0x0308_0000,
        0x0309_0000,
        0x030d_0000,
        0x0400_0000,
        0x0500_0000,
        0x0999_0000,
    ];
    for code in smcd.map(DeclineCode) {
        let (_, origin) = ORIGINS.iter().find(|(of, _)| *of == code).unwrap();
        assert!(!matches!(origin, SmcR | Unused), "{code}");
    }
}
