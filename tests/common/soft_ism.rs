//! Settings for streams over ISM functions.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::{net::SocketAddr, sync::Arc};

use smcd::{
    PnetInterface, SmcConfig, Stack,
    clc::wire::Message,
    dibs::{
        PnetId,
        ism::{
            Ism,
            soft::{SoftIsm, SoftIsmSettings},
        },
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::in_band;

/// The physical network of the loopback interface, and of the functions.
pub fn pnetid() -> PnetId {
    "NET1".parse().unwrap()
}

/// A fabric with so many functions, on the physical network.
pub fn fabric(functions: usize) -> SoftIsm {
    SoftIsm::new(&settings(functions)).unwrap()
}

pub fn settings(functions: usize) -> SoftIsmSettings {
    let mut settings = SoftIsmSettings::default();
    (settings.functions, settings.pnetid) = (functions, Some(pnetid()));
    settings
}

pub fn open(fabric: &SoftIsm, function: usize) -> Ism {
    Ism::open(Arc::new(fabric.open(function).unwrap())).unwrap()
}

/// Settings for handshakes in band over this function alone, by version 1 or 2 of SMC-D.
pub fn over_ism(device: Ism, version: u8) -> SmcConfig {
    let config =
        in_band().stack(Stack::new(vec![Arc::new(device)])).interfaces([PnetInterface::new("lo", pnetid())]);
    // Without an id in common there is no version 2.
    if version == 1 { config.ueids([]) } else { config }
}

/// Settings of two ends that have a function each.
pub fn both_over_ism(version: u8) -> [SmcConfig; 2] {
    let fabric = fabric(2);
    [0, 1].map(|function| over_ism(open(&fabric, function), version))
}

/// The next CLC message, with its bytes.
pub async fn message(tcp: &mut TcpStream) -> (Message, Vec<u8>) {
    let mut bytes = vec![0; 8];
    tcp.read_exact(&mut bytes).await.unwrap();
    let len = usize::from(u16::from_be_bytes([bytes[5], bytes[6]]));
    bytes.resize(len, 0);
    tcp.read_exact(&mut bytes[8..]).await.unwrap();
    let message = Message::parse(&bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
    (message, bytes)
}

/// Stands between a client, which connects to the address that is returned, and this server. Tells what Proposal, Accept and
/// Confirm were, and goes on sending on.
pub async fn relay(server: SocketAddr) -> (SocketAddr, JoinHandle<[Message; 3]>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let relaying = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(server).await.unwrap();
        let proposal = send_on(&mut client, &mut server).await;
        let accept = send_on(&mut server, &mut client).await;
        let confirm = send_on(&mut client, &mut server).await;
        tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        [proposal, accept, confirm]
    });
    (addr, relaying)
}

async fn send_on(from: &mut TcpStream, to: &mut TcpStream) -> Message {
    let (message, bytes) = message(from).await;
    to.write_all(&bytes).await.unwrap();
    message
}

/// Whether both ends say that they speak version 2: server and client.
pub fn speak_v2([_, accept, confirm]: &[Message; 3]) -> [bool; 2] {
    let (Message::Accept(accept), Message::Confirm(confirm)) = (accept, confirm) else {
        panic!("{accept:?}, {confirm:?}")
    };
    [accept.0.v2, confirm.0.v2].map(|v2| v2.is_some())
}
