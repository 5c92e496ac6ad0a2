//! Connections that are TCP at once and become SMC-D while they run: to the application they are TCP throughout.
#![allow(missing_docs)]

mod common;

use std::{future::poll_fn, io, net::SocketAddr, pin::Pin, sync::Arc};

use common::{
    block_on, exchange, in_time, pair_with, pattern, promote, promoted_pair, promoting, role, spawn,
};
use smcd::{FallbackReason, Handshake, Promotion, SmcConfig, SmcListener, SmcStream, Transport};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream},
};

/// Either of the two kinds of ends.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl Stream for TcpStream {}
impl Stream for SmcStream {}
type End = Pin<Box<dyn Stream>>;

/// Addresses to listen on and to connect to.
const ADDRESSES: [(&str, &str); 3] =
    [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]"), ("[::]:0", "127.0.0.1")];

/// A connected pair, of our streams where so said.
async fn ends(client: bool, server: bool, (listen, connect): (&str, &str)) -> (End, End) {
    let settings = || promoting(Promotion::Eager);
    let target = |addr: SocketAddr| format!("{connect}:{}", addr.port());
    let connect = async |addr| {
        if client {
            Box::pin(SmcStream::connect_with(target(addr), &settings()).await.unwrap()) as End
        } else {
            Box::pin(TcpStream::connect(target(addr)).await.unwrap())
        }
    };
    if server {
        let listener = SmcListener::bind_with(listen, settings()).await.unwrap();
        let (client, server) = tokio::join!(connect(listener.local_addr().unwrap()), listener.accept());
        (client, Box::pin(server.unwrap().0))
    } else {
        let listener = TcpListener::bind(listen).await.unwrap();
        let (client, server) = tokio::join!(connect(listener.local_addr().unwrap()), listener.accept());
        (client, Box::pin(server.unwrap().0))
    }
}

/// What an end has seen, to be compared with what it sees by TCP.
type Seen = Vec<String>;

fn note(seen: &mut Seen, what: &str, result: io::Result<impl std::fmt::Debug>) {
    match result {
        Ok(value) => seen.push(format!("{what}: {value:?}")),
        Err(error) => seen.push(format!("{what}: {:?}", error.kind())),
    }
}

/// Messages to and fro; the first end speaks first.
async fn talk(first: &mut End, second: &mut End, rounds: u8) {
    for i in 0..rounds {
        message(first, second, i).await;
        message(second, first, i).await;
    }
}

async fn message(from: &mut End, to: &mut End, i: u8) {
    let (message, mut got) = ([i; 100], [0; 100]);
    let (sent, received) = tokio::join!(from.write_all(&message), to.read_exact(&mut got));
    sent.unwrap();
    received.unwrap();
    assert_eq!(got, message);
}

/// One end shuts down writing after some messages; the other reads to the end and sends more.
async fn half_close(mut first: End, mut second: End, rounds: u8) -> Seen {
    talk(&mut first, &mut second, rounds).await;
    let mut seen = Seen::new();
    let (last, long) = (pattern(1, 5000), pattern(7, 300_000));
    let one = async {
        let mut seen = Seen::new();
        note(&mut seen, "last words", first.write_all(&last).await);
        note(&mut seen, "shutdown", first.shutdown().await);
        note(&mut seen, "write after shutdown", first.write(b"x").await);
        let mut rest = Vec::new();
        note(&mut seen, "rest", first.read_to_end(&mut rest).await);
        assert!(rest == long);
        note(&mut seen, "after the end", first.read(&mut [0]).await);
        seen
    };
    let other = async {
        let mut seen = Seen::new();
        let mut rest = Vec::new();
        note(&mut seen, "rest", second.read_to_end(&mut rest).await);
        assert!(rest == last);
        note(&mut seen, "long", second.write_all(&long).await);
        note(&mut seen, "shutdown", second.shutdown().await);
        note(&mut seen, "after the end", second.read(&mut [0]).await);
        seen
    };
    let (one, other) = tokio::join!(one, other);
    seen.extend(one.into_iter().chain(other));
    seen
}

/// One end closes without having read what the other sent; that one reads what it got, then a reset.
async fn rude(mut first: End, mut second: End, rounds: u8) -> Seen {
    talk(&mut first, &mut second, rounds).await;
    let mut seen = Seen::new();
    first.write_all(b"unread by you").await.unwrap();
    second.write_all(b"unread by me").await.unwrap();
    // What was written has arrived: the bytes are in a queue of this host.
    let mut some = [0; 6];
    second.read_exact(&mut some).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    drop(first);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let mut rest = Vec::new();
    note(&mut seen, "rest", second.read_to_end(&mut rest).await);
    seen.push(format!("{rest:?}"));
    note(&mut seen, "after the reset", second.read(&mut [0]).await);
    seen
}

