//! Streams as a user of `TcpStream` expects them.

mod common;

use std::{
    io::{ErrorKind, IoSlice},
    time::Duration,
};

use common::{config, in_time, limited, pair, pair_with, pattern};
use smcd::{
    BusyPoll, FallbackReason, Handshake, SmcConfig, SmcListener, SmcStream, Stack, Transport,
    clc::DeclineCode, dibs::loopback::DmbLimits,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream},
};

/// Sends both ways at once and compares.
async fn exchange(a: SmcStream, b: SmcStream, len: usize) {
    let one_end = |stream: SmcStream, from: u64, expect: u64| async move {
        let (mut read, mut write) = stream.into_split();
        let send = async {
            write.write_all(&pattern(from, len)).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let receive = async {
            let mut got = Vec::new();
            read.read_to_end(&mut got).await.unwrap();
            assert!(got == pattern(expect, len));
        };
        tokio::join!(send, receive);
    };
    in_time(async { tokio::join!(one_end(a, 1, 2), one_end(b, 2, 1)) }).await;
}

#[tokio::test]
async fn bytes_go_both_ways_by_smcd() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"hello").await.unwrap();
    let mut buf = [0; 5];
    server.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"hello");
    server.write_all(b"world").await.unwrap();
    client.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"world");
    assert_eq!((client.byte_counts().sent, client.byte_counts().received), (5, 5));
    let (Transport::Smcd { gid, peer_gid, .. }, Transport::Smcd { gid: g, peer_gid: p, .. }) =
        (client.transport(), server.transport())
    else {
        panic!("not SMC-D");
    };
    assert_eq!((gid, peer_gid), (p, g));
}

