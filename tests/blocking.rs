//! Streams for threads: what `std::net` promises, before and after the promotion and while it happens.
#![allow(missing_docs)]

#[path = "common/process.rs"]
mod process;
#[path = "common/settings.rs"]
mod settings;

use std::{
    io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use process::{cpu_time, pattern, role, spawn};
use settings::promoting;
use smcd::{
    FallbackReason, Handshake, Promotion, SmcConfig, Transport,
    blocking::{SmcListener, SmcStream},
};

/// Fails a test that hangs.
fn in_time<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    let runner = thread::spawn(move || {
        let result = test();
        let _ = done.send(());
        result
    });
    if let Err(mpsc::RecvTimeoutError::Timeout) = wait.recv_timeout(Duration::from_secs(30)) {
        panic!("hangs");
    }
    runner.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn pair_with(client: &SmcConfig, server: &SmcConfig) -> (SmcStream, SmcStream) {
    let listener = SmcListener::bind_with("127.0.0.1:0", server.clone()).unwrap();
    let client = SmcStream::connect_with(listener.local_addr().unwrap(), client).unwrap();
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(
        (client.local_addr().unwrap(), client.peer_addr().unwrap()),
        (peer, server.local_addr().unwrap())
    );
    (client, server)
}

fn pair(when: Promotion) -> (SmcStream, SmcStream) {
    pair_with(&promoting(when), &promoting(when))
}

/// Which way the bytes of a pair take.
const WAYS: [Promotion; 2] = [Promotion::Off, Promotion::Eager];

/// A pair by TCP for good, or one that is promoted in both directions.
fn settled(way: Promotion) -> (SmcStream, SmcStream) {
    let (mut client, mut server) = pair(way);
    if way == Promotion::Eager {
        promote(&mut client, &mut server);
    }
    (client, server)
}

fn is_switched(stream: &SmcStream) -> bool {
    let counts = stream.byte_counts();
    counts.received > 0 && counts.sent > 0
}

/// Sends messages to and fro until both directions have been switched.
fn promote(client: &mut SmcStream, server: &mut SmcStream) {
    for i in 0..200u8 {
        if is_switched(client) && is_switched(server) {
            assert!(client.transport().is_smcd() && server.transport().is_smcd());
            return;
        }
        exchange(client, server, i);
        exchange(server, client, i);
    }
    panic!("not promoted: {} and {}", client.transport(), server.transport());
}

fn exchange(from: &mut SmcStream, to: &mut SmcStream, byte: u8) {
    from.write_all(&[byte]).unwrap();
    let mut got = [0];
    to.read_exact(&mut got).unwrap();
    assert_eq!(got, [byte]);
}

fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Writes until there is no room; says how much.
fn fill(stream: &mut SmcStream) -> usize {
    stream.set_nonblocking(true).unwrap();
    let mut total = 0;
    let error = loop {
        match stream.write(&pattern(total as u64, 10_000)) {
            Ok(n) => total += n,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    total
}

/// Lets a thread that was just started get as far as to sleep, be it on the futex or in `poll`.
fn let_it_sleep(round: usize) {
    thread::sleep(Duration::from_millis([0, 1, 30][round % 3]));
}

#[test]
fn echo() {
    let small = Promotion::After { bytes: 3000, messages: 1000 };
    for way in [Promotion::Off, Promotion::Eager, small] {
        in_time(move || {
            let (mut client, mut server) = pair(way);
            let echo =
                thread::spawn(move || io::copy(&mut &server, &mut &server).map(|n| (n, server.transport())));
            let mut total = 0;
            for round in 0..300u64 {
                let sent = pattern(round, 1 + (round as usize * 37) % 500);
                client.write_all(&sent).unwrap();
                let mut got = vec![0; sent.len()];
                client.read_exact(&mut got).unwrap();
                assert_eq!(got, sent);
                total += sent.len() as u64;
            }
            assert_eq!(client.transport().is_smcd(), way != Promotion::Off);
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
            let (echoed, transport) = echo.join().unwrap().unwrap();
            assert_eq!((echoed, transport.is_smcd()), (total, way != Promotion::Off));
            server = client;
            drop(server);
        });
    }
}

/// Sends `total` bytes in pieces of all sizes, and checks what comes.
fn flood(stream: &SmcStream, total: usize, seed: usize) {
    let mut sender = stream.try_clone().unwrap();
    let mut receiver = stream.try_clone().unwrap();
    let size = move |at: usize| 1 + (at * 31 + seed) % 70_000;
    let sending = thread::spawn(move || {
        let mut at = 0;
        while at < total {
            let piece = pattern(at as u64, size(at).min(total - at));
            sender.write_all(&piece).unwrap();
            at += piece.len();
        }
    });
    let mut buf = vec![0; 70_000];
    let mut at = 0;
    while at < total {
        let room = size(at + 11).min(total - at);
        let n = receiver.read(&mut buf[..room]).unwrap();
        assert!(n > 0, "the end after {at} bytes");
        assert!(buf[..n] == pattern(at as u64, n), "wrong bytes at {at}");
        at += n;
    }
    sending.join().unwrap();
}

#[test]
fn floods_cross_the_switch() {
    let ways = [
        Promotion::Eager,
        Promotion::After { bytes: 64 * 1024, messages: u32::MAX },
        Promotion::After { bytes: 1_000_000, messages: u32::MAX },
        Promotion::Off,
    ];
    for way in ways {
        in_time(move || {
            let (client, server) = pair(way);
            let both = |round: usize| {
                thread::scope(|scope| {
                    scope.spawn(|| flood(&server, 6_000_000, round + 5));
                    flood(&client, 6_000_000, round + 77);
                });
            };
            both(0);
            // TCP holds megabytes, so that one flood may be over before the two ends have agreed.
            let enough = |round: usize| {
                way == Promotion::Off || is_switched(&client) && is_switched(&server) || round > 20
            };
            (1..).take_while(|round| !enough(*round)).for_each(both);
            let is_smcd = way != Promotion::Off;
            assert_eq!((is_switched(&client), is_switched(&server)), (is_smcd, is_smcd), "{way:?}");
        });
    }
}

#[test]
fn small_buffers() {
    in_time(|| {
        let small = promoting(Promotion::Eager).receive_buffer(16 * 1024);
        let (mut client, mut server) = pair_with(&small, &small);
        promote(&mut client, &mut server);
        let other = thread::spawn(move || flood(&server, 3_000_000, 1));
        flood(&client, 3_000_000, 2);
        other.join().unwrap();
    });
}

#[test]
fn timeouts() {
    for way in WAYS {
        in_time(move || {
            let (mut client, mut server) = settled(way);
            assert_eq!(client.read_timeout().unwrap(), None);
            assert_eq!(kind(client.set_read_timeout(Some(Duration::ZERO))), ErrorKind::InvalidInput);
            assert_eq!(kind(client.set_write_timeout(Some(Duration::ZERO))), ErrorKind::InvalidInput);
            for limit in [1, 50].map(Duration::from_millis) {
                client.set_read_timeout(Some(limit)).unwrap();
                assert_eq!(client.try_clone().unwrap().read_timeout().unwrap(), Some(limit));
                let start = Instant::now();
                assert_eq!(kind(client.read(&mut [0])), ErrorKind::WouldBlock);
                assert_eq!(kind(client.peek(&mut [0])), ErrorKind::WouldBlock);
                assert!(start.elapsed() >= limit * 2 && start.elapsed() < Duration::from_secs(5));
            }
            let limit = Duration::from_millis(30);
            client.set_write_timeout(Some(limit)).unwrap();
            assert_eq!(client.write_timeout().unwrap(), Some(limit));
            let filled = fill(&mut client);
            let start = Instant::now();
            let mut more = 0;
            let error = loop {
                match client.write(&pattern((filled + more) as u64, 1000)) {
                    Ok(n) => more += n,
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            assert!(start.elapsed() >= limit && start.elapsed() < Duration::from_secs(5));
            let mut got = vec![0; filled + more];
            server.read_exact(&mut got).unwrap();
            assert!(got == pattern(0, filled + more), "timeouts have lost something");
            exchange(&mut client, &mut server, 3);
            exchange(&mut server, &mut client, 4);
        });
    }
}

#[test]
fn a_timeout_does_not_keep_what_comes_in_time() {
    for way in WAYS {
        in_time(move || {
            let (mut client, mut server) = settled(way);
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            for round in 0..12 {
                let reader = thread::spawn(move || {
                    let mut byte = [0];
                    client.read_exact(&mut byte).unwrap();
                    (client, byte[0])
                });
                let_it_sleep(round);
                server.write_all(&[round as u8]).unwrap();
                let got;
                (client, got) = reader.join().unwrap();
                assert_eq!(got, round as u8);
            }
        });
    }
}

#[test]
fn non_blocking_mode() {
    for way in WAYS {
        in_time(move || {
            let (mut client, mut server) = settled(way);
            let clone = server.try_clone().unwrap();
            clone.set_nonblocking(true).unwrap();
            assert_eq!(kind(server.read(&mut [0])), ErrorKind::WouldBlock);
            assert_eq!(kind(server.peek(&mut [0])), ErrorKind::WouldBlock);
            let total = fill(&mut client);
            let mut got = vec![0; total];
            let mut at = 0;
            while at < total {
                match server.read(&mut got[at..]) {
                    Ok(n) => at += n,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            assert!(got == pattern(0, total));
            client.shutdown(Shutdown::Write).unwrap();
            loop {
                match server.read(&mut [0]) {
                    Ok(n) => break assert_eq!(n, 0),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            clone.set_nonblocking(false).unwrap();
            exchange(&mut server, &mut client, 1);
        });
    }
}

#[test]
fn promotion_in_non_blocking_mode() {
    in_time(|| {
        let (mut client, mut server) = pair(Promotion::Eager);
        for stream in [&client, &server] {
            stream.set_nonblocking(true).unwrap();
        }
        let send = |from: &mut SmcStream, to: &mut SmcStream| {
            assert_eq!(from.write(b"x").unwrap(), 1);
            loop {
                match to.read(&mut [0; 9]) {
                    Ok(n) => break assert_eq!(n, 1),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
        };
        while !is_switched(&client) || !is_switched(&server) {
            send(&mut client, &mut server);
            send(&mut server, &mut client);
        }
    });
}

#[test]
fn several_readers_get_each_byte_once() {
    for way in [Promotion::Off, Promotion::Eager, Promotion::After { bytes: 400, messages: 1000 }] {
        in_time(move || {
            const COUNT: u64 = 20_000;
            let (mut client, server) = pair(way);
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    let mut server = server.try_clone().unwrap();
                    thread::spawn(move || {
                        let mut got = Vec::new();
                        let mut number = [0; 8];
                        // What is sent is never torn: it comes and goes in pieces of eight.
                        while server.read(&mut number).unwrap() == number.len() {
                            got.push(u64::from_ne_bytes(number));
                        }
                        got
                    })
                })
                .collect();
            for number in 0..COUNT {
                if number < 100 || number % 5000 == 0 {
                    thread::sleep(Duration::from_micros(number * 40 % 4000));
                }
                client.write_all(&number.to_ne_bytes()).unwrap();
            }
            client.shutdown(Shutdown::Write).unwrap();
            let mut all: Vec<_> = readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..COUNT), "lost or doubled");
            assert_eq!(server.byte_counts().received > 0, way != Promotion::Off);
        });
    }
}

#[test]
fn a_reader_in_wait_is_not_stranded_by_another() {
    in_time(|| {
        let (mut client, server) = pair(Promotion::Eager);
        let blocked = server.try_clone().unwrap();
        let (say, got) = mpsc::channel();
        for mut stream in [blocked, server.try_clone().unwrap()] {
            let say = say.clone();
            thread::spawn(move || {
                let mut byte = [0];
                while stream.read(&mut byte).unwrap() > 0 {
                    say.send(byte[0]).unwrap();
                }
            });
        }
        for round in 0..200u8 {
            client.write_all(&[round]).unwrap();
            assert_eq!(got.recv().unwrap(), round);
        }
        assert!(server.byte_counts().received > 0);
        client.shutdown(Shutdown::Both).unwrap();
    });
}

#[test]
fn a_reader_asleep_on_tcp_is_not_left_there_by_another() {
    in_time(|| {
        let (mut client, mut server) = pair(Promotion::Eager);
        let mut asleep = server.try_clone().unwrap();
        let reader = thread::spawn(move || {
            let mut byte = [0];
            asleep.read_exact(&mut byte).map(|()| byte)
        });
        thread::sleep(Duration::from_millis(20));
        // The one that is asleep stays so.
        server.set_nonblocking(true).unwrap();
        for i in 0..100 {
            exchange(&mut server, &mut client, i);
            assert_eq!(kind(server.read(&mut [0])), ErrorKind::WouldBlock);
        }
        client.write_all(b"!").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), *b"!");
    });
}

#[test]
fn both_directions_wait_at_the_same_time() {
    // A reader sleeps for long while the writer waits for room now and then, each signalled on the same doorbell.
    in_time(|| {
        let small = promoting(Promotion::Eager).receive_buffer(16 * 1024);
        let (mut client, mut server) = pair_with(&small, &small);
        promote(&mut client, &mut server);
        let mut reading = client.try_clone().unwrap();
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            reading.read_to_end(&mut got).unwrap();
            got
        });
        let slow = thread::spawn(move || {
            let (mut at, mut buf) = (0, vec![0; 9000]);
            while at < 600_000 {
                thread::sleep(Duration::from_millis(if at % 2 == 0 { 5 } else { 1 }));
                let n = server.read(&mut buf).unwrap();
                assert!(buf[..n] == pattern(at, n));
                at += n as u64;
                if at % 3 == 0 {
                    server.write_all(b"x").unwrap();
                }
            }
            server.write_all(b"end").unwrap();
        });
        client.write_all(&pattern(0, 600_000)).unwrap();
        slow.join().unwrap();
        assert!(reader.join().unwrap().ends_with(b"end"));
    });
}

#[test]
fn shutting_down_wakes_readers() {
    for way in WAYS {
        for how in [Shutdown::Read, Shutdown::Both] {
            for round in 0..6 {
                in_time(move || {
                    let (client, mut server) = settled(way);
                    let readers: Vec<_> = (0..3)
                        .map(|_| {
                            let mut clone = client.try_clone().unwrap();
                            thread::spawn(move || clone.read(&mut [0; 10]))
                        })
                        .collect();
                    let_it_sleep(round);
                    let start = Instant::now();
                    client.shutdown(how).unwrap();
                    for reader in readers {
                        assert_eq!(reader.join().unwrap().unwrap(), 0);
                    }
                    assert!(start.elapsed() < Duration::from_secs(1));
                    assert_eq!((&client).read(&mut [0]).unwrap(), 0);
                    if how == Shutdown::Both {
                        assert_eq!(server.read(&mut [0]).unwrap(), 0);
                        assert_eq!(kind((&client).write(&[1])), ErrorKind::BrokenPipe);
                    }
                });
            }
        }
    }
}

#[test]
fn what_came_before_reading_was_shut_down_is_read() {
    for way in WAYS {
        in_time(move || {
            let (mut client, mut server) = settled(way);
            server.write_all(b"before").unwrap();
            thread::sleep(Duration::from_millis(20));
            client.shutdown(Shutdown::Read).unwrap();
            let mut got = [0; 9];
            assert_eq!(client.read(&mut got).unwrap(), 6);
            assert_eq!(client.read(&mut got).unwrap(), 0);
            exchange(&mut client, &mut server, 1);
        });
    }
}

#[test]
fn shutting_down_writing_wakes_writers_and_the_peer() {
    for way in WAYS {
        for round in 0..3 {
            in_time(move || {
                let (mut client, mut server) = settled(way);
                let filled = fill(&mut client);
                let mut clone = client.try_clone().unwrap();
                let writer = thread::spawn(move || clone.write_all(&[0; 10_000_000]));
                let_it_sleep(round);
                client.shutdown(Shutdown::Write).unwrap();
                assert_eq!(kind(writer.join().unwrap()), ErrorKind::BrokenPipe);
                let mut got = Vec::new();
                server.read_to_end(&mut got).unwrap();
                assert!(got.len() >= filled && got[..filled] == pattern(0, filled));
            });
        }
    }
}

#[test]
fn half_close() {
    for way in WAYS {
        in_time(move || {
            let (mut client, mut server) = settled(way);
            let other = thread::spawn(move || {
                let mut asked = Vec::new();
                server.read_to_end(&mut asked).unwrap();
                server.write_all(&asked).unwrap();
                assert_eq!(server.read(&mut [0]).unwrap(), 0, "the end stays");
            });
            client.write_all(&pattern(0, 3_000_000)).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(kind(client.write(&[1])), ErrorKind::BrokenPipe);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert!(answer == pattern(0, 3_000_000));
            other.join().unwrap();
        });
    }
}

#[test]
fn closing_with_unread_data_is_a_reset() {
    for way in WAYS {
        for round in 0..3 {
            in_time(move || {
                let (mut client, server) = settled(way);
                client.write_all(b"unread").unwrap();
                assert_eq!(server.peek(&mut [0; 9]).unwrap(), 6);
                let reader = thread::spawn(move || (kind(client.read(&mut [0])), client));
                let_it_sleep(round);
                let clone = server.try_clone().unwrap();
                drop(server);
                assert_eq!(clone.peek(&mut [0; 9]).unwrap(), 6, "open as long as there is a clone");
                drop(clone);
                let (error, mut client) = reader.join().unwrap();
                assert_eq!(error, ErrorKind::ConnectionReset);
                assert_eq!(client.read(&mut [0]).unwrap(), 0, "reported once");
            });
        }
    }
}

#[test]
fn closing_ends_the_stream_of_the_peer() {
    for way in WAYS {
        for round in 0..3 {
            in_time(move || {
                let (mut client, mut server) = settled(way);
                let reader = thread::spawn(move || {
                    let mut got = Vec::new();
                    (client.read_to_end(&mut got).map(|_| got), client)
                });
                server.write_all(b"last words").unwrap();
                let_it_sleep(round);
                drop(server);
                let (got, mut client) = reader.join().unwrap();
                assert_eq!(got.unwrap(), b"last words");
                let error = (0..100).find_map(|_| client.write(&[0; 1000]).err()).unwrap();
                assert!(
                    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
                    "{error}"
                );
            });
        }
    }
}

/// What the killed process does: gets promoted, then reads or sleeps.
#[test]
fn victim() {
    let Some(addr) = role() else { return };
    let mut stream = SmcStream::connect_with(addr, &promoting(Promotion::Eager)).unwrap();
    let mut byte = [0];
    // Until told to be still.
    while stream.read(&mut byte).unwrap() > 0 && byte[0] != b'.' {
        stream.write_all(&byte).unwrap();
    }
    thread::sleep(Duration::from_secs(60));
}

/// A promoted stream to a process that neither reads nor writes, and that process.
fn with_victim() -> (SmcStream, std::process::Child) {
    let listener = SmcListener::bind_with("127.0.0.1:0", promoting(Promotion::Eager)).unwrap();
    let child = spawn("victim", &listener.local_addr().unwrap().to_string());
    let mut stream = listener.accept().unwrap().0;
    let mut byte = [0];
    while !is_switched(&stream) {
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut byte).unwrap();
    }
    stream.write_all(b".").unwrap();
    (stream, child)
}

#[test]
fn a_blocked_reader_sees_the_peer_die() {
    if role().is_some() {
        return;
    }
    for round in 0..6 {
        in_time(move || {
            let (mut stream, mut child) = with_victim();
            let reader = thread::spawn(move || {
                let result = stream.read(&mut [0]);
                (result, Instant::now(), stream)
            });
            let_it_sleep(round);
            let start = Instant::now();
            child.kill().unwrap();
            let (result, end, mut stream) = reader.join().unwrap();
            assert!(result.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset) || end > start);
            assert!(end.saturating_duration_since(start) < Duration::from_secs(1), "not at once");
            assert!(!matches!(stream.read(&mut [0]), Ok(1..)));
            child.wait().unwrap();
        });
    }
}

#[test]
fn a_blocked_writer_sees_the_peer_die() {
    if role().is_some() {
        return;
    }
    for round in 0..6 {
        in_time(move || {
            let (mut stream, mut child) = with_victim();
            fill(&mut stream);
            let clone = stream.try_clone().unwrap();
            let writer = thread::spawn(move || (stream.write_all(&[0; 10_000_000]), Instant::now()));
            let_it_sleep(round);
            let start = Instant::now();
            child.kill().unwrap();
            let (result, end) = writer.join().unwrap();
            assert!(matches!(kind(result), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
            assert!(end.saturating_duration_since(start) < Duration::from_secs(1), "not at once");
            child.wait().unwrap();
            clone.set_nonblocking(true).unwrap();
            assert_ne!(kind((&clone).write(&[0])), ErrorKind::WouldBlock);
        });
    }
}

#[test]
fn a_writer_that_never_waits_sees_the_peer_die() {
    if role().is_some() {
        return;
    }
    in_time(|| {
        let (mut stream, mut child) = with_victim();
        child.kill().unwrap();
        child.wait().unwrap();
        let start = Instant::now();
        let error = loop {
            if let Err(error) = stream.write(&[1]) {
                break error;
            }
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        assert!(start.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn an_idle_reader_uses_no_processor_time() {
    // In a process of its own: other tests of this one are busy.
    const IDLE: &str = "idle";
    if role().is_none() {
        assert!(spawn("an_idle_reader_uses_no_processor_time", IDLE).wait().unwrap().success());
        return;
    }
    for way in WAYS {
        in_time(move || {
            let (mut client, mut server) = settled(way);
            let reader = thread::spawn(move || client.read(&mut [0]).unwrap());
            thread::sleep(Duration::from_millis(50));
            let before = cpu_time();
            thread::sleep(Duration::from_secs(1));
            let used = cpu_time() - before;
            assert!(used < Duration::from_millis(50), "{used:?}");
            server.write_all(&[1]).unwrap();
            assert_eq!(reader.join().unwrap(), 1);
        });
    }
}

#[test]
fn vectored_and_peek() {
    for way in WAYS {
        in_time(move || {
            let (mut client, mut server) = settled(way);
            let parts = [&b"ab"[..], b"", b"cdef"].map(IoSlice::new);
            assert_eq!(client.write_vectored(&parts).unwrap(), 6);
            let mut peeked = [0; 9];
            assert_eq!(server.peek(&mut peeked).unwrap(), 6);
            assert_eq!(&peeked[..6], b"abcdef");
            let (mut one, mut two, mut three) = ([0; 3], [0; 0], [0; 9]);
            let mut parts = [&mut one[..], &mut two, &mut three].map(IoSliceMut::new);
            assert_eq!(server.read_vectored(&mut parts).unwrap(), 6);
            assert_eq!((&one, &three[..3]), (b"abc", &b"def"[..]));
            assert_eq!(server.read(&mut []).unwrap(), 0);
            assert_eq!(client.write(&[]).unwrap(), 0);
            // More pieces than the kernel takes at once.
            let many = vec![IoSlice::new(b"x"); 3000];
            let n = client.write_vectored(&many).unwrap();
            assert!(n >= 1024);
            server.read_exact(&mut vec![0; n]).unwrap();
        });
    }
}

#[test]
fn from_std_in_the_middle_of_a_conversation() {
    in_time(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"how are you?").unwrap();
        server.write_all(b"fine").unwrap();
        server.read_exact(&mut [0; 4]).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(9))).unwrap();
        server.set_nonblocking(true).unwrap();
        let mut client = SmcStream::from_std_with(client, &promoting(Promotion::Eager));
        let mut server = SmcStream::from_std_with(server, &promoting(Promotion::Eager));
        assert_eq!(client.read_timeout().unwrap(), Some(Duration::from_secs(9)));
        let mut got = [0; 20];
        assert_eq!(server.read(&mut got).unwrap(), 8);
        assert_eq!(&got[..8], b"are you?");
        assert_eq!(kind(server.read(&mut got)), ErrorKind::WouldBlock);
        server.set_nonblocking(false).unwrap();
        client.read_exact(&mut got[..4]).unwrap();
        assert_eq!(&got[..4], b"fine");
        promote(&mut client, &mut server);
        assert_eq!(kind(client.into_std()), ErrorKind::Unsupported);
        drop(SmcStream::from(TcpStream::connect(listener.local_addr().unwrap()).unwrap()));
    });
}

#[test]
fn into_std_leaves_tcp_to_the_application() {
    in_time(|| {
        let (mut client, server) = pair(Promotion::After { bytes: u64::MAX, messages: u32::MAX });
        client.write_all(b"one").unwrap();
        let mut clone = server.try_clone().unwrap();
        let mut std = server.into_std().unwrap();
        std.read_exact(&mut [0; 1]).unwrap();
        clone.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(clone.transport(), Transport::Tcp(FallbackReason::SocketInUse));
        let mut other = clone.into_std().unwrap();
        other.write_all(b"2").unwrap();
        std.write_all(b"3").unwrap();
        let mut got = [0; 2];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"23");
        drop((std, other));
        assert_eq!(client.read(&mut got).unwrap(), 0);
    });
}

#[test]
fn listeners() {
    in_time(|| {
        let listener = SmcListener::bind_with("127.0.0.1:0", promoting(Promotion::Eager)).unwrap();
        let addr = listener.local_addr().unwrap();
        let clone = listener.try_clone().unwrap();
        clone.set_nonblocking(true).unwrap();
        assert_eq!(kind(listener.accept()), ErrorKind::WouldBlock);
        clone.set_nonblocking(false).unwrap();
        listener.set_ttl(33).unwrap();
        assert_eq!(clone.ttl().unwrap(), 33);
        assert!(listener.take_error().unwrap().is_none());
        let serving = thread::spawn(move || {
            for stream in listener.incoming().take(3) {
                let stream = stream.unwrap();
                io::copy(&mut &stream, &mut &stream).unwrap();
            }
        });
        for number in 0..3u8 {
            let mut client = if number == 0 {
                SmcStream::connect_timeout(&addr, Duration::from_secs(9)).unwrap()
            } else {
                // The first address is not there.
                SmcStream::connect(&["127.0.0.1:1".parse().unwrap(), addr][..]).unwrap()
            };
            client.write_all(&[number]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            client.read_to_end(&mut got).unwrap();
            assert_eq!(got, [number]);
        }
        serving.join().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(kind(SmcStream::connect(free)), ErrorKind::ConnectionRefused);
        assert_eq!(kind(SmcStream::connect_timeout(&addr, Duration::ZERO)), ErrorKind::InvalidInput);
    });
}

#[test]
fn options() {
    in_time(|| {
        let (client, server) = pair(Promotion::Off);
        client.set_nodelay(true).unwrap();
        assert!(client.nodelay().unwrap());
        client.set_ttl(44).unwrap();
        assert_eq!(client.ttl().unwrap(), 44);
        client.set_linger(Some(Duration::from_secs(2))).unwrap();
        assert_eq!(client.linger().unwrap(), Some(Duration::from_secs(2)));
        client.set_linger(None).unwrap();
        assert!(client.take_error().unwrap().is_none());
        assert_eq!(client.transport(), Transport::Tcp(FallbackReason::Disabled));
        let shown = format!("{server:?}");
        let (addr, peer) = (server.local_addr().unwrap(), client.local_addr().unwrap());
        let fd = server.as_raw_fd();
        assert_eq!(shown, format!("SmcStream {{ addr: {addr}, peer: {peer}, fd: {fd} }}"));
    });
}

#[test]
fn no_handshake_in_band() {
    let in_band = SmcConfig::new().handshake(Handshake::InBand);
    assert_eq!(kind(SmcListener::bind_with("127.0.0.1:0", in_band.clone())), ErrorKind::Unsupported);
    assert_eq!(kind(SmcStream::connect_with("127.0.0.1:1", &in_band)), ErrorKind::Unsupported);
}

#[test]
fn zero_linger_resets_by_either_way() {
    for way in WAYS {
        in_time(move || {
            let (client, mut server) = settled(way);
            client.set_linger(Some(Duration::ZERO)).unwrap();
            drop(client);
            assert_eq!(kind(server.read(&mut [0])), ErrorKind::ConnectionReset);
        });
    }
}
