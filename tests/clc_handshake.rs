//! Client and server joined in memory; every message goes through its bytes.

use std::time::{Duration, Instant};

use smcd::{
    clc::{
        DeclineCode,
        handshake::{
            Agreed, CLC_WAIT, HandshakeError, Local, LocalDevice, LocalV1, OwnDmb, Violation, Vlan,
            client::{self, Accepted, ExpectAccept},
            server::{Candidates, ExpectConfirm, ExpectProposal, Offered},
        },
        wire::{
            Accept, Confirm, Decline, DmbeSize, Eid, FirstContact, Flavours, GidEntry, Ipv4Prefix, LinkId,
            Message, MsgType, Os, Prefixes, Proposal, Release, Seid, SmcdBody, SmcdBodyV2, UpTo, Version,
        },
    },
    dibs::{Chid, DmbToken, Gid, VlanId},
};

const LOOPBACK: Chid = Chid(0xffff);
const VIRTIO: Chid = Chid(0xff00);
const ISM: Chid = Chid(0x07c1);
const CLIENT_GID: Gid = Gid::from_halves(0x1111, 0x2222);
const SERVER_GID: Gid = Gid::from_halves(0x3333, 0x4444);
const CLIENT_DMB: OwnDmb = OwnDmb { token: DmbToken(0xc11e), size: DmbeSize::from_code(2), index: 0 };
const SERVER_DMB: OwnDmb = OwnDmb { token: DmbToken(0x5e12), size: DmbeSize::from_code(6), index: 3 };
const CLIENT_LINK: LinkId = LinkId([0, 1, 0, 0]);
const SERVER_LINK: LinkId = LinkId([0, 2, 0, 0]);

fn device(gid: Gid, chid: Chid) -> LocalDevice {
    LocalDevice { gid, chid }
}

fn host(name: &str, device: LocalDevice) -> Local {
    Local {
        ueids: UpTo::first_of(["UEID-1".parse().unwrap()]),
        hostname: name.parse().unwrap(),
        ..Local::new(vec![device])
    }
}

fn client() -> Local {
    host("client", device(CLIENT_GID, LOOPBACK))
}

fn server() -> Local {
    host("server", device(SERVER_GID, LOOPBACK))
}

/// A host of version 1 with one ISM function, in 10.0.0.0/8.
fn version_1(gid: Gid) -> Local {
    let prefixes = Some(Prefixes::ipv4(Ipv4Prefix::of([10, 1, 2, 3].into(), 8)));
    Local {
        v2_capable: false,
        v1: Some(LocalV1 { device: 0, prefixes }),
        ..Local::new(vec![device(gid, ISM)])
    }
}

/// A host of both versions, whose ISM function serves both.
fn both_versions(gid: Gid) -> Local {
    let ueids = UpTo::first_of(["UEID-1".parse().unwrap()]);
    Local { v2_capable: true, ueids, ..version_1(gid) }
}

/// The message as the other side receives it.
fn sent(message: impl Into<Message>) -> Message {
    Message::parse(&message.into().to_bytes()).unwrap()
}

fn propose(local: &Local) -> (Proposal, ExpectAccept) {
    client::propose(local, Instant::now()).unwrap()
}

fn receive(local: &Local, proposal: Proposal) -> Result<Offered, HandshakeError> {
    ExpectProposal::new(local.clone(), Instant::now()).on_message(sent(proposal))
}

/// The server's answer where every device reaches every other of its fabric.
fn candidates(local: &Local, proposal: Proposal) -> Result<Candidates, DeclineCode> {
    receive(local, proposal).unwrap().candidates(|_, _, _| true)
}

fn accept(offered: Offered, first_contact: bool) -> (Accept, ExpectConfirm) {
    let candidates = offered.candidates(|_, _, _| true).unwrap();
    let first = *candidates.iter().next().unwrap();
    offered.accept(&first, SERVER_DMB, first_contact, SERVER_LINK, Instant::now())
}

/// Both sides, up to the Accept.
fn up_to_accept(
    client: &Local,
    server: &Local,
    first_contact: bool,
) -> (SmcdBody, ExpectAccept, ExpectConfirm) {
    let (proposal, expect_accept) = propose(client);
    let (Accept(body), expect_confirm) = accept(receive(server, proposal).unwrap(), first_contact);
    (body, expect_accept, expect_confirm)
}