#[tokio::test]
async fn both_ends_in_one_thread() {
    let (a, b) = pair().await;
    exchange(a, b, 3_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn both_ends_in_many_threads() {
    for _ in 0..10 {
        let (a, b) = pair().await;
        exchange(a, b, 1_000_000).await;
    }
}

#[tokio::test]
async fn every_buffer_size_and_way_to_wait() {
    for how in [BusyPoll::Adaptive, BusyPoll::Off, BusyPoll::For(Duration::from_micros(10))] {
        for size in [0, 16384, 65536, 1 << 20, usize::MAX] {
            let (a, b) = pair_with(&config().receive_buffer(size).busy_poll(how), &config()).await;
            assert!(a.transport().is_smcd());
            exchange(a, b, 300_000).await;
        }
    }
}

#[tokio::test]
async fn both_ends_of_the_same_stack() {
    let config = config();
    let (a, b) = pair_with(&config, &config).await;
    assert!(a.transport().is_smcd(), "{}", a.transport());
    exchange(a, b, 1_000_000).await;
}

#[tokio::test]
async fn a_second_connection_reuses_the_group() {
    let (client, server) = (config(), config());
    for _ in 0..5 {
        let (a, b) = pair_with(&client, &server).await;
        assert!(a.transport().is_smcd() && b.transport().is_smcd());
        exchange(a, b, 10_000).await;
    }
}

#[tokio::test]
async fn half_close_then_close() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"request").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(client.write_all(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut request = String::new();
    server.read_to_string(&mut request).await.unwrap();
    assert_eq!(request, "request");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    let mut answer = String::new();
    in_time(client.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "answer");
}

/// Its TCP connection has ended too, which means nothing here.
#[tokio::test]
async fn who_writes_no_more_is_written_to() {
    let (mut client, mut server) = pair().await;
    client.shutdown().await.unwrap();
    assert_eq!(in_time(server.read(&mut [0])).await.unwrap(), 0);
    let answer = vec![7; 10_000_000];
    let write = async {
        in_time(server.writable()).await.unwrap();
        server.write_all(&answer).await.unwrap();
        server.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let read = async {
        // So that there is no room for a while.
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.read_to_end(&mut got).await.unwrap();
    };
    in_time(async { tokio::join!(write, read) }).await;
    assert!(got == answer);
}

#[tokio::test]
async fn dropping_with_unread_data_resets_the_peer() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"unread").await.unwrap();
    server.write_all(b"last words").await.unwrap();
    drop(server);
    let mut got = Vec::new();
    let error = in_time(client.read_to_end(&mut got)).await.unwrap_err();
    assert_eq!((got.as_slice(), error.kind()), (&b"last words"[..], ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_sleeping_reader_and_a_sleeping_writer_wake_up_when_the_peer_closes() {
    let (client, server) = pair().await;
    let (mut read, mut write) = client.into_split();
    let reader = tokio::spawn(async move { read.read(&mut [0; 10]).await });
    let writer = tokio::spawn(async move { while write.write_all(&[0; 100_000]).await.is_ok() {} });
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(server);
    // What the writer had written was left unread.
    let error = in_time(reader).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    in_time(writer).await.unwrap();
}

#[tokio::test]
async fn vectored_writes_peek_and_attempts() {
    let (client, server) = pair().await;
    assert_eq!(server.try_read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let n =
        client.try_write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cd")]).unwrap();
    assert_eq!(n, 4);
    in_time(server.readable()).await.unwrap();
    let mut buf = [0; 3];
    assert_eq!(in_time(server.peek(&mut buf)).await.unwrap(), 3);
    assert_eq!(&buf, b"abc");
    let mut all = Vec::new();
    assert_eq!(server.try_read_buf(&mut all).unwrap(), 4);
    assert_eq!(all, b"abcd");
    let ready = in_time(server.ready(Interest::READABLE | Interest::WRITABLE)).await.unwrap();
    assert!(ready.is_writable() && !ready.is_readable());
    while client.try_write(&[0; 10_000]).is_ok() {}
    assert!(tokio::time::timeout(Duration::from_millis(20), client.writable()).await.is_err());
    while server.try_read(&mut [0; 10_000]).is_ok() {}
    in_time(client.writable()).await.unwrap();
}

#[tokio::test]
async fn of_very_many_buffers_some_are_written() {
    let by_tcp = SmcConfig::new().handshake(Handshake::Off);
    for (mut client, mut server) in [pair().await, pair_with(&by_tcp, &by_tcp).await] {
        let n = client.write_vectored(&[IoSlice::new(b"ab"); 3000]).await.unwrap();
        in_time(server.read_exact(&mut vec![0; n])).await.unwrap();
    }
}

#[tokio::test]
async fn many_tasks_wait_for_one_stream() {
    let (client, server) = pair().await;
    let server = std::sync::Arc::new(server);
    let waiters: Vec<_> = (0..10)
        .map(|_| {
            let server = server.clone();
            tokio::spawn(async move { server.readable().await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    client.try_write(b"x").unwrap();
    for waiter in waiters {
        in_time(waiter).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_cancelled_read_has_taken_nothing() {
    let (client, mut server) = pair().await;
    let mut buf = [0; 4];
    for _ in 0..100 {
        let read = server.read(&mut buf);
        assert!(tokio::time::timeout(Duration::from_micros(100), read).await.is_err());
    }
    client.try_write(b"late").unwrap();
    assert_eq!(in_time(server.read(&mut buf)).await.unwrap(), 4);
}

#[tokio::test]
async fn halves_are_reunited() {
    let (client, _server) = pair().await;
    let (other, _) = pair().await;
    let (read, write) = client.into_split();
    let (other_read, _other_write) = other.into_split();
    let error = write.reunite(other_read).unwrap_err();
    let client = read.reunite(error.1).unwrap();
    client.try_write(b"still open").unwrap();
}

#[tokio::test]
async fn urgent_bytes_by_smcd_and_by_tcp() {
    let off = SmcConfig::new().handshake(Handshake::Off);
    for (client, server) in [pair().await, pair_with(&off, &off).await] {
        client.try_write(b"normal").unwrap();
        client.try_send_urgent(b'!').unwrap();
        in_time(server.readable()).await.unwrap();
        assert_eq!(server.try_recv_urgent().unwrap(), b'!');
        assert_eq!(server.try_recv_urgent().unwrap_err().kind(), ErrorKind::InvalidInput);
        let mut buf = [0; 10];
        assert_eq!(server.try_read(&mut buf).unwrap(), 6);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_urgent_byte_that_is_next_stops_neither_end() {
    let (client, server) = pair().await;
    client.try_write(&[1; 100]).unwrap();
    client.try_send_urgent(9).unwrap();
    // The reader's buffer ends just before the urgent byte, and the writer waits until it is gone.
    let reader = tokio::spawn(async move {
        let mut read = 0;
        while read < 101 {
            server.readable().await.unwrap();
            read += server.try_read(&mut [0; 100]).unwrap_or(0);
        }
    });
    let writer = tokio::spawn(async move {
        let mut client = client;
        client.write_all(&[2]).await.unwrap();
        client
    });
    in_time(writer).await.unwrap();
    in_time(reader).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn urgent_bytes_are_told_from_others_at_any_moment() {
    const ROUNDS: usize = 20_000;
    let (client, server) = pair().await;
    let writer = tokio::task::spawn_blocking(move || {
        for _ in 0..ROUNDS {
            while client.try_write(b"abc").is_err() {}
            while client.try_send_urgent(b'X').is_err() {}
        }
        client
    });
    let reader = tokio::task::spawn_blocking(move || {
        for round in 0..ROUNDS {
            let mut normal = Vec::new();
            let mut urgent = None;
            while normal.len() < 3 || urgent.is_none() {
                if normal.len() < 3 {
                    let mut buf = [0; 3];
                    let n = server.try_read(&mut buf[normal.len()..]).unwrap_or(0);
                    let from = normal.len();
                    normal.extend_from_slice(&buf[from..from + n]);
                }
                urgent = urgent.or_else(|| server.try_recv_urgent().ok());
            }
            assert_eq!((normal.as_slice(), urgent), (&b"abc"[..], Some(b'X')), "round {round}");
            // Reading on is what passes the mark.
            let _ = server.try_read(&mut []);
        }
    });
    in_time(reader).await.unwrap();
    in_time(writer).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peek_that_is_given_up_wakes_nobody_less() {
    let (client, mut server) = pair().await;
    let (mut read, write) = client.into_split();
    let reader = tokio::spawn(async move { read.read(&mut [0; 10]).await });
    tokio::time::sleep(Duration::from_millis(30)).await;
    let mut buf = [0];
    let peek = write.as_ref().peek(&mut buf);
    assert!(tokio::time::timeout(Duration::from_millis(30), peek).await.is_err());
    server.write_all(b"x").await.unwrap();
    assert_eq!(in_time(reader).await.unwrap().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_tasks_accept() {
    let listener = std::sync::Arc::new(SmcListener::bind_with("127.0.0.1:0", config()).await.unwrap());
    let addr = listener.local_addr().unwrap();
    let first = listener.clone();
    let first = tokio::spawn(async move { first.accept().await });
    tokio::time::sleep(Duration::from_millis(30)).await;
    // One that gives up takes nothing from the other.
    assert!(tokio::time::timeout(Duration::from_millis(30), listener.accept()).await.is_err());
    let _client = in_time(SmcStream::connect_with(addr, &config())).await.unwrap();
    in_time(first).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_port_is_free_when_the_listener_is_dropped() {
    let listener = SmcListener::bind_with("127.0.0.1:0", config()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::task::yield_now().await;
    drop(listener);
    SmcListener::bind_with(addr, config()).await.unwrap();
}

#[tokio::test]
async fn a_plain_client_keeps_every_byte() {
    let listener = SmcListener::bind_with("127.0.0.1:0", config()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    // One of them begins like an eyecatcher.
    for first in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"\xe2\xd4\xc3 then something else", b"x"] {
        let mut client = TcpStream::connect(addr).await.unwrap();
        for byte in first {
            client.write_all(&[*byte]).await.unwrap();
            client.set_nodelay(true).unwrap();
        }
        client.shutdown().await.unwrap();
        let (mut server, _) = in_time(listener.accept()).await.unwrap();
        assert_eq!(server.transport(), Transport::Tcp(FallbackReason::PeerNotSmc));
        let mut got = Vec::new();
        in_time(server.read_to_end(&mut got)).await.unwrap();
        assert_eq!(got, first);
    }
}

#[tokio::test]
async fn a_plain_client_that_waits_for_the_server_is_served() {
    let config = config().detect_timeout(Duration::from_millis(30));
    let listener = SmcListener::bind_with("127.0.0.1:0", config).await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = in_time(listener.accept()).await.unwrap();
    server.write_all(b"220 ready").await.unwrap();
    let mut banner = [0; 9];
    client.read_exact(&mut banner).await.unwrap();
    client.write_all(b"EHLO").await.unwrap();
    let mut answer = [0; 4];
    in_time(server.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"EHLO");
}

#[tokio::test]
async fn a_proposal_that_comes_too_late_is_never_data() {
    let server_config = config().detect_timeout(Duration::from_millis(10));
    let listener = SmcListener::bind_with("127.0.0.1:0", server_config).await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = in_time(listener.accept()).await.unwrap();
    client.write_all(&[0xe2, 0xd4, 0xc3, 0xd9, 1, 0, 0xe0, 0x26]).await.unwrap();
    let error = in_time(server.read(&mut [0; 100])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

#[tokio::test]
async fn slow_and_silent_clients_delay_nobody() {
    let listener = SmcListener::bind_with("127.0.0.1:0", config()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut client = TcpStream::connect(addr).await.unwrap();
        // Half of them say nothing, half of them begin a Proposal and fall silent.
        if idle.len() % 2 == 0 {
            client.write_all(&[0xe2, 0xd4, 0xc3, 0xd9, 1, 0]).await.unwrap();
        }
        idle.push(client);
    }
    let start = std::time::Instant::now();
    let client_config = config();
    let (client, server) =
        in_time(async { tokio::join!(SmcStream::connect_with(addr, &client_config), listener.accept()) })
            .await;
    assert!(client.unwrap().transport().is_smcd());
    assert!(server.unwrap().0.transport().is_smcd());
    assert!(start.elapsed() < Duration::from_secs(5), "waited for the others");
}

/// Both ends end as TCP, for these reasons, and data flows.
async fn stays_tcp(
    client: &SmcConfig,
    server: &SmcConfig,
    at_client: FallbackReason,
    at_server: FallbackReason,
) {
    let (a, b) = pair_with(client, server).await;
    assert_eq!(a.transport(), Transport::Tcp(at_client));
    assert_eq!(b.transport(), Transport::Tcp(at_server));
    exchange(a, b, 500_000).await;
}

#[tokio::test]
async fn every_refusal_ends_in_tcp_with_its_reason() {
    use FallbackReason::{Declined, Disabled, PeerDeclined};
    let ueid = |text: &str| config().ueids([text.parse().unwrap()]);
    let no_device = || common::in_band().stack(Stack::new(Vec::new()));
    let code = DeclineCode::NO_SMCD_DEVICE;
    stays_tcp(&ueid("ONE"), &ueid("OTHER"), PeerDeclined(code), Declined(code)).await;
    let code = DeclineCode::NO_UEID;
    stays_tcp(&config().ueids([]), &config(), PeerDeclined(code), Declined(code)).await;
    let code = DeclineCode::NO_ISM_V2;
    stays_tcp(&config(), &no_device(), PeerDeclined(code), Declined(code)).await;
    let code = DeclineCode::NO_DEVICE;
    stays_tcp(&no_device(), &config(), Declined(code), PeerDeclined(code)).await;
    let off = config().handshake(Handshake::Off);
    stays_tcp(&off, &off, Disabled, Disabled).await;
    stays_tcp(&off, &config(), Disabled, FallbackReason::PeerNotSmc).await;
}

#[tokio::test]
async fn without_memory_for_buffers_it_stays_tcp() {
    use FallbackReason::{Declined, PeerDeclined};
    let none = |dmbs, bytes| limited(DmbLimits { dmbs, bytes, bytes_per_uid: bytes });
    let code = DeclineCode::MEMORY;
    stays_tcp(&config(), &none(100, 8192), PeerDeclined(code), Declined(code)).await;
    stays_tcp(&none(100, 8192), &config(), Declined(code), PeerDeclined(code)).await;
    let code = DeclineCode::NO_FREE_DMB;
    stays_tcp(&config(), &none(0, 1 << 30), PeerDeclined(code), Declined(code)).await;
    // A little memory: a smaller buffer is better than none, and leaves some for as many others as there may be.
    let shares = [
        (4096, 70_000, 16384),
        (4096, 100 << 20, 65536),
        (4096, 4 << 30, 1 << 20),
        (100, 100 << 20, 1 << 20),
    ];
    for (dmbs, bytes, buffer) in shares {
        let (a, b) = pair_with(&config(), &none(dmbs, bytes)).await;
        let Transport::Smcd { receive_buffer, .. } = b.transport() else { panic!("not SMC-D") };
        assert_eq!(receive_buffer, buffer - 32);
        exchange(a, b, 500_000).await;
    }
}

#[tokio::test]
async fn a_plain_server_is_an_error_with_prior_knowledge() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 plain server").await.unwrap();
        stream
    };
    let client_config = config();
    let (client, _server) =
        in_time(async { tokio::join!(SmcStream::connect_with(addr, &client_config), serve) }).await;
    assert_eq!(client.unwrap_err().kind(), ErrorKind::InvalidData);
    let quick = config().handshake_timeout(Duration::from_millis(50));
    let error = in_time(SmcStream::connect_with(addr, &quick)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[tokio::test]
async fn accept_is_cancel_safe_and_connects_need_no_accept() {
    let listener = SmcListener::bind_with("127.0.0.1:0", config()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    // As with TCP, a client is connected before anybody accepts.
    let client = in_time(SmcStream::connect_with(addr, &config())).await.unwrap();
    client.try_write(b"early").unwrap();
    for _ in 0..10 {
        let _ = tokio::time::timeout(Duration::ZERO, async { std::future::pending::<()>().await }).await;
    }
    let (server, _) = in_time(listener.accept()).await.unwrap();
    let mut buf = [0; 10];
    assert_eq!(server.try_read(&mut buf).unwrap(), 5);
}