/// One end closes in order; the other reads the end, and finds out when it writes.
async fn polite(mut first: End, mut second: End, rounds: u8) -> Seen {
    talk(&mut first, &mut second, rounds).await;
    let mut seen = Seen::new();
    first.write_all(b"bye").await.unwrap();
    drop(first);
    let mut rest = Vec::new();
    note(&mut seen, "rest", second.read_to_end(&mut rest).await);
    seen.push(format!("{rest:?}"));
    // TCP takes some, until the kernel of the other end has answered.
    let failed = loop {
        match second.write(b"anybody there?").await {
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
            Err(error) => break error,
        }
    };
    note(&mut seen, "write", Err::<(), _>(failed));
    note(&mut seen, "read", second.read(&mut [0]).await);
    seen
}

/// Both ends write and read at once.
async fn both_ways(first: End, second: End, rounds: u8) -> Seen {
    let (mut first, mut second) = (first, second);
    talk(&mut first, &mut second, rounds).await;
    let run = async |end: End, from: u64, to: u64| {
        let (mut reader, mut writer) = tokio::io::split(end);
        let mut got = Vec::new();
        let sending = pattern(from, 1_000_000);
        let writing = async {
            for (i, piece) in sending.chunks(7777).enumerate() {
                writer.write_all(piece).await.unwrap();
                if i % 10 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            writer.shutdown().await.unwrap();
        };
        let (read, ()) = tokio::join!(reader.read_to_end(&mut got), writing);
        assert!(got == pattern(to, 1_000_000));
        format!("{read:?}")
    };
    let (one, other) = tokio::join!(run(first, 1, 2), run(second, 2, 1));
    vec![one, other]
}

/// Runs a scenario on TCP, and on all pairings of ends, addresses and roles, at several moments of the promotion.
fn same_as_tcp(scenario: impl AsyncFn(End, End, u8) -> Seen) {
    block_on(async {
        for rounds in [0, 1, 2, 3, 4, 5, 6, 8, 30] {
            for address in ADDRESSES {
                let (client, server) = ends(false, false, address).await;
                let by_tcp = in_time(scenario(client, server, rounds)).await;
                for (ours, theirs) in [(true, true), (true, false), (false, true)] {
                    for server_first in [false, true] {
                        let (client, server) = ends(ours, theirs, address).await;
                        let (first, second) = if server_first { (server, client) } else { (client, server) };
                        let seen = in_time(scenario(first, second, rounds)).await;
                        assert_eq!(
                            seen, by_tcp,
                            "{address:?}, {rounds} rounds, client {ours}, server {theirs}, server first {server_first}"
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn half_close_is_as_with_tcp() {
    same_as_tcp(half_close);
}

#[test]
fn closing_with_unread_data_is_as_with_tcp() {
    same_as_tcp(rude);
}

#[test]
fn closing_is_as_with_tcp() {
    same_as_tcp(polite);
}

#[test]
fn both_directions_at_once_are_as_with_tcp() {
    same_as_tcp(both_ways);
}

#[test]
fn both_ends_in_one_thread() {
    block_on(in_time(async {
        let (mut client, mut server) = promoted_pair().await;
        assert!(client.transport().is_smcd() && server.transport().is_smcd());
        exchange(&mut client, &mut server, 1).await;
    }));
}

#[test]
fn a_connection_stays_tcp_until_it_is_worth_it() {
    block_on(in_time(async {
        let settings = promoting(Promotion::After { bytes: 1_000_000, messages: 40 });
        let (mut client, mut server) = pair_with(&settings, &settings.clone()).await;
        for i in 0..19 {
            exchange(&mut client, &mut server, i).await;
            exchange(&mut server, &mut client, i).await;
        }
        for stream in [&client, &server] {
            assert_eq!(stream.transport(), Transport::Tcp(FallbackReason::NotYet));
        }
        promote(&mut client, &mut server).await;
    }));
}

#[test]
fn many_bytes_are_worth_it_too() {
    block_on(in_time(async {
        let settings = promoting(Promotion::After { bytes: 1_000_000, messages: u32::MAX });
        let (mut client, mut server) = pair_with(&settings, &settings.clone()).await;
        let data = pattern(3, 3_000_000);
        let mut got = vec![0; data.len()];
        let (sent, received) = tokio::join!(client.write_all(&data), server.read_exact(&mut got));
        sent.unwrap();
        received.unwrap();
        assert!(got == data);
        promote(&mut client, &mut server).await;
    }));
}

/// Two processes come at once: what the first is about to share with the listener must outlast the coming of the second.
#[test]
fn peers_that_come_during_a_promotion_do_not_end_it() {
    block_on(in_time(async {
        let listener = SmcListener::bind_with("127.0.0.1:0", promoting(Promotion::Eager)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connect = async |config: &SmcConfig| {
            let (client, server) = tokio::join!(SmcStream::connect_with(addr, config), listener.accept());
            (client.unwrap(), server.unwrap().0)
        };
        for rounds in 1..6 {
            let (first, second) = (promoting(Promotion::Eager), promoting(Promotion::Eager));
            let mut pairs = [connect(&first).await, connect(&first).await];
            for byte in 0..rounds {
                for (client, server) in &mut pairs {
                    exchange(server, client, byte).await;
                    exchange(client, server, byte).await;
                }
            }
            let (mut client, mut server) = connect(&second).await;
            promote(&mut server, &mut client).await;
            for (client, server) in &mut pairs {
                promote(server, client).await;
            }
            // One ends, and its buffers are those of the next.
            let [_kept, ended] = pairs;
            drop(ended);
            let (mut client, mut server) = connect(&first).await;
            promote(&mut server, &mut client).await;
        }
    }));
}

/// Whoever waits since before the rings is woken by what comes by them.
#[test]
fn who_waits_is_not_forgotten_when_another_task_reads() {
    block_on(in_time(async {
        for how in 0..4 {
            let eager = promoting(Promotion::Eager);
            let (mut client, mut server) = pair_with(&eager, &promoting(Promotion::Eager)).await;
            // Both agree, but the client does not read.
            for byte in 0..10u8 {
                exchange(&mut client, &mut server, byte).await;
            }
            let client = Arc::new(client);
            let waiting = client.clone();
            let waiter = tokio::spawn(async move {
                match how {
                    0 => waiting.readable().await.unwrap(),
                    1 => drop(waiting.ready(Interest::READABLE).await.unwrap()),
                    2 => poll_fn(|cx| waiting.poll_read_ready(cx)).await.unwrap(),
                    _ => assert_eq!(waiting.peek(&mut [0]).await.unwrap(), 1),
                }
            });
            tokio::task::yield_now().await;
            assert_eq!(client.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            server.write_all(b"!").await.unwrap();
            assert!(server.byte_counts().sent > 0, "by the ring");
            waiter.await.unwrap();
        }
    }));
}

#[test]
fn nobody_is_promoted_who_does_not_want_it() {
    block_on(in_time(async {
        let eager = promoting(Promotion::Eager);
        for other in [promoting(Promotion::Off), SmcConfig::new().handshake(Handshake::Off)] {
            let (mut client, mut server) = pair_with(&eager, &other).await;
            for i in 0..200 {
                exchange(&mut client, &mut server, i).await;
                exchange(&mut server, &mut client, i).await;
            }
            assert_eq!(client.transport(), Transport::Tcp(FallbackReason::NotYet));
            assert_eq!(server.transport(), Transport::Tcp(FallbackReason::Disabled));
        }
    }));
}

/// A peer that becomes due by far more traffic than it takes is waited for; one that has had more than that is not.
#[test]
fn a_peer_that_never_comes_is_not_waited_for_for_ever() {
    block_on(in_time(async {
        let eager = promoting(Promotion::Eager);
        let (mut client, mut server) = pair_with(&eager, &promoting(Promotion::Off)).await;
        let mut rounds = 0;
        while client.transport() == Transport::Tcp(FallbackReason::NotYet) {
            exchange(&mut client, &mut server, 1).await;
            exchange(&mut server, &mut client, 2).await;
            rounds += 1;
        }
        assert!(rounds > 200, "{rounds}");
        assert_eq!(client.transport(), Transport::Tcp(FallbackReason::PeerNotSmc));
        exchange(&mut client, &mut server, 3).await;
        exchange(&mut server, &mut client, 4).await;

        let late = promoting(Promotion::After { bytes: u64::MAX, messages: 300 });
        let (mut client, mut server) = pair_with(&eager, &late).await;
        while !client.transport().is_smcd() {
            exchange(&mut client, &mut server, 5).await;
            exchange(&mut server, &mut client, 6).await;
        }
        promote(&mut client, &mut server).await;
    }));
}

#[test]
fn ends_meet_in_a_directory() {
    block_on(in_time(async {
        // A long path too: longer than the address of a unix socket.
        let base = std::env::temp_dir().join(format!("smcd-test-{}", std::process::id()));
        for dir in [base.join("short"), base.join("l".repeat(90))] {
            std::fs::create_dir_all(&dir).unwrap();
            let settings = || promoting(Promotion::Eager).runtime_dir(&dir);
            // What a process has left that has died.
            drop(std::os::unix::net::UnixListener::bind(base.join("left")).unwrap());
            std::fs::rename(base.join("left"), dir.join("left")).unwrap();
            let (mut client, mut server) = pair_with(&settings(), &settings()).await;
            promote(&mut client, &mut server).await;
            let names: Vec<_> =
                std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert!(names.iter().all(|name| name == "left"), "{names:?}");
        }
        std::fs::remove_dir_all(base).unwrap();
    }));
}

#[test]
fn a_socket_that_is_used_directly_stays_tcp() {
    block_on(in_time(async {
        let eager = promoting(Promotion::Eager);
        let (mut client, mut server) = pair_with(&eager, &promoting(Promotion::Eager)).await;
        let sent = client.async_io(Interest::WRITABLE, || Ok(rustix::io::write(&client, b"raw")?));
        assert_eq!(sent.await.unwrap(), 3);
        let mut got = [0; 3];
        server.read_exact(&mut got).await.unwrap();
        for i in 0..50 {
            exchange(&mut client, &mut server, i).await;
            exchange(&mut server, &mut client, i).await;
        }
        assert_eq!(client.transport(), Transport::Tcp(FallbackReason::SocketInUse));
        let (mut client, mut server) = (client.into_std().unwrap(), server);
        client.set_nonblocking(false).unwrap();
        let writer = std::thread::spawn(move || {
            io::Write::write_all(&mut client, b"std").unwrap();
        });
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"std");
        writer.join().unwrap();
    }));
}

#[test]
fn who_writes_past_the_stream_keeps_it_on_tcp() {
    block_on(in_time(async {
        let eager = promoting(Promotion::Eager);
        let (mut client, mut server) = pair_with(&eager, &promoting(Promotion::Eager)).await;
        // Without a word to the stream.
        rustix::io::write(&client, b"!").unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'!');
        for i in 0..50 {
            exchange(&mut client, &mut server, i).await;
            exchange(&mut server, &mut client, i).await;
        }
        assert_eq!(client.byte_counts().sent, 0);
        assert!(server.byte_counts().sent > 0, "the other direction is free to move");
    }));
}

#[test]
fn a_promoted_stream_has_no_descriptor_to_give_away() {
    block_on(in_time(async {
        let (client, _server) = promoted_pair().await;
        let raw = client.try_io(Interest::WRITABLE, || Ok(()));
        assert_eq!(raw.unwrap_err().kind(), io::ErrorKind::Unsupported);
        assert_eq!(client.into_std().unwrap_err().kind(), io::ErrorKind::Unsupported);
    }));
}

#[test]
fn a_stream_is_given_back_as_it_was() {
    block_on(in_time(async {
        let eager = promoting(Promotion::Eager);
        let (mut client, mut server) = pair_with(&eager, &promoting(Promotion::Eager)).await;
        // Both agree, but nobody reads.
        for byte in 0..20u8 {
            client.write_all(&[byte]).await.unwrap();
            server.write_all(&[byte]).await.unwrap();
        }
        let client = client.into_std().unwrap();
        assert_eq!(socket2::SockRef::from(&client).linger().unwrap(), None);
        let mut client = TcpStream::from_std(client).unwrap();
        client.read_exact(&mut [0; 20]).await.unwrap();
        client.write_all(b"polite").await.unwrap();
        drop(client);
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert!(got.ends_with(b"polite"));
    }));
}

#[test]
fn what_a_cork_holds_back_does_not_delay_the_switch() {
    block_on(in_time(async {
        let eager = promoting(Promotion::Eager);
        let (mut client, mut server) = pair_with(&eager, &promoting(Promotion::Eager)).await;
        let socket = socket2::SockRef::from(&client);
        socket.set_tcp_cork(true).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        let (mut written, mut taken) = (0, 0);
        while client.byte_counts().sent == 0 {
            client.write_all(b"x").await.unwrap();
            written += 1;
            taken += server.try_read(&mut [0; 64]).unwrap_or(0);
            let _ = server.try_write(b"y");
            let _ = client.try_read(&mut [0; 64]);
        }
        // The kernel lets go of it by itself after 200 ms.
        let begin = std::time::Instant::now();
        server.read_exact(&mut vec![0; written - taken]).await.unwrap();
        assert!(begin.elapsed().as_millis() < 100, "{:?}", begin.elapsed());
    }));
}

#[test]
fn a_connection_with_a_past_is_promoted() {
    block_on(in_time(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (client, server) = tokio::join!(connecting, listener.accept());
        let (mut client, mut server) = (client.unwrap(), server.unwrap().0);
        client.write_all(&pattern(0, 1000)).await.unwrap();
        server.read_exact(&mut [0; 400]).await.unwrap();
        server.write_all(b"hello").await.unwrap();
        let ours = |stream: TcpStream| {
            SmcStream::from_std_with(stream.into_std().unwrap(), &promoting(Promotion::Eager)).unwrap()
        };
        let (mut client, mut server) = (ours(client), ours(server));
        let mut rest = [0; 600];
        server.read_exact(&mut rest).await.unwrap();
        assert!(rest[..] == pattern(400, 600));
        client.read_exact(&mut [0; 5]).await.unwrap();
        promote(&mut client, &mut server).await;
    }));
}

/// A peer that reads, until it is killed.
#[test]
fn a_writer_finds_out_that_its_peer_was_killed() {
    const NAME: &str = "a_writer_finds_out_that_its_peer_was_killed";
    block_on(in_time(async {
        if let Some(addr) = role() {
            let mut peer = SmcStream::connect_with(addr, &promoting(Promotion::Eager)).await.unwrap();
            let mut buf = [0; 64];
            while peer.read(&mut buf).await.unwrap() > 0 {
                peer.write_all(b"!").await.unwrap();
            }
        }
        let listener = SmcListener::bind_with("127.0.0.1:0", promoting(Promotion::Eager)).await.unwrap();
        let mut peer = spawn(NAME, &listener.local_addr().unwrap().to_string());
        let mut stream = listener.accept().await.unwrap().0;
        while stream.byte_counts().sent == 0 {
            stream.write_all(&[0; 64]).await.unwrap();
            stream.read_u8().await.unwrap();
        }
        peer.kill().unwrap();
        peer.wait().unwrap();
        let mut written = 0;
        let error = loop {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            match stream.write(&[0; 64]).await {
                Ok(_) => written += 1,
                Err(error) => break error,
            }
        };
        assert!(written < 5, "{written} writes to nobody");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        // What the peer wrote before, then the end.
        let mut rest = Vec::new();
        assert!(stream.read_to_end(&mut rest).await.unwrap() <= 1);
    }));
}

#[test]
fn urgent_bytes_before_and_after() {
    block_on(in_time(async {
        let (mut client, mut server) = promoted_pair().await;
        client.try_send_urgent(b'!').unwrap();
        assert_eq!(server.try_recv_urgent().unwrap(), b'!');
        exchange(&mut client, &mut server, 1).await;

        let eager = promoting(Promotion::Eager);
        let (mut client, mut server) = pair_with(&eager, &promoting(Promotion::Eager)).await;
        client.try_send_urgent(b'?').unwrap();
        server.readable().await.ok();
        for i in 0..50 {
            exchange(&mut client, &mut server, i).await;
            exchange(&mut server, &mut client, i).await;
        }
        assert_eq!(client.byte_counts().sent, 0, "an urgent byte has no certain place in the stream");
    }));
}

#[test]
fn peeking_and_waiting_before_and_after() {
    block_on(in_time(async {
        let eager = promoting(Promotion::Eager);
        let (mut client, server) = pair_with(&eager, &promoting(Promotion::Eager)).await;
        for i in 0..40u8 {
            client.write_all(&[i; 10]).await.unwrap();
            let mut peeked = [0; 4];
            assert_eq!(server.peek(&mut peeked).await.unwrap(), 4);
            assert_eq!(peeked, [i; 4]);
            let mut got = Vec::new();
            while got.len() < 10 {
                server.readable().await.unwrap();
                match server.try_read_buf(&mut got) {
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            assert_eq!(got, [i; 10]);
            server.writable().await.unwrap();
            assert_eq!(server.try_write(&[i]).unwrap(), 1);
            let ready = client.ready(Interest::READABLE | Interest::WRITABLE).await.unwrap();
            assert!(ready.is_readable() || ready.is_writable());
            assert_eq!(client.read_u8().await.unwrap(), i);
        }
        assert!(client.transport().is_smcd() && server.transport().is_smcd());
    }));
}