/// Both sides, up to the Confirm.
fn up_to_confirm(client: &Local, server: &Local, first_contact: bool) -> (SmcdBody, Agreed, ExpectConfirm) {
    let (body, expect_accept, expect_confirm) = up_to_accept(client, server, first_contact);
    let accepted = expect_accept.on_message(sent(Accept(body))).unwrap();
    let (Confirm(body), agreed) = accepted.confirm(CLIENT_DMB, CLIENT_LINK);
    (body, agreed, expect_confirm)
}

/// A whole handshake.
fn agree(client: &Local, server: &Local, first_contact: bool) -> (Agreed, Agreed) {
    let (body, agreed, expect_confirm) = up_to_confirm(client, server, first_contact);
    (agreed, expect_confirm.on_message(sent(Confirm(body))).unwrap())
}

fn declined(code: DeclineCode, version: Version) -> HandshakeError {
    HandshakeError::Declined(Decline::new(version, code))
}

fn dmbs_are_exchanged(client: &Agreed, server: &Agreed) {
    for (own, peer) in [(client.own_dmb(), server), (server.own_dmb(), client)] {
        let peer = peer.terms().peer_dmb();
        assert_eq!((peer.token(), peer.size(), peer.index()), (own.token, own.size, own.index));
    }
}

// Agreement

#[test]
fn first_contact() {
    let (client, server) = agree(&client(), &server(), true);
    dmbs_are_exchanged(&client, &server);
    let ueid = "UEID-1".parse::<smcd::clc::wire::Ueid>().unwrap().eid();
    for (agreed, peer_gid, peer_name) in [(client, SERVER_GID, "server"), (server, CLIENT_GID, "client")] {
        let terms = agreed.terms();
        assert_eq!((terms.device(), terms.version(), terms.peer_gid()), (0, Version::V2, peer_gid));
        assert_eq!((terms.eid(), terms.first_contact()), (Some(ueid), true));
        let peer = terms.peer().unwrap();
        assert_eq!((peer.os, peer.release, peer.features), (Os::LINUX, Release::R1, 1));
        assert_eq!(peer.hostname.unwrap().to_string(), peer_name);
    }
}

#[test]
fn reuse_of_a_link_group() {
    let (client, server) = agree(&client(), &server(), false);
    dmbs_are_exchanged(&client, &server);
    for agreed in [client, server] {
        assert!(!agreed.terms().first_contact());
        assert_eq!(agreed.terms().peer(), None);
    }
}

#[test]
fn version_1_alone() {
    let (gid_c, gid_s) = (Gid::from_halves(5, 0), Gid::from_halves(6, 0));
    for first_contact in [true, false] {
        let (client, server) = agree(&version_1(gid_c), &version_1(gid_s), first_contact);
        dmbs_are_exchanged(&client, &server);
        for (agreed, peer_gid) in [(client, gid_s), (server, gid_c)] {
            let terms = agreed.terms();
            assert_eq!((terms.version(), terms.eid(), terms.peer_gid()), (Version::V1, None, peer_gid));
            assert_eq!((terms.first_contact(), terms.peer()), (first_contact, None));
        }
    }
}

#[test]
fn version_1_of_message_is_understood() {
    let (gid_c, gid_s) = (Gid::from_halves(5, 0), Gid::from_halves(6, 0));
    let (mut proposal, expect_accept) = propose(&version_1(gid_c));
    proposal.version = Version::V1;
    let (accept, _) = accept(receive(&both_versions(gid_s), proposal).unwrap(), true);
    assert_eq!(accept.0.version(), Version::V1);
    assert!(expect_accept.on_message(sent(accept)).is_ok());
}

#[test]
fn version_above_2_of_a_proposal_is_answered_in_2() {
    let (mut proposal, _) = propose(&client());
    proposal.version = Version::new(3).unwrap();
    let (accept, _) = accept(receive(&server(), proposal.clone()).unwrap(), true);
    assert_eq!(accept.0.version(), Version::V2);
    let decline = receive(&server(), proposal).unwrap().decline(DeclineCode::IPSEC);
    assert_eq!(decline.version(), Version::V2);
}

#[test]
fn device_of_version_1_is_the_first_candidate_of_version_2() {
    let gid = Gid::from_halves(0x5555_5555_5555_5555, 0);
    let mut server = both_versions(SERVER_GID);
    server.v1 = None;
    let (client, server) = agree(&both_versions(gid), &server, true);
    assert_eq!(server.terms().version(), Version::V2);
    assert_eq!(server.terms().peer_gid(), gid);
    // An ISM function has a GID of 64 bits, whatever the other half says.
    assert_eq!(client.terms().peer_gid(), Gid::from_halves(SERVER_GID.high(), 0));
}

