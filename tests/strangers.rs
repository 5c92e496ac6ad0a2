//! Processes of this host that talk to a device without having anything to say: they cost it little, and its peers
//! nothing. One test: it limits the descriptors of the process.

mod common;

use std::{
    io::{IoSlice, Write},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use common::{config, descriptors, in_time};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
        SocketType, connect, sendmsg, socket_with, socketpair,
    },
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use smcd::{
    SmcListener, SmcStream, Stack,
    dibs::{
        Device, Gid,
        loopback::{DmbLimits, Loopback},
    },
};

fn link(gid: Gid) -> OwnedFd {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let name = format!("smcd/dibs/{gid}");
    connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap()).unwrap();
    send(&socket, &packet(1, 0), &[]);
    socket
}

/// A packet as devices send them: magic, kind, GID, token, length.
fn packet(kind: u32, token: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(u32::from_be_bytes(*b"DIB1").to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([7; 16]);
    bytes.extend(token.to_ne_bytes());
    bytes.extend(16384u64.to_ne_bytes());
    bytes
}

fn send(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags).is_ok()
}

/// A TCP socket whose `close` waits for seconds.
fn lingering() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (never_reads, _) = listener.accept().unwrap();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::from_secs(8))).unwrap();
    stream.set_nonblocking(true).unwrap();
    for _ in 0..2 {
        while stream.write(&[0; 65536]).is_ok() {}
        std::thread::sleep(Duration::from_millis(200));
    }
    (stream, never_reads)
}

/// Memory and doorbell as a device would accept them.
fn valid_offer() -> (OwnedFd, (OwnedFd, OwnedFd)) {
    let memory = memfd_create("stranger", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&memory, 1 << 20).unwrap();
    fcntl_add_seals(&memory, SealFlags::SHRINK).unwrap();
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    (memory, pair)
}

async fn honest(listener: &SmcListener) {
    let started = Instant::now();
    let client_config = config();
    let addr = listener.local_addr().unwrap();
    let (client, server) =
        in_time(async { tokio::join!(SmcStream::connect_with(addr, &client_config), listener.accept()) })
            .await;
    assert!(client.unwrap().transport().is_smcd());
    drop(server.unwrap());
    assert!(started.elapsed() < Duration::from_secs(4), "held up for {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_hold_up_nobody_and_take_few_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(1024), maximum }).unwrap();
    let device = Loopback::new(DmbLimits::default()).unwrap();
    let gid = device.gid();
    let server_config = common::in_band().stack(Stack::new(vec![Arc::new(device)]));
    let listener = SmcListener::bind_with("127.0.0.1:0", server_config).await.unwrap();
    let before = descriptors();

    // Descriptors whose close blocks, as garbage, and in place of a DMB.
    let (stream, _never_reads) = lingering();
    assert!(send(&link(gid), b"garbage", &[stream.as_fd()]));
    assert!(send(&link(gid), &packet(2, 1), &[stream.as_fd(), stream.as_fd()]));
    drop(stream);
    honest(&listener).await;

    // Offers that are fine, and that nobody has asked for, by the thousand.
    let (memory, (doorbell, _other_end)) = valid_offer();
    let links: Vec<_> = (0..8).map(|_| link(gid)).collect();
    let mut sent = 0u64;
    for round in 0..30 {
        for flooder in &links {
            while send(flooder, &packet(2, sent), &[memory.as_fd(), doorbell.as_fd()]) {
                sent += 1;
            }
        }
        if round % 10 == 0 {
            honest(&listener).await;
        }
    }
    assert!(sent > 500, "only {sent} offers got through");
    honest(&listener).await;
    let held = descriptors() - before;
    assert!(held < 400, "{held} descriptors held, of 1,024, after {sent} offers");
}
