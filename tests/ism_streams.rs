//! Streams over ISM functions in software, by both versions of SMC-D.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    sync::Arc,
    time::Duration,
};

use common::{
    in_time, pair_with, pattern,
    soft_ism::{self, both_over_ism, fabric, message, open, over_ism, pnetid, relay, speak_v2},
};
use rustix::process::{Resource, Rlimit, setrlimit};
use smcd::{
    FallbackReason, PnetInterface, SmcConfig, SmcListener, SmcStream, Stack, Transport,
    clc::{
        DeclineCode,
        wire::{Decline, Message, Proposal, SmcdBody, Version},
    },
    dibs::{
        Chid, Device, Event, PnetId, VlanId,
        ism::soft::{End, Fault, SoftIsm, SoftIsmSettings},
        loopback::{DmbLimits, Loopback},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Two ends on functions 0 and 1, with what is known of these.
async fn pair(version: u8) -> (SoftIsm, SmcStream, SmcStream) {
    let fabric = fabric(2);
    let [client, server] = [0, 1].map(|function| over_ism(open(&fabric, function), version));
    let (client, server) = pair_with(&client, &server).await;
    assert!(client.transport().is_smcd() && server.transport().is_smcd(), "{}", client.transport());
    (fabric, client, server)
}

fn reasons(pair: &(SmcStream, SmcStream)) -> [Option<FallbackReason>; 2] {
    [&pair.0, &pair.1].map(|stream| stream.transport().fallback_reason())
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{what}");
}

/// What a client proposes.
async fn proposal(config: SmcConfig) -> Proposal {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let client = tokio::spawn(async move { SmcStream::connect_with(addr, &config).await });
    let (mut tcp, _) = listener.accept().await.unwrap();
    let (message, _) = message(&mut tcp).await;
    client.abort();
    let Message::Proposal(proposal) = message else { panic!("{message:?}") };
    proposal
}

#[tokio::test]
async fn what_is_proposed() {
    for version in [1, 2] {
        let fabric = fabric(1);
        let gid = fabric.gid(0).unwrap();
        let proposal = proposal(over_ism(open(&fabric, 0), version)).await;
        let area = proposal.smcd.unwrap();
        assert_eq!((area.gid, area.chid), (gid.high(), Chid(0x07c0)));
        let v1 = proposal.v1.unwrap();
        assert!(v1.flavours.has_d());
        assert_eq!((v1.prefixes.ipv4.addr.octets(), v1.prefixes.ipv4.len), ([127, 0, 0, 0], 8));
        let v2 = proposal.v2.unwrap();
        assert_eq!(v2.ueids.is_empty(), version == 1);
        // The device of version 1 is not listed again.
        assert_eq!(v2.smcd.unwrap().devices().len(), 0);
    }
}

#[tokio::test]
async fn what_is_agreed() {
    for version in [1, 2] {
        let [client, server] = both_over_ism(version);
        let listener = SmcListener::bind_with("127.0.0.1:0", server).await.unwrap();
        let (addr, relaying) = relay(listener.local_addr().unwrap()).await;
        let (client, server) =
            in_time(async { tokio::join!(SmcStream::connect_with(addr, &client), listener.accept()) }).await;
        assert!(client.unwrap().transport().is_smcd() && server.unwrap().0.transport().is_smcd());
        assert_eq!(speak_v2(&relaying.await.unwrap()), [version == 2; 2]);
    }
}

/// The VLANs of all that is asked of functions: version 2 has its own.
#[tokio::test]
async fn version_2_over_functions_that_are_not_to_be_asked_in_no_vlan() {
    let mut settings = soft_ism::settings(2);
    settings.needs_vlan = true;
    let fabric = SoftIsm::new(&settings).unwrap();
    // Version 1 would be in none.
    let [client, server] = [0, 1].map(|function| over_ism(open(&fabric, function), 2).interfaces([]));
    for _ in 0..2 {
        let (mut client, mut server) = pair_with(&client, &server).await;
        assert!(client.transport().is_smcd() && server.transport().is_smcd(), "{}", client.transport());
        client.write_all(b"hello").await.unwrap();
        in_time(server.read_exact(&mut [0; 5])).await.unwrap();
    }
    assert_eq!([0, 1].map(|function| fabric.counters(function).refused_commands.len()), [0, 0]);
    drop((client, server));
    until("not closed", || (0..2).all(|function| !fabric.is_open(function))).await;
    assert_eq!(fabric.counters(0).refused_commands, BTreeMap::new());
}

/// The Accept of a connection between two that stay in their settings; the streams end here.
async fn accepted(client: &SmcConfig, server: &SmcConfig) -> SmcdBody {
    let listener = SmcListener::bind_with("127.0.0.1:0", server.clone()).await.unwrap();
    let (addr, relaying) = relay(listener.local_addr().unwrap()).await;
    let streams =
        in_time(async { tokio::join!(SmcStream::connect_with(addr, client), listener.accept()) }).await;
    assert!(streams.0.unwrap().transport().is_smcd() && streams.1.unwrap().0.transport().is_smcd());
    let [_, Message::Accept(accept), _] = relaying.await.unwrap() else { panic!("no Accept") };
    accept.0
}

#[tokio::test]
async fn link_groups_of_version_1_have_vlans() {
    let fabric = fabric(2);
    let devices = [0, 1].map(|function| Arc::new(open(&fabric, function)) as Arc<dyn Device>);
    let stacks = devices.clone().map(|device| Stack::new(vec![device]));
    let config = |at: usize, vlan: u16, version: u8| {
        let lo = PnetInterface::new("lo", pnetid()).vlan(VlanId(vlan));
        let config = common::in_band().stack(stacks[at].clone()).interfaces([lo]);
        if version == 1 { config.ueids([]) } else { config }
    };
    let mut first_contacts = Vec::new();
    for (vlan, version) in [(5, 1), (5, 1), (6, 1), (6, 2), (5, 1), (6, 1), (5, 2)] {
        let accept = accepted(&config(0, vlan, version), &config(1, vlan, version)).await;
        assert_eq!(accept.v2.is_some(), version == 2);
        first_contacts.push(accept.first_contact);
    }
    assert_eq!(first_contacts, [true, false, true, true, false, false, false]);
    let [client, server] = stacks;
    drop((client, server));
    // With the groups of one stack the peer hears which they were: the VLAN is in the bytes 4 and 5.
    let mut ended = BTreeSet::new();
    until("not told", || {
        while let Some(event) = devices[0].take_event() {
            let Event::Software { code: 0x80, data, .. } = event else { panic!("{event:?}") };
            let [_, _, _, _, v0, v1, _, _] = data.to_ne_bytes();
            ended.insert(u16::from_ne_bytes([v0, v1]));
        }
        ended.len() == 3
    })
    .await;
    assert_eq!(ended, BTreeSet::from([0, 5, 6]));
}

#[tokio::test]
async fn gids_have_64_bits() {
    for version in [1, 2] {
        let (fabric, client, _server) = pair(version).await;
        let Transport::Smcd { chid, gid, peer_gid, .. } = client.transport() else { panic!() };
        assert_eq!((chid, Some(gid), Some(peer_gid)), (Chid(0x07c0), fabric.gid(0), fabric.gid(1)));
        assert_eq!((gid.low(), peer_gid.low()), (0, 0));
    }
}

#[tokio::test]
async fn half_close_then_close() {
    for version in [1, 2] {
        let (_fabric, mut client, mut server) = pair(version).await;
        client.write_all(b"request").await.unwrap();
        client.shutdown().await.unwrap();
        let mut request = String::new();
        in_time(server.read_to_string(&mut request)).await.unwrap();
        assert_eq!(request, "request");
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = String::new();
        in_time(client.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer, "answer");
    }
}

#[tokio::test]
async fn an_abort_is_a_reset() {
    for version in [1, 2] {
        let (_fabric, mut client, mut server) = pair(version).await;
        client.write_all(b"unread").await.unwrap();
        server.write_all(b"last words").await.unwrap();
        drop(server);
        let mut got = Vec::new();
        let error = in_time(client.read_to_end(&mut got)).await.unwrap_err();
        assert_eq!((got.as_slice(), error.kind()), (&b"last words"[..], ErrorKind::ConnectionReset));
    }
}

/// Store blocks that a function has carried out for these writes, and its signals.
async fn moves(writes: &[&[std::io::IoSlice<'_>]]) -> (BTreeMap<usize, u64>, u64) {
    let (fabric, mut client, server) = pair(2).await;
    fabric.take_counters(0);
    for parts in writes {
        let all: usize = parts.iter().map(|part| part.len()).sum();
        assert_eq!(client.write_vectored(parts).await.unwrap(), all);
    }
    let counters = fabric.take_counters(0);
    assert!(counters.commands.is_empty(), "data needs no command");
    drop(server);
    (counters.stores, counters.signals)
}

#[tokio::test]
async fn as_few_store_blocks_as_can_be() {
    let data = pattern(0, 65536);
    let slice = |len: usize| std::io::IoSlice::new(&data[..len]);
    // A message of 100 bytes, and the CDC message of 32 that makes it known.
    assert_eq!(moves(&[&[slice(100)]]).await, (BTreeMap::from([(100, 1), (32, 1)]), 1));
    // Three of them: the ring begins behind the 32 bytes of the CDC slot, so they do not yet cross a page.
    let three = [slice(100)];
    assert_eq!(moves(&[&three, &three, &three]).await, (BTreeMap::from([(100, 3), (32, 3)]), 3));
    // Head and body of a message go as one.
    assert_eq!(
        moves(&[&[slice(100), slice(0), slice(1000)]]).await,
        (BTreeMap::from([(1100, 1), (32, 1)]), 1)
    );
    // 64 KiB: what is left of the first page, 15 whole ones, and the rest; one signal for all.
    let expected = BTreeMap::from([(4064, 1), (4096, 15), (32, 2)]);
    assert_eq!(moves(&[&[slice(65536)]]).await, (expected, 1));
}

#[tokio::test]
async fn one_signal_for_each_cdc_message() {
    let (fabric, mut client, mut server) = pair(2).await;
    (0..2).for_each(|function| drop(fabric.take_counters(function)));
    let data = pattern(0, 1_000_000);
    let send = async {
        client.write_all(&data).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (_, read) = in_time(async { tokio::join!(send, server.read_to_end(&mut got)) }).await;
    assert!(read.unwrap() == data.len() && got == data);
    for function in 0..2 {
        let counters = fabric.counters(function);
        // CDC messages, and now and then as many bytes of data.
        let short = counters.stores.get(&32).copied().unwrap_or(0);
        assert!(counters.signals > 0 && counters.signals <= short, "{counters:?}");
    }
    assert_eq!(fabric.counters(0).stored_bytes(), data.len() as u64 + 32 * fabric.counters(0).signals);
    assert_eq!(fabric.counters(1).stored_bytes(), 32 * fabric.counters(1).signals);
}

#[tokio::test]
async fn functions_that_end_reset_their_connections() {
    for end in [End::Failure, End::Disabled, End::Lost] {
        for who in 0..2 {
            let (fabric, mut client, mut server) = pair(2).await;
            client.write_all(b"before").await.unwrap();
            fabric.inject(who, Fault::End(end));
            let mut got = Vec::new();
            // Whose function is gone hears of it at once; the other by its own function, or by the TCP connection.
            let (mine, other) =
                if who == 0 { (&mut client, &mut server) } else { (&mut server, &mut client) };
            let error = in_time(mine.read_to_end(&mut got)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{end:?}");
            assert!(in_time(mine.write_all(&[0; 1 << 21])).await.is_err());
            if end != End::Lost {
                let mut got = Vec::new();
                in_time(other.read_to_end(&mut got)).await.unwrap_err();
            }
        }
    }
}

#[tokio::test]
async fn a_function_that_fails_amid_a_stream() {
    let (fabric, mut client, mut server) = pair(2).await;
    fabric.inject(0, Fault::EndAfter { stores: 20, end: End::Failure });
    let sent = async { while client.write_all(&[7; 50_000]).await.is_ok() {} };
    let mut got = Vec::new();
    let ((), read) = in_time(async { tokio::join!(sent, server.read_to_end(&mut got)) }).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(got.iter().all(|byte| *byte == 7), "what was published is what was written");
}

#[tokio::test]
async fn refused_commands_are_declines() {
    let no_memory = FallbackReason::Declined(DeclineCode::MEMORY);
    for (command, of, expected) in [
        // The server's register, the client's, and the server's query.
        (0x0a, 1, [FallbackReason::PeerDeclined(DeclineCode::MEMORY), no_memory]),
        (0x0a, 0, [no_memory, FallbackReason::PeerDeclined(DeclineCode::MEMORY)]),
    ] {
        let fabric = fabric(2);
        let [client, server] = [0, 1].map(|function| over_ism(open(&fabric, function), 2));
        let refuse =
            |times| (0..times).for_each(|_| fabric.inject(of, Fault::Answer { command, code: 0x99 }));
        // One for each size that is tried; by the server for both versions.
        let times = [7, 14][of];
        refuse(times);
        let streams = pair_with(&client, &server).await;
        assert_eq!(reasons(&streams), expected.map(Some), "{command:#x} of {of}");
        assert_eq!(fabric.counters(of).refused_commands, BTreeMap::from([(command, times)]));
        // A smaller one is better than none.
        refuse(2);
        let (client, server) = pair_with(&client, &server).await;
        let Transport::Smcd { receive_buffer, .. } = [&client, &server][of].transport() else { panic!() };
        assert_eq!(receive_buffer, (1 << 18) - 32);
        let (mut client, mut server) = streams;
        client.write_all(b"by TCP").await.unwrap();
        let mut got = [0; 6];
        in_time(server.read_exact(&mut got)).await.unwrap();
    }
    let fabric = fabric(2);
    let [client, server] = [0, 1].map(|function| over_ism(open(&fabric, function), 2));
    // For versions 2 and 1.
    [0x09, 0x09].into_iter().for_each(|command| fabric.inject(1, Fault::Answer { command, code: 0x99 }));
    let streams = pair_with(&client, &server).await;
    let code = DeclineCode::NO_SMCD_V2_DEVICE;
    let expected = [FallbackReason::PeerDeclined(code), FallbackReason::Declined(code)];
    assert_eq!(reasons(&streams), expected.map(Some));
}

#[tokio::test]
async fn as_many_connections_as_there_are_buffers() {
    setrlimit(Resource::Nofile, Rlimit { current: Some(16384), maximum: Some(16384) }).unwrap();
    for version in [1, 2] {
        let configs = both_over_ism(version).map(|config| config.receive_buffer(16384));
        let mut all = Vec::new();
        let refused = loop {
            let streams = pair_with(&configs[0], &configs[1]).await;
            if !streams.0.transport().is_smcd() {
                break streams;
            }
            all.push(streams);
        };
        assert_eq!(all.len(), 1888);
        let code = DeclineCode(0x030d_0000);
        let expected = [FallbackReason::PeerDeclined(code), FallbackReason::Declined(code)];
        assert_eq!(reasons(&refused), expected.map(Some));
        all.push(refused);
        for (number, (client, server)) in all.iter_mut().enumerate() {
            client.write_u64(number as u64).await.unwrap();
            assert_eq!(in_time(server.read_u64()).await.unwrap(), number as u64);
            server.write_u64(!(number as u64)).await.unwrap();
            assert_eq!(in_time(client.read_u64()).await.unwrap(), !(number as u64));
        }
        // With one gone there is room for another.
        drop(all.swap_remove(7));
        let again = pair_with(&configs[0], &configs[1]).await;
        assert!(again.0.transport().is_smcd(), "{}", again.0.transport());
    }
}

#[tokio::test]
async fn interfaces_choose_their_devices() {
    let fabric = fabric(2);
    let other: PnetId = "NET2".parse().unwrap();
    let devices = [0, 1].map(|function| Arc::new(open(&fabric, function)) as Arc<dyn Device>);
    let with = |at: usize, interface: PnetInterface| {
        common::in_band().stack(Stack::new(vec![devices[at].clone()])).interfaces([interface])
    };
    let lo = |pnetid| PnetInterface::new("lo", pnetid);
    for (wrong, expected) in [
        (PnetInterface::new("no-such-interface", pnetid()), FallbackReason::NoPnetId),
        (lo(other), FallbackReason::NoDeviceOfPnetId),
    ] {
        let of_client = pair_with(&with(0, wrong.clone()), &with(1, lo(pnetid()))).await;
        let declined = FallbackReason::PeerDeclined(DeclineCode::NO_DEVICE);
        assert_eq!(reasons(&of_client), [Some(expected), Some(declined)]);
        let of_server = pair_with(&with(0, lo(pnetid())), &with(1, wrong.clone())).await;
        let of_server_v1 = pair_with(&with(0, lo(pnetid())).ueids([]), &with(1, wrong).ueids([])).await;
        let declined = FallbackReason::PeerDeclined(DeclineCode::NO_SMCD_DEVICE);
        for streams in [of_server, of_server_v1] {
            assert_eq!(reasons(&streams), [Some(declined), Some(expected)]);
        }
    }
    let streams = pair_with(&with(0, lo(pnetid())), &with(1, lo(pnetid()))).await;
    assert!(streams.0.transport().is_smcd());
}

#[tokio::test]
async fn vlans_of_version_1() {
    let fabric = fabric(3);
    let lo = |vlan: Option<u16>| {
        let interface = PnetInterface::new("lo", pnetid());
        [vlan.map(VlanId).map_or(interface.clone(), |vlan| interface.vlan(vlan))]
    };
    let devices = [0, 1].map(|function| Arc::new(open(&fabric, function)) as Arc<dyn Device>);
    let with = |at: usize, vlan| {
        let stack = Stack::new(vec![devices[at].clone()]);
        common::in_band().stack(stack).ueids([]).interfaces(lo(vlan))
    };
    let streams = pair_with(&with(0, Some(5)), &with(1, Some(5))).await;
    assert!(streams.0.transport().is_smcd(), "{}", streams.0.transport());
    // The server is in a VLAN that the client's function is not in.
    let streams = pair_with(&with(0, Some(5)), &with(1, Some(6))).await;
    let code = DeclineCode::NO_SMCD_DEVICE;
    let expected = [FallbackReason::PeerDeclined(code), FallbackReason::Declined(code)];
    assert_eq!(reasons(&streams), expected.map(Some));
    // The function refuses that of version 2, and then ours.
    (0..2).for_each(|_| fabric.inject(2, Fault::Answer { command: 0x04, code: 9 }));
    let third = over_ism(open(&fabric, 2), 1).interfaces(lo(Some(7)));
    let streams = pair_with(&third, &with(1, Some(7))).await;
    let declined = FallbackReason::PeerDeclined(DeclineCode::VLAN_REGISTRATION);
    assert_eq!(reasons(&streams), [Some(FallbackReason::VlanRefused), Some(declined)]);
    // So it is if the server's is refused.
    fabric.inject(2, Fault::Answer { command: 0x04, code: 9 });
    let streams = pair_with(&with(1, Some(7)), &third).await;
    assert_eq!(reasons(&streams), [Some(declined), Some(FallbackReason::VlanRefused)]);
    // Without version 2 there is version 1.
    let streams = pair_with(&third, &with(1, Some(7))).await;
    assert!(streams.0.transport().is_smcd(), "{}", streams.0.transport());
}

#[tokio::test]
async fn a_function_that_is_lost_as_it_is_told_of_a_vlan_is_no_device() {
    let fabric = fabric(2);
    let [client, server] = [0, 1].map(|function| {
        let lo = PnetInterface::new("lo", pnetid()).vlan(VlanId(7));
        over_ism(open(&fabric, function), 1).interfaces([lo])
    });
    fabric.inject(0, Fault::Answer { command: 0x04, code: 0xffff });
    let streams = pair_with(&client, &server).await;
    let declined = FallbackReason::PeerDeclined(DeclineCode::NO_DEVICE);
    assert_eq!(reasons(&streams), [Some(FallbackReason::NoDeviceOfPnetId), Some(declined)]);
}

/// What the function of one end cannot do another device of it does, for the next connections.
#[tokio::test]
async fn lost_functions_are_not_proposed() {
    let fabric = fabric(2);
    let ends = [0, 1].map(|function| {
        let loopback = Loopback::new(DmbLimits::default()).unwrap();
        let devices: [Arc<dyn Device>; 2] = [Arc::new(open(&fabric, function)), Arc::new(loopback)];
        common::in_band().stack(Stack::new(devices.into())).interfaces([PnetInterface::new("lo", pnetid())])
    });
    let chid = async || {
        let (client, server) = pair_with(&ends[0], &ends[1]).await;
        let Transport::Smcd { chid, .. } = client.transport() else { panic!("{}", client.transport()) };
        assert!(server.transport().is_smcd());
        chid
    };
    assert_eq!(chid().await, Chid(0x07c0));
    // It does not answer, and is there for others all the same.
    fabric.inject(0, Fault::Answer { command: 0x09, code: 0xffff });
    let device = &ends[0].stack.as_ref().unwrap().devices()[0];
    device.query_remote_gid(fabric.gid(1).unwrap(), None).unwrap_err();
    assert!(device.is_lost());
    assert_eq!(chid().await, ends[0].stack.as_ref().unwrap().devices()[1].fabric_id());
}

/// What a server lacks is no reason for what it has: its function is on no physical network, and full.
#[tokio::test]
async fn a_reason_is_that_of_the_code() {
    let fabric = SoftIsm::new(&SoftIsmSettings::default()).unwrap();
    let [client, server] = [0, 1].map(|function| over_ism(open(&fabric, function), 2));
    let device = &server.stack.as_ref().unwrap().devices()[0];
    let user = fabric.gid(0).unwrap();
    let _all: Vec<_> = (0..1888).map(|_| device.register_dmb(user, 4096, None).unwrap()).collect();
    let streams = pair_with(&client, &server).await;
    let code = DeclineCode::NO_FREE_DMB;
    assert_eq!(
        reasons(&streams),
        [FallbackReason::PeerDeclined(code), FallbackReason::Declined(code)].map(Some)
    );
}

#[tokio::test]
async fn link_groups_are_shut_down_and_tested() {
    let fabric = fabric(3);
    let [client, server] = [0, 1].map(|function| over_ism(open(&fabric, function), 2));
    let third = open(&fabric, 2);
    let served = server.stack.as_ref().unwrap().devices()[0].gid();
    let connect = || pair_with(&client, &server);
    drop(connect().await);
    // A test is answered at the next handshake: link, VLAN, 1 for a request and 2 for the answer.
    let test = |kind: u16| {
        let [k0, k1] = kind.to_ne_bytes();
        u64::from_ne_bytes([0, 0, 1, 0, 0, 0, k0, k1])
    };
    third.signal_event(served, 0x83, test(1)).unwrap();
    let mut answer = None;
    for _ in 0..100 {
        drop(connect().await);
        answer = third.take_event();
        if answer.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(answer, Some(Event::Software { from: served, code: 0x83, data: test(2) }));
    // Of a stack that is gone the peer hears, by the event that Linux sends.
    drop(server);
    for _ in 0..100 {
        if fabric.counters(1).commands.get(&0x0e) > Some(&1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fabric.counters(1).commands.get(&0x0e), Some(&2), "the answer, and the end of the group");
}

/// Linux has a group for each first contact, and ends those that it does not use. What the others carry is not in danger.
#[tokio::test]
async fn the_end_of_one_group_is_not_that_of_others() {
    let fabric = fabric(2);
    let [client, server] = [0, 1].map(|function| over_ism(open(&fabric, function), 2));
    let [ours, theirs] = [&client, &server].map(|end| end.stack.as_ref().unwrap().devices()[0].clone());
    let mut live = pair_with(&client, &server).await;
    for _ in 0..3 {
        theirs.signal_event(ours.gid(), 0x80, 0).unwrap();
        // The server counts on the group, which it has not ended.
        let accept = accepted(&client, &server).await;
        assert!(!accept.first_contact);
        // And hears of a first contact where it is the client.
        theirs.signal_event(ours.gid(), 0x80, 0).unwrap();
        assert!(accepted(&server, &client).await.first_contact);
    }
    live.0.write_all(b"alive").await.unwrap();
    in_time(live.1.read_exact(&mut [0; 5])).await.unwrap();
}

/// Anybody can say so.
#[tokio::test]
async fn who_says_to_be_out_of_sync_harms_nobody() {
    let fabric = fabric(2);
    let [client, server] = [0, 1].map(|function| over_ism(open(&fabric, function), 2));
    let mut live = pair_with(&client, &server).await;
    let listener = SmcListener::bind_with("127.0.0.1:0", server.clone()).await.unwrap();
    let mut liar = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let stolen = Message::from(proposal(client.clone()).await).to_bytes();
    let lie = async {
        liar.write_all(&stolen).await.unwrap();
        let (Message::Accept(accept), _) = message(&mut liar).await else { panic!("no Accept") };
        assert!(!accept.0.first_contact);
        let decline = Message::from(Decline::new(Version::V2, DeclineCode::SYNC)).to_bytes();
        liar.write_all(&decline).await.unwrap();
    };
    let ((), accepted_liar) = in_time(async { tokio::join!(lie, listener.accept()) }).await;
    assert!(!accepted_liar.unwrap().0.transport().is_smcd());
    assert!(!accepted(&server, &client).await.first_contact, "the client knows of the group");
    live.0.write_all(b"alive").await.unwrap();
    in_time(live.1.read_exact(&mut [0; 5])).await.unwrap();
}

#[tokio::test]
async fn the_next_process_with_a_function_makes_first_contact() {
    let fabric = fabric(2);
    let client = over_ism(open(&fabric, 0), 2);
    for _ in 0..5 {
        let server = loop {
            match fabric.open(1) {
                Ok(function) => break over_ism(smcd::dibs::ism::Ism::open(Arc::new(function)).unwrap(), 2),
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        for _ in 0..3 {
            let streams = pair_with(&client, &server).await;
            assert!(streams.0.transport().is_smcd(), "{}", streams.0.transport());
        }
        drop(server);
        // The same GID, and a group that the next one has not heard of.
        while fabric.is_open(1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
