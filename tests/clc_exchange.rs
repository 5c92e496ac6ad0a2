//! Whole handshakes over a stream, and what is left in it afterwards.

#![cfg(feature = "tokio")]

use std::time::Instant;

use smcd::{
    clc::{
        DeclineCode,
        exchange::{read_message, write_message},
        handshake::{Agreed, HandshakeError, Local, LocalDevice, OwnDmb, client, server::ExpectProposal},
        wire::{DmbeSize, LinkId, UpTo},
    },
    dibs::{Chid, DmbToken, Gid},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

fn local(gid: u64, ueid: &str) -> Local {
    let device = LocalDevice { gid: Gid::from_halves(gid, gid), chid: Chid(0xffff) };
    Local { ueids: UpTo::first_of([ueid.parse().unwrap()]), ..Local::new(vec![device]) }
}

fn dmb(token: u64) -> OwnDmb {
    OwnDmb { token: DmbToken(token), size: DmbeSize::MAX, index: 0 }
}

async fn connect(stream: &mut DuplexStream, local: &Local) -> Result<Agreed, HandshakeError> {
    let (proposal, expect) = client::propose(local, Instant::now()).unwrap();
    write_message(stream, &proposal.into(), expect.deadline()).await.unwrap();
    let accept = read_message(stream, expect.deadline()).await.unwrap();
    let deadline = expect.deadline();
    let (confirm, agreed) = expect.on_message(accept)?.confirm(dmb(1), LinkId::default());
    write_message(stream, &confirm.into(), deadline).await.unwrap();
    Ok(agreed)
}

async fn accept(stream: &mut DuplexStream, local: &Local) -> Result<Agreed, DeclineCode> {
    let expect = ExpectProposal::new(local.clone(), Instant::now());
    let deadline = expect.deadline();
    let offered = expect.on_message(read_message(stream, deadline).await.unwrap()).unwrap();
    match offered.candidates(|_, _, _| true) {
        Ok(candidates) => {
            let first = candidates.iter().next().unwrap();
            let (accept, expect) = offered.accept(first, dmb(2), true, LinkId::default(), Instant::now());
            write_message(stream, &accept.into(), expect.deadline()).await.unwrap();
            let confirm = read_message(stream, expect.deadline()).await.unwrap();
            Ok(expect.on_message(confirm).unwrap())
        }
        Err(code) => {
            write_message(stream, &offered.decline(code).into(), deadline).await.unwrap();
            Err(code)
        }
    }
}

/// Data of the application, sent right behind the last message of each side.
async fn application_data(stream: &mut DuplexStream) -> Vec<u8> {
    stream.write_all(b"application").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    received
}

#[tokio::test]
async fn agreement_over_a_narrow_stream() {
    let (mut client, mut server) = duplex(16);
    let (client_local, server_local) = (local(1, "A"), local(2, "A"));
    let (at_client, at_server) =
        tokio::join!(connect(&mut client, &client_local), accept(&mut server, &server_local));
    let (at_client, at_server) = (at_client.unwrap(), at_server.unwrap());
    assert_eq!(at_client.terms().peer_dmb().token(), at_server.own_dmb().token);
    assert_eq!(at_server.terms().peer_dmb().token(), at_client.own_dmb().token);
}

#[tokio::test]
async fn data_behind_a_decline_is_untouched() {
    let (mut client, mut server) = duplex(16);
    let (client_local, server_local) = (local(1, "A"), local(2, "B"));
    let at_client = async {
        let error = connect(&mut client, &client_local).await.unwrap_err();
        let diagnosis = DeclineCode::NO_SMCD_DEVICE;
        assert_eq!(error, HandshakeError::PeerDeclined { diagnosis, out_of_sync: false });
        application_data(&mut client).await
    };
    let at_server = async {
        accept(&mut server, &server_local).await.unwrap_err();
        application_data(&mut server).await
    };
    let (client_received, server_received) = tokio::join!(at_client, at_server);
    assert_eq!(client_received, b"application");
    assert_eq!(server_received, b"application");
}
