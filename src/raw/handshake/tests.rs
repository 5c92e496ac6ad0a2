//! Handshakes step by step, with peers that behave and peers that do not. Those by the SMC option itself are tested with
//! preloaded programs.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    pin::pin,
    thread::{self, JoinHandle},
};

use rustix::{
    event::PollFlags,
    net::{AddressFamily, SocketType, bind, listen, socket},
};

use super::*;
use crate::{Stack, clc::DeclineCode, dibs::loopback::DmbLimits};

/// Longer than anything takes that is to come to an end by itself.
const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(50);

fn config(timeout: Duration) -> Arc<SmcConfig> {
    let stack = Stack::with_loopback(DmbLimits::default()).unwrap();
    Arc::new(SmcConfig::new().stack(stack).handshake_timeout(timeout))
}

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = listener.accept().unwrap().0;
    server.set_nonblocking(true).unwrap();
    (client, server)
}

fn wait(socket: &Kept, Waits { events, until }: Waits) {
    let left = until.map_or(LONG, |until| until.saturating_duration_since(Instant::now()));
    let left = Timespec::try_from(left.min(LONG)).unwrap();
    poll(&mut [PollFd::new(socket, events)], Some(&left)).unwrap();
}

/// Takes steps whenever it is time to, until it is over.
fn finish(handshake: &mut Handshake) -> End {
    let began = Instant::now();
    while began.elapsed() < LONG {
        if let Some(end) = handshake.step() {
            return end;
        }
        let Need { events, until } = handshake.need();
        let events = PollFlags::from_bits_truncate(events as _);
        wait(handshake.socket(), Waits { events, until });
    }
    panic!("a handshake without an end: {handshake:?}");
}

/// A client with prior knowledge, in a thread.
fn client(tcp: TcpStream) -> JoinHandle<Result<Outcome, EstablishError>> {
    thread::spawn(move || {
        let config = config(LONG);
        let (mut wire, waits) = (Stepped::new(&tcp).unwrap(), Stepped::new(&tcp).unwrap());
        wire.waits = waits.waits.clone();
        let mut ending = pin!(in_band::connect(&mut wire, &config));
        loop {
            if let Poll::Ready(outcome) = ending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return outcome;
            }
            let needed = *waits.waits();
            wait(&waits.socket, needed);
        }
    })
}

fn server(tcp: &TcpStream, timeout: Duration) -> Handshake {
    Handshake::server(tcp, &config(timeout), Client::Wanted).unwrap()
}

/// Hands on what comes, byte by byte.
fn dribble(mut from: TcpStream, mut to: TcpStream) {
    let mut byte = [0];
    while from.read(&mut byte).is_ok_and(|n| n == 1) && to.write_all(&byte).is_ok() {}
}

/// The beginning of a client's Proposal.
fn of_proposal(bytes: usize) -> Vec<u8> {
    let (tcp, mut peer) = connection();
    let client = client(tcp);
    peer.set_nonblocking(false).unwrap();
    let mut got = vec![0; bytes];
    peer.read_exact(&mut got).unwrap();
    drop(peer);
    assert!(client.join().unwrap().is_err());
    got
}

#[test]
fn both_ends_become_smcd() {
    let (tcp, accepted) = connection();
    let mut server = server(&accepted, LONG);
    assert!(server.is_due() && !server.has_begun());
    let client = client(tcp);
    assert!(matches!(finish(&mut server), End::Smcd(_)));
    assert!(server.has_begun());
    assert!(matches!(client.join().unwrap(), Ok(Outcome::Smcd(_))));
}

#[test]
fn bytes_that_come_one_by_one_are_enough() {
    let ((tcp, near), (far, accepted)) = (connection(), connection());
    near.set_nonblocking(false).unwrap();
    for stream in [&tcp, &near, &far, &accepted] {
        stream.set_nodelay(true).unwrap();
    }
    let ends = [(&near, &far), (&far, &near)].map(|(from, to)| {
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        thread::spawn(move || dribble(from, to))
    });
    let mut server = server(&accepted, LONG);
    let client = client(tcp);
    assert!(matches!(finish(&mut server), End::Smcd(_)));
    assert!(matches!(client.join().unwrap(), Ok(Outcome::Smcd(_))));
    drop((server, accepted));
    let [(), ()] = ends.map(|end| end.join().unwrap());
}

#[test]
fn who_says_nothing_is_tcp() {
    let (mut tcp, accepted) = connection();
    let mut server = server(&accepted, SHORT);
    assert!(matches!(server.give_up(), End::Tcp(FallbackReason::PeerNotSmc)), "at any time");
    let began = Instant::now();
    assert!(matches!(finish(&mut server), End::Tcp(FallbackReason::PeerNotSmc)));
    assert!(began.elapsed() >= SHORT);
    tcp.write_all(b"late").unwrap();
    accepted.set_nonblocking(false).unwrap();
    let mut got = [0; 4];
    (&accepted).read_exact(&mut got).unwrap();
    assert_eq!(&got, b"late");
}

#[test]
fn data_is_left_for_the_program() {
    // The second begins as an eyecatcher does, and ends so.
    for data in [b"GET / HTTP/1.0".as_slice(), &[0xe2, 0xd4, 0xc3]] {
        let (mut tcp, accepted) = connection();
        tcp.write_all(data).unwrap();
        let mut server = server(&accepted, SHORT);
        assert!(matches!(finish(&mut server), End::Tcp(FallbackReason::PeerNotSmc)));
        drop(tcp);
        let mut got = Vec::new();
        accepted.set_nonblocking(false).unwrap();
        (&accepted).read_to_end(&mut got).unwrap();
        assert_eq!(got, data);
    }
}