#[test]
fn release_0_is_negotiated_from_either_side() {
    let release_0 = |local: Local| Local { release: Release::R0, ..local };
    for (client, server) in [(release_0(client()), server()), (client(), release_0(server()))] {
        let (body, ..) = up_to_accept(&client, &server, true);
        assert_eq!(body.wire_len(), 114);
        let (client, server) = agree(&client, &server, true);
        for agreed in [client, server] {
            let peer = agreed.terms().peer().unwrap();
            assert_eq!((peer.release, peer.features), (Release::R0, 0));
        }
    }
}

#[test]
fn devices_are_tried_in_the_order_of_the_client() {
    let gids = [1, 2, 3].map(|i| Gid::from_halves(i, i));
    let mut client = client();
    client.devices = vec![device(gids[0], ISM), device(gids[1], LOOPBACK), device(gids[2], VIRTIO)];
    let mut server = server();
    server.devices = vec![device(gids[2], VIRTIO), device(gids[0], LOOPBACK), device(gids[1], ISM)];
    let offered = receive(&server, propose(&client).0).unwrap();
    let mut asked = Vec::new();
    let candidates = offered.candidates(|index, gid, vlan| {
        asked.push((index, gid, vlan));
        index != 1
    });
    let found: Vec<_> = candidates.unwrap().iter().map(|c| (c.device(), c.peer_gid())).collect();
    assert_eq!(found, [(2, Gid::from_halves(1, 0)), (0, gids[2])]);
    let v2 = Some(VlanId::ISM_V2);
    assert_eq!(asked, [(2, Gid::from_halves(1, 0), v2), (1, gids[1], v2), (0, gids[2], v2)]);
}

#[test]
fn local_device_serves_once() {
    let (mut proposal, _) = propose(&client());
    let extension = proposal.v2.as_mut().unwrap().smcd.as_mut().unwrap();
    extension.push_device(Gid::from_halves(7, 8), LOOPBACK).unwrap();
    assert_eq!(candidates(&server(), proposal.clone()).unwrap().iter().count(), 1);
    let mut server = server();
    server.devices.push(device(Gid::from_halves(9, 9), LOOPBACK));
    assert_eq!(candidates(&server, proposal).unwrap().iter().count(), 2);
}

#[test]
fn seid_goes_before_ueids() {
    let seid = Seid::of_machine(0x1234, 0x3931);
    let with_seid = |local: Local, seid| Local { seid: Some(seid), ..local };
    let (agreed, _) = agree(&with_seid(client(), seid), &with_seid(server(), seid), true);
    assert_eq!(agreed.terms().eid(), Some(seid.eid()));
    // Of another machine, or on one side only: a UEID has to do.
    let other = Seid::of_machine(0x4321, 0x3931);
    let ueid = client().ueids[0].eid();
    for server in [with_seid(server(), other), server()] {
        let (agreed, _) = agree(&with_seid(client(), seid), &server, true);
        assert_eq!(agreed.terms().eid(), Some(ueid));
    }
}

#[test]
fn seid_alone_is_enough() {
    let seid = Some(Seid::of_machine(0x1234, 0x3931));
    let only_seid = |local: Local| Local { seid, ueids: UpTo::new(), ..local };
    let (agreed, _) = agree(&only_seid(client()), &only_seid(server()), true);
    assert_eq!(agreed.terms().eid(), seid.map(|seid| seid.eid()));
}

#[test]
fn ueid_is_the_first_in_the_order_of_the_client() {
    let ueids = |names: &[&str]| UpTo::first_of(names.iter().map(|name| name.parse().unwrap()));
    let client = Local { ueids: ueids(&["A", "B", "C"]), ..client() };
    let server = Local { ueids: ueids(&["C", "B", "D"]), ..server() };
    let (agreed, _) = agree(&client, &server, true);
    assert_eq!(agreed.terms().eid().unwrap().to_string(), "B");
}

// What the client offers

#[test]
fn emulated_device_takes_two_entries() {
    let (proposal, _) = propose(&client());
    let entries = proposal.v2.unwrap().smcd.unwrap().entries;
    let entry = |gid| GidEntry { gid, chid: LOOPBACK };
    assert_eq!(*entries, [entry(CLIENT_GID.high()), entry(CLIENT_GID.low())]);
}

