//! Declines over whole stacks: each code from a peer at each step, and those that this library comes to by itself.

use std::{io, time::Instant};

use smcd::{
    FallbackReason, SmcConfig, SmcStackStream, Stack,
    clc::{
        DeclineCode,
        handshake::{
            Local, LocalDevice, OwnDmb,
            client::{self, ExpectAccept},
            server::ExpectProposal,
        },
        wire::{
            Accept, Confirm, Decline, DmbeSize, Flavours, LinkId, Message, Proposal, Release, UpTo, Version,
        },
    },
    dibs::{Chid, DmbToken, Gid, loopback::DmbLimits},
    tcp_fallback::stack::{StackStream, SynOption, memory::Direct},
};
use tokio::io::AsyncWriteExt;

use crate::{
    harness::{Net, is_tcp, reason, simulated, talk, v4},
    obligation::message,
    settings::{config, in_band, limited},
};

const DMB: OwnDmb = OwnDmb { token: DmbToken(7), size: DmbeSize::from_code(2), index: 0 };

/// What is done to a message that is as it should be.
type Change<T> = fn(&mut T);

async fn send(tcp: &mut StackStream, message: impl Into<Message>) {
    tcp.write_all(&message.into().to_bytes()).await.unwrap();
}

/// A host that plays by hand, with a device that is not there.
fn by_hand() -> Local {
    let ueid = "SMCD.USERSPACE".parse().unwrap();
    let device = LocalDevice { gid: Gid::from_halves(5, 6), chid: Chid(0xffff) };
    Local { ueids: UpTo::first_of([ueid]), ..Local::new(vec![device]) }
}

/// A client of the library meets a server played by hand; both have the stream in the end.
async fn client_meets(
    client: &SmcConfig,
    server: impl AsyncFnOnce(&mut StackStream),
) -> (FallbackReason, SmcStackStream, StackStream) {
    let net = Net::new(Direct);
    let listener = net.listen();
    let server = async {
        let mut tcp = listener.accept().await.unwrap();
        server(&mut tcp).await;
        tcp
    };
    let (client, tcp) = tokio::join!(SmcStackStream::connect(&net.client, v4(2), client), server);
    let client = client.unwrap();
    (reason(&client).unwrap(), client, tcp)
}

/// A server of the library meets a client played by hand.
async fn server_meets(
    server: &SmcConfig,
    client: impl AsyncFnOnce(&mut StackStream),
) -> (FallbackReason, SmcStackStream, StackStream) {
    let net = Net::new(Direct);
    let listener = net.listen();
    let accepted = async {
        SmcStackStream::accept(listener.accept().await.unwrap(), server)
            .await
            .map_err(io::Error::from)
            .unwrap()
    };
    let client = async {
        let mut tcp = net.client.connect(v4(2), SynOption::Offer).await.unwrap();
        client(&mut tcp).await;
        tcp
    };
    let (server, tcp) = tokio::join!(accepted, client);
    (reason(&server).unwrap(), server, tcp)
}

/// The next bytes of both belong to the application.
async fn goes_on((_, ours, theirs): (FallbackReason, SmcStackStream, StackStream)) {
    tokio::join!(talk(ours, 1, 2, 20_000), talk(theirs, 2, 1, 20_000));
}

/// What a server played by hand answers to a Proposal, changed.
fn accept_of(proposal: Message, change: impl FnOnce(&mut Accept), first_contact: bool) -> Accept {
    let Message::Proposal(inside) = &proposal else { panic!("{proposal:?}") };
    let extension = inside.v2.as_ref().and_then(|v2| v2.smcd.as_ref()).unwrap();
    let device = LocalDevice { chid: extension.devices()[0].1, ..by_hand().devices[0] };
    let server = Local { devices: vec![device], ..by_hand() };
    let offered = ExpectProposal::new(server, Instant::now()).on_message(proposal).unwrap();
    let candidates = offered.candidates(|_, _, _| true).unwrap();
    let first = *candidates.iter().next().unwrap();
    let (mut accept, _) = offered.accept(&first, DMB, first_contact, LinkId::default(), Instant::now());
    change(&mut accept);
    accept
}

/// The code of the Decline that comes next.
async fn declined(tcp: &mut StackStream) -> DeclineCode {
    match message(tcp).await {
        Message::Decline(decline) => decline.diagnosis,
        other => panic!("{other:?}"),
    }
}

/// The Proposal of a client played by hand whose device is that of the library's client.
fn proposal_of(config: &SmcConfig) -> (Proposal, ExpectAccept) {
    let device = &config.stack.as_ref().unwrap().devices()[0];
    let device = LocalDevice { gid: device.gid(), chid: device.fabric_id() };
    client::propose(&Local { devices: vec![device], ..by_hand() }, Instant::now()).unwrap()
}

#[test]
fn every_code_from_a_server() {
    for &code in DeclineCode::ALL {
        simulated(async {
            let client_config = config();
            let met = client_meets(&client_config, async |tcp| {
                assert!(matches!(message(tcp).await, Message::Proposal(_)));
                send(tcp, Decline::new(Version::V2, code)).await;
            });
            let met = met.await;
            assert_eq!(met.0, FallbackReason::PeerDeclined(code));
            goes_on(met).await;
        });
    }
}

#[test]
fn every_code_from_a_client_in_place_of_its_proposal() {
    for &code in DeclineCode::ALL {
        simulated(async {
            let server_config = config();
            let met = server_meets(&server_config, async |tcp| {
                send(tcp, Decline::new(Version::V1, code)).await;
            });
            let met = met.await;
            assert_eq!(met.0, FallbackReason::PeerDeclined(code));
            goes_on(met).await;
        });
    }
}