#[test]
fn half_a_proposal_is_the_end() {
    let half = of_proposal(40);
    for hangs_up in [false, true] {
        let (mut tcp, accepted) = connection();
        tcp.write_all(&half).unwrap();
        let mut server = server(&accepted, SHORT);
        assert!(server.step().is_none());
        assert!(matches!(server.give_up(), End::Broken(_)));
        let _tcp = (!hangs_up).then_some(tcp);
        assert!(matches!(finish(&mut server), End::Broken(_)));
    }
}

#[test]
fn a_client_that_is_not_wanted_any_more_is_declined() {
    let (tcp, accepted) = connection();
    let mut server = server(&accepted, LONG);
    assert!(server.step().is_none());
    assert!(server.declines(&config(LONG)));
    let client = client(tcp);
    let End::Tcp(FallbackReason::Declined(code)) = finish(&mut server) else { panic!("not declined") };
    assert!(!server.declines(&config(LONG)), "it is too late");
    let outcome = client.join().unwrap();
    assert!(
        matches!(outcome, Ok(Outcome::Tcp(FallbackReason::PeerDeclined(theirs))) if theirs == code),
        "{outcome:?}"
    );
    assert_ne!(code, DeclineCode(0));
}

#[test]
fn a_client_goes_on_without_if_the_peer_has_not_sent_the_option() {
    let (tcp, _accepted) = connection();
    let mut handshake = Handshake::client(&tcp, &config(LONG), tcp.peer_addr().unwrap()).unwrap();
    assert!(!handshake.is_due());
    handshake.is_connecting();
    let end = finish(&mut handshake);
    assert!(
        matches!(end, End::Plain(FallbackReason::PeerNotSmc | FallbackReason::OptionUnavailable)),
        "a socket that has not asked"
    );
}

#[test]
fn a_client_that_is_refused_learns_it_from_the_socket() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let mut handshake = Handshake::client(&socket, &config(LONG), closed).unwrap();
    handshake.is_connecting();
    let _ = connect(&socket, &closed);
    assert!(matches!(finish(&mut handshake), End::Plain(FallbackReason::NotYet)));
}

#[test]
fn the_timer_fires_when_it_is_time_for_a_step() {
    let (_tcp, accepted) = connection();
    let mut server = server(&accepted, SHORT);
    assert!(server.step().is_none());
    let timer = server.timer().unwrap();
    let long = Timespec::try_from(LONG).unwrap();
    assert_eq!(poll(&mut [PollFd::new(&*timer, PollFlags::IN)], Some(&long)), Ok(1));
    assert!(matches!(server.step(), Some(End::Tcp(FallbackReason::PeerNotSmc))));
}

/// Others wait for the locks that are held during a step.
#[test]
fn connecting_anew_waits_for_nobody() {
    let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
    let listener = socket(family, kind, None).unwrap();
    bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen(&listener, 0).unwrap();
    let listener = TcpListener::from(listener);
    let addr = listener.local_addr().unwrap();
    // There is room for one that is not accepted.
    let first = TcpStream::connect(addr).unwrap();
    for is_nonblocking in [true, false] {
        let tcp = TcpStream::from(socket(family, kind, None).unwrap());
        tcp.set_nonblocking(is_nonblocking).unwrap();
        let wire = Stepped::new(&tcp).unwrap();
        let began = Instant::now();
        let begun = wire.begin_to_connect(addr);
        let mut end = pin!(wire.as_it_waits(begun));
        let mut step = || end.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let first_step = step();
        assert!(began.elapsed() < SHORT);
        let flags = fcntl_getfl(&tcp).unwrap();
        assert_eq!(flags.contains(OFlags::NONBLOCK), is_nonblocking, "as the program has it");
        if is_nonblocking {
            let Poll::Ready(Err(error)) = first_step else { panic!("{first_step:?}") };
            assert_eq!(errno_of(&error), Errno::INPROGRESS.raw_os_error());
            continue;
        }
        assert!(first_step.is_pending() && wire.waits().events == PollFlags::OUT);
        // Its SYN is sent once more in a second.
        drop(listener.accept().unwrap());
        let result = loop {
            match step() {
                Poll::Ready(result) => break result,
                Poll::Pending => thread::sleep(SHORT),
            }
            assert!(began.elapsed() < LONG);
        };
        result.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), addr);
    }
    drop(first);
}

#[test]
fn who_is_refused_anew_is_told() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tcp = TcpStream::from(socket(AddressFamily::INET, SocketType::STREAM, None).unwrap());
    let wire = Stepped::new(&tcp).unwrap();
    let begun = wire.begin_to_connect(closed);
    let end = pin!(wire.as_it_waits(begun)).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Err(error)) = end else { panic!("{end:?}") };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

/// Devices have to be tended while a message is waited for, by whoever waits.
#[test]
fn a_message_is_not_waited_for_without_a_look_at_the_devices() {
    let (mut tcp, accepted) = connection();
    tcp.write_all(&of_proposal(40)).unwrap();
    let mut server = server(&accepted, LONG);
    for _ in 0..3 {
        assert!(server.step().is_none());
        let until = server.need().until.unwrap();
        assert!(until <= Instant::now() + TENDING);
        thread::sleep(TENDING);
    }
}