#[test]
fn device_that_needs_a_ninth_entry_is_skipped() {
    let mut local = client();
    let ism = |i| device(Gid::from_halves(u64::from(i), 0), Chid(i));
    local.devices = (0..7).map(ism).collect();
    local.devices.push(device(CLIENT_GID, LOOPBACK));
    local.devices.extend([ism(7), ism(8)]);
    let entries = propose(&local).0.v2.unwrap().smcd.unwrap().entries;
    assert_eq!(entries.iter().map(|e| e.chid.0).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn chid_is_listed_once() {
    let mut local = both_versions(CLIENT_GID);
    local.devices.extend([
        device(SERVER_GID, ISM),
        device(CLIENT_GID, LOOPBACK),
        device(SERVER_GID, LOOPBACK),
    ]);
    let (proposal, _) = propose(&local);
    let area = proposal.smcd.unwrap();
    assert_eq!((area.gid, area.chid), (CLIENT_GID.high(), ISM));
    assert_eq!(proposal.v2.unwrap().smcd.unwrap().devices(), [(CLIENT_GID, LOOPBACK)]);
}

#[test]
fn version_1_needs_prefixes_and_vlan() {
    let mut local = both_versions(CLIENT_GID);
    assert!(propose(&local).0.v1.is_some());
    local.vlan = Vlan::Unknown;
    assert!(propose(&local).0.v1.is_none());
    local.vlan = Vlan::Untagged;
    local.v1.as_mut().unwrap().prefixes = None;
    let (proposal, _) = propose(&local);
    // The GID stays out as well, or Linux reads it as a number of prefixes.
    assert_eq!((proposal.v1, proposal.smcd), (None, Some(Default::default())));
    local.v2_capable = false;
    let decline = client::propose(&local, Instant::now()).unwrap_err();
    assert_eq!(decline, Decline::new(Version::V1, DeclineCode::CONFIG));
}

#[test]
fn emulated_device_is_not_offered_in_version_1() {
    let prefixes = Some(Prefixes::ipv4(Ipv4Prefix::of([127, 0, 0, 1].into(), 8)));
    let local = Local { v1: Some(LocalV1 { device: 0, prefixes }), ..client() };
    let (proposal, _) = propose(&local);
    assert_eq!(proposal.v1, None);
    assert_eq!(proposal.v2.unwrap().smcd.unwrap().devices(), [(CLIENT_GID, LOOPBACK)]);
}

#[test]
fn client_without_devices_declines_at_once() {
    let decline = client::propose(&Local::new(Vec::new()), Instant::now()).unwrap_err();
    assert_eq!(decline, Decline::new(Version::V1, DeclineCode::NO_DEVICE));
    let error = ExpectProposal::new(server(), Instant::now()).on_message(sent(decline)).unwrap_err();
    let diagnosis = DeclineCode::NO_DEVICE;
    assert_eq!(error, HandshakeError::PeerDeclined { diagnosis, out_of_sync: false });
}

#[test]
fn client_may_decline_before_it_proposes() {
    let decline = client::decline(&client(), DeclineCode::IPSEC);
    assert_eq!(decline, Decline::new(Version::V2, DeclineCode::IPSEC));
}

// What the server declines

#[test]
fn no_ueid_is_declined() {
    let local = Local { ueids: UpTo::new(), ..client() };
    let error = receive(&server(), propose(&local).0).unwrap_err();
    assert_eq!(error, declined(DeclineCode::NO_UEID, Version::V2));
    assert_eq!(error.decline().unwrap().diagnosis, DeclineCode(0x0303_0008));
    assert!(error.falls_back());
}

#[test]
fn disjoint_ueids_are_declined_for_want_of_a_device() {
    let local = Local { ueids: UpTo::first_of(["OTHER".parse().unwrap()]), ..client() };
    assert_eq!(candidates(&server(), propose(&local).0), Err(DeclineCode(0x0303_0001)));
    let no_ueids = Local { ueids: UpTo::new(), ..server() };
    assert_eq!(candidates(&no_ueids, propose(&client()).0), Err(DeclineCode(0x0303_0001)));
}

#[test]
fn no_matching_device_is_declined() {
    let local = host("client", device(CLIENT_GID, VIRTIO));
    assert_eq!(candidates(&server(), propose(&local).0), Err(DeclineCode(0x0303_0007)));
    let unreachable = receive(&server(), propose(&client()).0).unwrap().candidates(|_, _, _| false);
    assert_eq!(unreachable, Err(DeclineCode::NO_SMCD_V2_DEVICE));
}

#[test]
fn server_without_version_2_declines_it() {
    let error = receive(&version_1(SERVER_GID), propose(&client()).0).unwrap_err();
    assert_eq!(error, declined(DeclineCode::NO_ISM_V2, Version::V2));
    let error = receive(&Local::new(Vec::new()), propose(&client()).0).unwrap_err();
    assert_eq!(error, declined(DeclineCode::NO_ISM_V2, Version::V2));
}

#[test]
fn missing_smcd_v2_extension_is_declined() {
    let (mut proposal, _) = propose(&client());
    proposal.v2.as_mut().unwrap().smcd = None;
    let error = receive(&server(), proposal).unwrap_err();
    assert_eq!(error, declined(DeclineCode::NO_SMCD_V2_EXTENSION, Version::V2));
}

#[test]
fn proposal_that_offers_nothing_is_declined() {
    let (mut proposal, _) = propose(&client());
    proposal.v2 = None;
    let error = receive(&server(), proposal).unwrap_err();
    assert_eq!(error, declined(DeclineCode::PEER_NO_SMC, Version::V2));
}

#[test]
fn smcr_alone_is_declined() {
    let (mut proposal, _) = propose(&client());
    let v2 = proposal.v2.as_mut().unwrap();
    (v2.flavours, v2.smcd) = (Flavours::R, None);
    assert_eq!(candidates(&server(), proposal.clone()), Err(DeclineCode::NO_SMCR_DEVICE));
    proposal.v2.as_mut().unwrap().ueids = UpTo::new();
    let error = receive(&server(), proposal).unwrap_err();
    assert_eq!(error, declined(DeclineCode::NO_UEID, Version::V2));
}

#[test]
fn other_subnet_is_declined_in_version_1() {
    let mut server = version_1(SERVER_GID);
    let subnet = Prefixes::ipv4(Ipv4Prefix::of([10, 1, 2, 3].into(), 16));
    server.v1.as_mut().unwrap().prefixes = Some(subnet);
    let (proposal, _) = propose(&version_1(CLIENT_GID));
    assert_eq!(candidates(&server, proposal.clone()), Err(DeclineCode::PREFIX_MISMATCH));
    server.v1.as_mut().unwrap().prefixes = None;
    assert_eq!(candidates(&server, proposal), Err(DeclineCode::PREFIX_MISMATCH));
}

#[test]
fn what_else_version_1_lacks_is_named() {
    let (proposal, _) = propose(&version_1(CLIENT_GID));
    let without_device = Local { v1: None, ..version_1(SERVER_GID) };
    assert_eq!(candidates(&without_device, proposal.clone()), Err(DeclineCode::NO_SMCD_DEVICE));
    let refused = Local { vlan: Vlan::Refused, ..version_1(SERVER_GID) };
    assert_eq!(candidates(&refused, proposal), Err(DeclineCode::VLAN_REGISTRATION));
    // Version 2 has no need of it.
    let refused = Local { vlan: Vlan::Refused, ..server() };
    assert!(candidates(&refused, propose(&client()).0).is_ok());
    let stranger = Local { ueids: UpTo::first_of(["OTHER".parse().unwrap()]), ..client() };
    assert_eq!(candidates(&refused, propose(&stranger).0), Err(DeclineCode::NO_SMCD_DEVICE));
}

#[test]
fn unknown_vlan_is_declined_in_version_1() {
    let unknown = Local { vlan: Vlan::Unknown, ..version_1(SERVER_GID) };
    let (proposal, _) = propose(&version_1(CLIENT_GID));
    assert_eq!(candidates(&unknown, proposal), Err(DeclineCode::VLAN_UNKNOWN));
    // Version 2 has no need of it.
    let unknown = Local { vlan: Vlan::Unknown, ..server() };
    assert!(candidates(&unknown, propose(&client()).0).is_ok());
}

#[test]
fn version_1_asks_in_its_vlan() {
    let server = Local { vlan: Vlan::Id(VlanId(7)), ..version_1(SERVER_GID) };
    let offered = receive(&server, propose(&version_1(CLIENT_GID)).0).unwrap();
    let mut asked = Vec::new();
    let none = offered.candidates(|index, gid, vlan| {
        asked.push((index, gid, vlan));
        false
    });
    assert_eq!(none, Err(DeclineCode::NO_SMCD_DEVICE));
    assert_eq!(asked, [(0, Gid::from_halves(CLIENT_GID.high(), 0), Some(VlanId(7)))]);
}

#[test]
fn first_failure_is_the_one_reported() {
    // Version 2 and version 1 are both candidates: the first one tried has failed first.
    let (proposal, _) = propose(&both_versions(CLIENT_GID));
    let both = candidates(&both_versions(SERVER_GID), proposal).unwrap();
    let versions: Vec<_> = both.iter().map(|c| c.version()).collect();
    assert_eq!(versions, [Version::V2, Version::V1]);
    assert_eq!(both.decline_code(DeclineCode::NO_FREE_DMB), DeclineCode::NO_FREE_DMB);
    // Version 2 found no device before version 1 had its turn.
    let offered = receive(&both_versions(SERVER_GID), propose(&both_versions(CLIENT_GID)).0).unwrap();
    let v1 = offered.candidates(|_, _, vlan| vlan.is_none()).unwrap();
    assert_eq!(v1.iter().count(), 1);
    assert_eq!(v1.decline_code(DeclineCode::NO_FREE_DMB), DeclineCode::NO_SMCD_V2_DEVICE);
    // Version 2 found no EID, which is not remembered.
    let local = Local { ueids: UpTo::first_of(["OTHER".parse().unwrap()]), ..both_versions(CLIENT_GID) };
    let v1 = candidates(&both_versions(SERVER_GID), propose(&local).0).unwrap();
    assert_eq!(v1.decline_code(DeclineCode::NO_FREE_DMB), DeclineCode::NO_FREE_DMB);
}

#[test]
fn version_2_fails_before_version_1() {
    let mut server = both_versions(SERVER_GID);
    server.v1 = None;
    let offered = receive(&server, propose(&both_versions(CLIENT_GID)).0).unwrap();
    assert_eq!(offered.candidates(|_, _, _| false), Err(DeclineCode::NO_SMCD_V2_DEVICE));
    server.vlan = Vlan::Unknown;
    let offered = receive(&server, propose(&both_versions(CLIENT_GID)).0).unwrap();
    assert_eq!(offered.candidates(|_, _, _| false), Err(DeclineCode::NO_SMCD_V2_DEVICE));
}

#[test]
fn server_may_decline_at_any_time() {
    let expect = ExpectProposal::new(server(), Instant::now());
    assert_eq!(expect.decline(DeclineCode::IPSEC), Decline::new(Version::V1, DeclineCode::IPSEC));
    let offered = receive(&server(), propose(&client()).0).unwrap();
    let decline = offered.decline(DeclineCode::NO_FREE_DMB);
    assert_eq!(decline, Decline::new(Version::V2, DeclineCode::NO_FREE_DMB));
    let (_, expect_accept) = propose(&client());
    let diagnosis = DeclineCode::NO_FREE_DMB;
    let error = expect_accept.on_message(sent(decline)).unwrap_err();
    assert_eq!(error, HandshakeError::PeerDeclined { diagnosis, out_of_sync: false });
    assert_eq!(error.decline(), None);
}

// What the client makes of an Accept

/// What the client says to the server's Accept once `change` has been at it.
fn client_on_accept(change: impl FnOnce(&mut SmcdBody)) -> Result<Accepted, HandshakeError> {
    let (mut body, expect_accept, _) = up_to_accept(&client(), &server(), true);
    change(&mut body);
    expect_accept.on_message(sent(Accept(body)))
}

fn v2(body: &mut SmcdBody) -> &mut SmcdBodyV2 {
    body.v2.as_mut().unwrap()
}

fn extension(body: &mut SmcdBody) -> &mut FirstContact {
    v2(body).extension.as_mut().unwrap()
}

#[test]
fn accept_of_a_fabric_that_was_not_proposed() {
    let error = client_on_accept(|body| v2(body).chid = VIRTIO).unwrap_err();
    assert_eq!(error, Violation::ChidNotProposed(VIRTIO).into());
    assert!(!error.falls_back());
}

#[test]
fn accept_of_an_eid_that_was_not_proposed() {
    let error = client_on_accept(|body| v2(body).eid = Eid::ZERO).unwrap_err();
    assert_eq!(error, Violation::EidNotProposed(Eid::ZERO).into());
}

#[test]
fn accept_of_a_dmb_element_that_is_too_large() {
    let error = client_on_accept(|body| body.dmbe_size = DmbeSize::from_code(7)).unwrap_err();
    assert_eq!(error, Violation::DmbeSize(7).into());
}

#[test]
fn accept_of_first_contact_without_its_extension() {
    let error = client_on_accept(|body| v2(body).extension = None).unwrap_err();
    assert_eq!(error, Violation::FirstContactExtension.into());
    let error = client_on_accept(|body| extension(body).v2x = None).unwrap_err();
    assert_eq!(error, Violation::FirstContactExtension.into());
}

#[test]
fn accept_of_a_flavour_that_was_not_proposed() {
    // Version 1, where version 2 alone was proposed.
    let error = client_on_accept(|body| body.v2 = None).unwrap_err();
    assert_eq!(error, declined(DeclineCode::MODE_UNSUPPORTED, Version::V1));
    // Version 2, where version 1 alone was proposed.
    let (_, expect_accept) = propose(&version_1(CLIENT_GID));
    let (body, ..) = up_to_accept(&client(), &server(), true);
    let error = expect_accept.on_message(sent(Accept(body))).unwrap_err();
    assert_eq!(error, declined(DeclineCode::MODE_UNSUPPORTED, Version::V2));
    // A version that there is not.
    let error = client_on_accept(|body| v2(body).version = Version::new(3).unwrap()).unwrap_err();
    assert_eq!(error, declined(DeclineCode::MODE_UNSUPPORTED, Version::V2));
    // SMC-R.
    let (body, expect_accept, _) = up_to_accept(&client(), &server(), true);
    let mut bytes = Message::from(Accept(body)).to_bytes();
    bytes[7] &= !3;
    let error = expect_accept.on_message(Message::parse(&bytes).unwrap()).unwrap_err();
    assert_eq!(error, declined(DeclineCode::MODE_UNSUPPORTED, Version::V2));
}

#[test]
fn release_of_the_server_is_adopted() {
    let accepted = client_on_accept(|body| extension(body).release = Release::from_nibble(2)).unwrap();
    let (Confirm(mut body), _) = accepted.confirm(CLIENT_DMB, CLIENT_LINK);
    assert_eq!(extension(&mut body).release.nibble(), 2);
}

#[test]
fn features_in_common_are_confirmed() {
    for (theirs, common) in [(0xffff, 1), (0xfffe, 0)] {
        let accepted =
            client_on_accept(|body| extension(body).v2x.as_mut().unwrap().feature_mask = theirs).unwrap();
        assert_eq!(accepted.terms().peer().unwrap().features, common);
        let (Confirm(mut body), _) = accepted.confirm(CLIENT_DMB, CLIENT_LINK);
        assert_eq!(extension(&mut body).v2x.unwrap().feature_mask, common);
    }
}

#[test]
fn hostname_that_is_not_ascii_is_dropped() {
    let name = smcd::clc::wire::Hostname::from_bytes([0xe9; 32]);
    let accepted = client_on_accept(|body| extension(body).hostname = name).unwrap();
    assert_eq!(accepted.terms().peer().unwrap().hostname, None);
}

#[test]
fn client_may_decline_an_accept() {
    let codes = [DeclineCode::SYNC, DeclineCode::MEMORY, DeclineCode::NO_FREE_DMB, DeclineCode::INTERNAL];
    for diagnosis in codes {
        let (body, expect_accept, expect_confirm) = up_to_accept(&client(), &server(), false);
        let decline = expect_accept.on_message(sent(Accept(body))).unwrap().decline(diagnosis);
        let out_of_sync = diagnosis == DeclineCode::SYNC;
        assert_eq!(Message::from(decline).to_bytes()[7], if out_of_sync { 0x28 } else { 0x20 });
        let error = expect_confirm.on_message(sent(decline)).unwrap_err();
        assert_eq!(error, HandshakeError::PeerDeclined { diagnosis, out_of_sync });
    }
}

// What the server makes of a Confirm

/// What the server says to the client's Confirm once `change` has been at it.
fn server_on_confirm(change: impl FnOnce(&mut SmcdBody)) -> Result<Agreed, HandshakeError> {
    let (mut body, _, expect_confirm) = up_to_confirm(&client(), &server(), true);
    change(&mut body);
    expect_confirm.on_message(sent(Confirm(body)))
}

#[test]
fn confirm_of_another_release_is_declined() {
    let error = server_on_confirm(|body| extension(body).release = Release::from_nibble(2)).unwrap_err();
    assert_eq!(error, declined(DeclineCode(0x0303_0009), Version::V2));
    let error = server_on_confirm(|body| extension(body).release = Release::R0).unwrap_err();
    assert_eq!(error, declined(DeclineCode::RELEASE, Version::V2));
}

#[test]
fn confirm_of_another_device() {
    let other = Gid::from_halves(CLIENT_GID.high(), 7);
    let device =
        |got, got_chid| Violation::Device { accepted: CLIENT_GID, accepted_chid: LOOPBACK, got, got_chid };
    let error = server_on_confirm(|body| body.gid = other).unwrap_err();
    assert_eq!(error, device(other, LOOPBACK).into());
    let error = server_on_confirm(|body| v2(body).chid = VIRTIO).unwrap_err();
    assert_eq!(error, device(CLIENT_GID, VIRTIO).into());
}

#[test]
fn confirm_of_another_eid() {
    let accepted = client().ueids[0].eid();
    let error = server_on_confirm(|body| v2(body).eid = Eid::ZERO).unwrap_err();
    assert_eq!(error, Violation::Eid { accepted, got: Eid::ZERO }.into());
}

#[test]
fn confirm_of_another_version() {
    let error = server_on_confirm(|body| body.v2 = None).unwrap_err();
    assert_eq!(error, Violation::Version { accepted: Version::V2, got: Version::V1 }.into());
    let got = Version::new(3).unwrap();
    let error = server_on_confirm(|body| v2(body).version = got).unwrap_err();
    assert_eq!(error, Violation::Version { accepted: Version::V2, got }.into());
}

#[test]
fn confirm_of_a_dmb_element_that_is_too_large() {
    let error = server_on_confirm(|body| body.dmbe_size = DmbeSize::from_code(15)).unwrap_err();
    assert_eq!(error, Violation::DmbeSize(15).into());
}

#[test]
fn confirm_of_first_contact_without_its_extension() {
    let error = server_on_confirm(|body| v2(body).extension = None).unwrap_err();
    assert_eq!(error, Violation::FirstContactExtension.into());
}

// Messages out of turn, and time

#[test]
fn message_out_of_turn_breaks_the_protocol() {
    let wrong = |expected, got| HandshakeError::Protocol(Violation::Message { expected, got });
    let all = || {
        let (proposal, expect_accept) = propose(&client());
        let (accept, expect_confirm) = accept(receive(&server(), proposal.clone()).unwrap(), true);
        let (confirm, _) =
            propose(&client()).1.on_message(sent(accept)).unwrap().confirm(CLIENT_DMB, CLIENT_LINK);
        let expect_proposal = ExpectProposal::new(server(), Instant::now());
        (expect_proposal, expect_accept, expect_confirm, [proposal.into(), accept.into(), confirm.into()])
    };
    let messages: [Message; 3] = all().3;
    for message in messages {
        let (expect_proposal, expect_accept, expect_confirm, _) = all();
        let got = message.msg_type();
        if got != MsgType::Proposal {
            let error = expect_proposal.on_message(message.clone()).unwrap_err();
            assert_eq!(error, wrong(MsgType::Proposal, got));
        }
        if got != MsgType::Accept {
            let error = expect_accept.on_message(message.clone()).unwrap_err();
            assert_eq!(error, wrong(MsgType::Accept, got));
        }
        if got != MsgType::Confirm {
            let error = expect_confirm.on_message(message).unwrap_err();
            assert_eq!(error, wrong(MsgType::Confirm, got));
        }
    }
}

#[test]
fn every_wait_ends() {
    let start = Instant::now();
    let deadline = start + CLC_WAIT;
    let early = deadline - Duration::from_nanos(1);
    let timed_out = |expected| Err(HandshakeError::TimedOut { expected, timeout: CLC_WAIT });

    let (proposal, expect_accept) = client::propose(&client(), start).unwrap();
    assert_eq!(expect_accept.deadline(), deadline);
    assert_eq!(expect_accept.handle_timeout(early), Ok(()));
    assert_eq!(expect_accept.handle_timeout(deadline), timed_out(MsgType::Accept));

    let expect_proposal = ExpectProposal::new(server(), start);
    assert_eq!(expect_proposal.deadline(), deadline);
    assert_eq!(expect_proposal.handle_timeout(early), Ok(()));
    assert_eq!(expect_proposal.handle_timeout(deadline), timed_out(MsgType::Proposal));

    let offered = expect_proposal.on_message(sent(proposal)).unwrap();
    let first = *offered.candidates(|_, _, _| true).unwrap().iter().next().unwrap();
    let (_, expect_confirm) = offered.accept(&first, SERVER_DMB, true, SERVER_LINK, start);
    assert_eq!(expect_confirm.deadline(), deadline);
    assert_eq!(expect_confirm.handle_timeout(early), Ok(()));
    assert_eq!(expect_confirm.handle_timeout(deadline), timed_out(MsgType::Confirm));
}

#[test]
fn any_timeout_will_do() {
    let local = Local { timeout: Duration::MAX, ..client() };
    let (_, expect) = propose(&local);
    assert_eq!(expect.handle_timeout(Instant::now() + CLC_WAIT), Ok(()));
}