#[test]
fn every_code_from_a_client_in_place_of_its_confirm() {
    for &code in DeclineCode::ALL {
        simulated(async {
            let (client_config, server_config) = (config(), config());
            let met = server_meets(&server_config, async |tcp| {
                send(tcp, proposal_of(&client_config).0).await;
                assert!(matches!(message(tcp).await, Message::Accept(_)));
                send(tcp, Decline::new(Version::V2, code)).await;
            });
            let met = met.await;
            assert_eq!(met.0, FallbackReason::PeerDeclined(code));
            goes_on(met).await;
        });
    }
}

/// Both ends are of the library. The first is the side that declines.
#[test]
fn ends_that_do_not_fit_decline() {
    let no_device = || in_band().stack(Stack::new(Vec::new()));
    let no_dmb = || limited(DmbLimits { dmbs: 0, ..DmbLimits::default() });
    let no_memory = || limited(DmbLimits { bytes: 0, ..DmbLimits::default() });
    let other = || config().ueids(["OTHER".parse().unwrap()]);
    let client_declines = [(no_dmb(), config(), DeclineCode::NO_FREE_DMB)];
    let server_declines = [
        (config().ueids([]), config(), DeclineCode::NO_UEID),
        (other(), config(), DeclineCode::NO_SMCD_DEVICE),
        (config(), no_device(), DeclineCode::NO_ISM_V2),
        (config(), no_dmb(), DeclineCode::NO_FREE_DMB),
        (config(), no_memory(), DeclineCode::MEMORY),
    ];
    for (client, server, code) in client_declines {
        simulated(async {
            let pair = Net::new(Direct).connect(&client, &server).await;
            is_tcp(pair, FallbackReason::Declined(code), FallbackReason::PeerDeclined(code)).await;
        });
    }
    for (client, server, code) in server_declines {
        simulated(async {
            let pair = Net::new(Direct).connect(&client, &server).await;
            is_tcp(pair, FallbackReason::PeerDeclined(code), FallbackReason::Declined(code)).await;
        });
    }
}

#[test]
fn accept_that_the_client_cannot_take_is_declined() {
    let cases: [(DeclineCode, bool, Change<Accept>); 3] = [
        (DeclineCode::SYNC, false, |_| {}),
        (DeclineCode::MODE_UNSUPPORTED, true, |accept| accept.0.v2 = None),
        // The DMB of a device that is not there.
        (DeclineCode::MEMORY, true, |_| {}),
    ];
    for (code, first_contact, change) in cases {
        simulated(async {
            let client_config = config();
            let met = client_meets(&client_config, async |tcp| {
                let accept = accept_of(message(tcp).await, change, first_contact);
                send(tcp, accept).await;
                assert_eq!(declined(tcp).await, code);
            });
            let met = met.await;
            assert_eq!(met.0, FallbackReason::Declined(code));
            goes_on(met).await;
        });
    }
}

#[test]
fn proposal_that_the_server_cannot_take_is_declined() {
    let cases: [(DeclineCode, Change<Proposal>); 5] = [
        (DeclineCode::PEER_NO_SMC, |proposal| proposal.v2 = None),
        (DeclineCode::NO_SMCD_V2_EXTENSION, |proposal| proposal.v2.as_mut().unwrap().smcd = None),
        (DeclineCode::NO_SMCR_DEVICE, |proposal| {
            let v2 = proposal.v2.as_mut().unwrap();
            (v2.flavours, v2.smcd) = (Flavours::R, None);
        }),
        (DeclineCode::NO_UEID, |proposal| proposal.v2.as_mut().unwrap().ueids = UpTo::new()),
        (DeclineCode::NO_SMCD_V2_DEVICE, |proposal| {
            let extension = proposal.v2.as_mut().unwrap().smcd.as_mut().unwrap();
            extension.entries = UpTo::new();
            extension.push_device(Gid::from_halves(1, 2), Chid(0xffff)).unwrap();
        }),
    ];
    for (code, change) in cases {
        simulated(async {
            let (client_config, server_config) = (config(), config());
            let met = server_meets(&server_config, async |tcp| {
                let (mut proposal, _) = proposal_of(&client_config);
                change(&mut proposal);
                send(tcp, proposal).await;
                assert_eq!(declined(tcp).await, code);
            });
            let met = met.await;
            assert_eq!(met.0, FallbackReason::Declined(code));
            goes_on(met).await;
        });
    }
}

#[test]
fn confirm_in_another_release_is_declined() {
    simulated(async {
        let (client_config, server_config) = (config(), config());
        let met = server_meets(&server_config, async |tcp| {
            let (proposal, expect) = proposal_of(&client_config);
            send(tcp, proposal).await;
            let accepted = expect.on_message(message(tcp).await).unwrap();
            let (Confirm(mut body), _) = accepted.confirm(DMB, LinkId::default());
            let extension = body.v2.as_mut().unwrap().extension.as_mut().unwrap();
            (extension.release, extension.v2x) = (Release::R0, None);
            send(tcp, Confirm(body)).await;
            assert_eq!(declined(tcp).await, DeclineCode::RELEASE);
        });
        let met = met.await;
        assert_eq!(met.0, FallbackReason::Declined(DeclineCode::RELEASE));
        goes_on(met).await;
    });
}
