//! The side channel in the wrong hands: whoever gets there gets nothing, and breaks nothing.
#![allow(missing_docs, unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;
mod rogue;

use std::{
    io::Write as _, net::SocketAddr, os::fd::OwnedFd, os::unix::process::CommandExt as _, process::Stdio,
    time::Duration,
};

use common::{in_time, pattern, promote, promoting, role};
use rogue::{LEN, Rogue, cookie, end, go_to, header, name, next, receive, send, wait_at};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    pipe::pipe,
};
use smcd::{
    FallbackReason, Promotion, SmcListener, SmcStream, Transport,
    clc::{
        DeclineCode,
        wire::{Decline, Message, Version},
    },
    dibs::{DmbToken, RemoteDmb},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A client of ours that wants to be promoted, and a plain server.
async fn connection() -> (SmcStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let config = promoting(Promotion::Eager);
    let (client, server) = tokio::join!(SmcStream::connect_with(addr, &config), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

/// The connection works.
async fn talk(client: &mut SmcStream, server: &mut TcpStream) {
    for i in 0..4u8 {
        let data = pattern(i.into(), 3000);
        let mut got = vec![0; data.len()];
        client.write_all(&data).await.unwrap();
        server.read_exact(&mut got).await.unwrap();
        assert!(got == data);
        server.write_all(&data).await.unwrap();
        client.read_exact(&mut got).await.unwrap();
        assert!(got == data);
    }
}

fn reason(stream: &SmcStream) -> FallbackReason {
    stream.transport().fallback_reason().expect("still TCP")
}

/// Things to say that are no packet.
fn garbage(end: u32, cookie: u64) -> Vec<Vec<u8>> {
    let clc = |bytes: &[u8]| [header(end, cookie), bytes.to_vec()].concat();
    let decline = Decline::new(Version::V2, DeclineCode::INTERNAL);
    vec![
        b"x".to_vec(),
        vec![0xff; 8192],
        vec![0; 60_000],
        header(end, cookie),
        // From who has the same end of another connection.
        [header(1 - end, cookie), Message::from(decline).to_bytes()].concat(),
        [header(end, cookie ^ 1), vec![0xe2, 0xd4, 0xc3, 0xc4, 1, 0, 16, 0x10]].concat(),
        clc(&[0xe2, 0xd4, 0xc3, 0xc4, 1, 0xff, 0xff, 0x10]),
        clc(&[0xe2, 0xd4, 0xc3, 0xc4, 2, 0, 68, 0x21]),
        clc(&pattern(5, 500)),
        {
            let mut wrong = header(end, cookie);
            wrong[5] = 1;
            wrong
        },
    ]
}

fn pipes(n: usize) -> Vec<OwnedFd> {
    (0..n.div_ceil(2)).flat_map(|_| <[OwnedFd; 2]>::from(pipe().unwrap())).take(n).collect()
}

/// Whoever waits first is taken for the peer if it has the peer's user; but it has to know the protocol.
#[tokio::test]
async fn garbage_from_who_waits() {
    in_time(async {
        for fds in [0, 1, 2, 3, 150] {
            for which in 0..garbage(0, 0).len() {
                let (mut client, mut server) = connection().await;
                let listener = wait_at(&name(client.local_addr().unwrap(), client.peer_addr().unwrap()));
                talk(&mut client, &mut server).await;
                let channel = next(&listener).expect("the client has come");
                assert!(matches!(receive(&channel), Some((Message::Proposal(_), _))));
                send(&channel, &garbage(end(&server), cookie(&server))[which], &pipes(fds));
                talk(&mut client, &mut server).await;
                // Nothing is taken as long as too much that was sent before is still to be closed.
                while reason(&client) == FallbackReason::NotYet {
                    talk(&mut client, &mut server).await;
                }
                assert_eq!(reason(&client), FallbackReason::PeerMisbehaved, "{which} with {fds}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn silence_and_hanging_up_of_who_waits() {
    in_time(async {
        let (mut client, mut server) = connection().await;
        let listener = wait_at(&name(client.local_addr().unwrap(), client.peer_addr().unwrap()));
        talk(&mut client, &mut server).await;
        for _ in 0..100 {
            talk(&mut client, &mut server).await;
        }
        assert_eq!(reason(&client), FallbackReason::NotYet);
        // It comes a few times. Looked at less and less often while nothing came.
        for _ in 0..200 {
            drop(next(&listener));
            talk(&mut client, &mut server).await;
        }
        assert_eq!(reason(&client), FallbackReason::PeerLeft);

        // A queue that nobody takes anything from.
        let (mut client, mut server) = connection().await;
        let name = name(client.local_addr().unwrap(), client.peer_addr().unwrap());
        let _listener = wait_at(&name);
        let _full: Vec<_> = std::iter::from_fn(|| go_to(&name)).collect();
        talk(&mut client, &mut server).await;
        assert_eq!(reason(&client), FallbackReason::NotYet);
    })
    .await;
}

/// Strangers that come to who waits are turned away; then the peer comes.
#[tokio::test]
async fn strangers_do_not_keep_the_ends_from_meeting() {
    in_time(async {
        let config = promoting(Promotion::Eager);
        let listener = SmcListener::bind_with("127.0.0.1:0", promoting(Promotion::Eager)).await.unwrap();
        let connecting = SmcStream::connect_with(listener.local_addr().unwrap(), &config);
        let (client, server) = tokio::join!(connecting, listener.accept());
        let (mut client, mut server) = (client.unwrap(), server.unwrap().0);
        // The client now waits.
        client.write_all(b"x").await.unwrap();
        let name = name(client.local_addr().unwrap(), client.peer_addr().unwrap());
        let mut silent = Vec::new();
        for bytes in garbage(0, cookie(&client)) {
            let stranger = go_to(&name).expect("the client waits");
            send(&stranger, &bytes, &pipes(2));
            silent.extend(go_to(&name));
            client.write_all(b"x").await.unwrap();
        }
        drop(silent);
        let n = 1 + garbage(0, 0).len();
        let mut got = vec![0; n];
        server.read_exact(&mut got).await.unwrap();
        promote(&mut client, &mut server).await;
    })
    .await;
}

fn memory(len: usize, seals: SealFlags) -> OwnedFd {
    let memory = memfd_create("rogue", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&memory, len as u64).unwrap();
    fcntl_add_seals(&memory, seals).unwrap();
    memory
}

fn doorbell() -> OwnedFd {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap().0
}

/// An Accept that is as it should be, with descriptors that are not.
#[tokio::test]
async fn wrong_descriptors() {
    let good = || memory(LEN + 4096, SealFlags::SHRINK);
    let wrong: [fn() -> Vec<OwnedFd>; 8] = [
        Vec::new,
        || pipes(1),
        || pipes(2),
        || vec![pipes(1).remove(0), doorbell()],
        || vec![memory(LEN, SealFlags::SHRINK), doorbell()],
        || vec![memory(LEN + 4096, SealFlags::GROW), doorbell()],
        || vec![std::fs::File::open("/proc/self/exe").unwrap().into(), doorbell()],
        || vec![memory(LEN + 4096, SealFlags::SHRINK), doorbell(), doorbell()],
    ];
    in_time(async {
        let cases = wrong.iter().map(|wrong| wrong()).chain([vec![good(), pipes(1).remove(0)]]);
        for (which, fds) in cases.enumerate() {
            let (mut client, mut server) = connection().await;
            let listener = wait_at(&name(client.local_addr().unwrap(), client.peer_addr().unwrap()));
            talk(&mut client, &mut server).await;
            let channel = next(&listener).unwrap();
            let rogue = Rogue::new();
            let proposal = receive(&channel).unwrap().0;
            rogue.accept(&channel, &server, proposal, |_| (DmbToken(7), fds));
            talk(&mut client, &mut server).await;
            assert!(matches!(receive(&channel), Some((Message::Decline(_), _))), "case {which}");
            assert!(matches!(reason(&client), FallbackReason::Declined(_)), "case {which}");
        }
    })
    .await;
}

/// A peer that agrees on everything and then does what it likes with the ring.
async fn agreed() -> (SmcStream, TcpStream, RemoteDmb, Vec<smcd::dibs::Dmb>) {
    let (mut client, mut server) = connection().await;
    let listener = wait_at(&name(client.local_addr().unwrap(), client.peer_addr().unwrap()));
    talk(&mut client, &mut server).await;
    let channel = next(&listener).unwrap();
    let rogue = Rogue::new();
    let proposal = receive(&channel).unwrap().0;
    let mut own = Vec::new();
    let expect = rogue.accept(&channel, &server, proposal, |user| {
        let (dmb, fds) = rogue.dmb(user);
        let token = dmb.token();
        own.push(dmb);
        (token, fds)
    });
    talk(&mut client, &mut server).await;
    let (confirm, fds) = receive(&channel).unwrap();
    let dmb = rogue.attach(expect, confirm, fds);
    // Never switched: the rogue has not said that it reads.
    talk(&mut client, &mut server).await;
    (client, server, dmb, own)
}

/// Writes the first bytes of the client's ring, and says how many they are.
fn publish(dmb: &RemoteDmb, bytes: &[u8]) {
    dmb.memory().write(32, bytes).unwrap();
    let mut word = [0; 8];
    word[2..6].copy_from_slice(&u32::try_from(bytes.len()).unwrap().to_ne_bytes());
    dmb.memory().write(8, &word).unwrap();
}

#[tokio::test]
async fn a_switch_that_cannot_be() {
    in_time(async {
        // Behind what was read.
        let (mut client, mut server, dmb, _own) = agreed().await;
        publish(&dmb, &5u64.to_ne_bytes());
        server.write_all(b"more").await.unwrap();
        let error = client.read(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");

        // Far ahead: the bytes up to there come by TCP, as long as there are any.
        let (mut client, mut server, dmb, _own) = agreed().await;
        publish(&dmb, &u64::MAX.to_ne_bytes());
        talk(&mut client, &mut server).await;
        server.shutdown().await.unwrap();
        let error = client.read(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");

        // Not all of it: the connection stays TCP.
        let (mut client, mut server, dmb, _own) = agreed().await;
        publish(&dmb, &[1, 2, 3]);
        talk(&mut client, &mut server).await;
        server.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0);

        // A cursor that is none, and every flag there is.
        let (mut client, mut server, dmb, _own) = agreed().await;
        dmb.memory().write(0, &[0xff; 32]).unwrap();
        talk(&mut client, &mut server).await;
        assert!(!client.transport().is_smcd());
    })
    .await;
}

/// What the peer sends by TCP after it has switched has no place in the stream.
#[tokio::test]
async fn data_by_tcp_after_the_switch() {
    in_time(async {
        let (mut client, mut server, dmb, _own) = agreed().await;
        // All that `talk` has sent so far, three times.
        let offset = 3 * 4 * 3000u64;
        publish(&dmb, &[&offset.to_ne_bytes()[..], b"by the ring"].concat());
        server.write_all(b"by TCP").await.unwrap();
        let mut got = [0; 11];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"by the ring");
        assert_eq!(client.read(&mut got).await.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    })
    .await;
}

/// A process of another user waits under the name first, or comes to who waits. Needs root, to become another user.
#[tokio::test(flavor = "multi_thread")]
async fn another_user_gets_nothing() {
    if let Some(argument) = role() {
        return stranger(&argument);
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can start a process of another user");
        return;
    }
    in_time(async {
        for waits in [true, false] {
            let config = promoting(Promotion::Eager);
            let listener = SmcListener::bind_with("127.0.0.1:0", promoting(Promotion::Eager)).await.unwrap();
            let connecting = SmcStream::connect_with(listener.local_addr().unwrap(), &config);
            let (client, server) = tokio::join!(connecting, listener.accept());
            let (mut client, mut server) = (client.unwrap(), server.unwrap().0);
            if !waits {
                client.write_all(b"0").await.unwrap();
            }
            let (local, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let how = if waits { "wait" } else { "go" };
            let mut stranger = start_stranger(&format!("{how} {local} {peer} {}", cookie(&server)));
            tokio::time::sleep(Duration::from_millis(300)).await;
            if waits {
                for i in 0..50 {
                    common::exchange(&mut client, &mut server, i).await;
                    common::exchange(&mut server, &mut client, i).await;
                }
                for stream in [&client, &server] {
                    assert_eq!(stream.transport(), Transport::Tcp(FallbackReason::PeerUnproven));
                }
            } else {
                assert_eq!(server.read_u8().await.unwrap(), b'0');
                promote(&mut client, &mut server).await;
            }
            drop(stranger.stdin.take());
            assert!(stranger.wait().unwrap().success());
        }
    })
    .await;
}

/// Starts this test as another user. The binary goes to where that one can read it.
fn start_stranger(argument: &str) -> std::process::Child {
    let copy = std::env::temp_dir().join(format!("smcd-stranger-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let mut command = std::process::Command::new(&copy);
    command
        .args(["--exact", "another_user_gets_nothing", "--nocapture"])
        .env(common::ROLE, argument)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .current_dir("/")
        .uid(54321)
        .gid(54321);
    let child = command.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    std::fs::remove_file(copy).unwrap();
    child
}

/// Says all it can at the side channel of others, until its standard input ends.
fn stranger(argument: &str) {
    let words: Vec<&str> = argument.split(' ').collect();
    let (local, peer): (SocketAddr, SocketAddr) = (words[1].parse().unwrap(), words[2].parse().unwrap());
    let (name, end) = (name(local, peer), u32::from(peer > local));
    let cookie = words[3].parse().unwrap();
    let mut open = Vec::new();
    if words[0] == "wait" {
        let listener = wait_at(&name);
        std::thread::spawn(move || {
            loop {
                if let Some(channel) = next(&listener) {
                    if receive(&channel).is_some() {
                        // Something was said to a stranger. A panic here would end this thread alone.
                        std::process::exit(3);
                    }
                    garbage(end, cookie).iter().for_each(|bytes| send(&channel, bytes, &pipes(2)));
                    open.push(channel);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    } else {
        let channel = go_to(&name).expect("somebody waits");
        garbage(end, cookie).iter().for_each(|bytes| send(&channel, bytes, &pipes(2)));
        open.push(channel);
    }
    std::io::stdout().flush().unwrap();
    std::io::stdin().lines().for_each(drop);
}

/// A descriptor that takes seconds to be closed: of a TCP connection that lingers over data that nobody takes.
fn lingering() -> (OwnedFd, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut lingers = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let deaf = listener.accept().unwrap().0;
    socket2::SockRef::from(&lingers).set_linger(Some(Duration::from_secs(5))).unwrap();
    lingers.set_nonblocking(true).unwrap();
    while lingers.write(&[0; 65536]).is_ok() {}
    lingers.set_nonblocking(false).unwrap();
    (lingers.into(), deaf)
}

/// What a stranger has sent is closed with the socket that it lies in, and that must not hold up the application.
#[tokio::test]
async fn descriptors_that_nobody_has_taken_hold_nobody_up() {
    in_time(async {
        for is_proven in [true, false] {
            let (mut client, mut server) = connection().await;
            client.write_all(b"x").await.unwrap();
            let name = name(client.local_addr().unwrap(), client.peer_addr().unwrap());
            let mut deaf = Vec::new();
            for _ in 0..2 {
                let stranger = go_to(&name).expect("the client waits");
                let (fd, other) = lingering();
                if is_proven {
                    send(&stranger, b"garbage", &[]);
                }
                send(&stranger, b"", &[]);
                send(&stranger, b"", &[fd]);
                deaf.push(other);
            }
            let begin = std::time::Instant::now();
            if is_proven {
                client.write_all(b"x").await.unwrap();
            }
            drop(client);
            assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
            drop(server.read(&mut [0; 9]).await);
        }
    })
    .await;
}
