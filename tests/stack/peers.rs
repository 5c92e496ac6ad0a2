//! A peer that falls silent, is slow, dribbles or goes, at each step of the handshake: both sides end in SMC-D, in TCP or
//! in an error, in a bounded time, and not a byte is lost.

use std::{io, sync::atomic::Ordering, time::Duration};

use smcd::{FallbackReason, SmcStackStream, clc::DeclineCode};
use tokio::{
    io::AsyncReadExt,
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::{
    harness::{exchange, reason, simulated, v4},
    relay::{Fault, Relayed, Stream, Then},
    settings::config,
};

/// Lengths of the messages of a first contact, as they follow each other on the two streams.
const PROPOSAL: usize = 224;
const ACCEPT: usize = 130;
const CONFIRM: usize = 130;

/// Three steps of six seconds each, for a client that connects twice; the server's first bytes may take six more.
const LIMIT: Duration = Duration::from_secs(25);

/// Places in a message at which something may go wrong: between messages, inside the eyecatcher, the header, the body.
fn places(stream: Stream) -> Vec<usize> {
    let starts = match stream {
        Stream::Client => vec![(0, PROPOSAL), (PROPOSAL, CONFIRM)],
        Stream::Server => vec![(0, ACCEPT)],
    };
    starts.into_iter().flat_map(|(at, len)| [0, 1, 3, 4, 7, 8, 9, len / 2, len - 1].map(|i| at + i)).collect()
}

/// How a connection has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Smcd,
    Tcp(FallbackReason),
    Error(io::ErrorKind),
}

fn end_of(result: &io::Result<SmcStackStream>) -> End {
    match result {
        Ok(stream) => reason(stream).map_or(End::Smcd, End::Tcp),
        Err(error) => End::Error(error.kind()),
    }
}

/// What became of the client, of the server on each connection, and how long the client took.
struct Outcome {
    client: End,
    servers: Vec<End>,
    took: Duration,
}

/// Plays a handshake with this fault, and then checks that what came of it can be used, or comes to its end.
async fn play(fault: Fault) -> Outcome {
    let relayed = Relayed::new(fault);
    let listener = crate::harness::Net::listen_on(&relayed.server);
    let (accepted, mut results) = mpsc::unbounded_channel();
    let server_config = config();
    tokio::spawn(async move {
        while let Ok(tcp) = listener.accept().await {
            let (accepted, config) = (accepted.clone(), server_config.clone());
            tokio::spawn(async move {
                let is_first = tcp.smc_signalled();
                let stream = SmcStackStream::accept(tcp, &config).await.map_err(io::Error::from);
                let _ = accepted.send((is_first, stream));
            });
        }
    });
    let client_config = config();
    let start = Instant::now();
    let client = timeout(LIMIT, SmcStackStream::connect(&relayed.client, v4(2), &client_config));
    let client = client.await.unwrap_or_else(|_| panic!("the client hangs: {fault:?}"));
    let took = start.elapsed();
    let mut servers = Vec::new();
    for _ in 0..relayed.connections.load(Ordering::Relaxed) {
        let next = timeout(LIMIT, results.recv()).await;
        servers.push(next.unwrap_or_else(|_| panic!("a server hangs: {fault:?}")).unwrap());
    }
    servers.sort_by_key(|(is_first, _)| !is_first);
    let mut servers: Vec<_> = servers.into_iter().map(|(_, server)| server).collect();
    let outcome = Outcome { client: end_of(&client), servers: servers.iter().map(end_of).collect(), took };
    match (client, outcome.client) {
        (Err(_), _) => {}
        (Ok(client), End::Smcd) => match servers.pop().unwrap() {
            Ok(server) => {
                assert!(server.transport().is_smcd(), "{fault:?}");
                exchange(client, server, 50_000).await;
            }
            Err(_) => comes_to_an_end(client, fault).await,
        },
        // That of the last connection. A client that declines may find that the server has gone meanwhile.
        (Ok(client), _) => match servers.pop().unwrap() {
            Ok(server) => exchange(client, server, 50_000).await,
            Err(_) => comes_to_an_end(client, fault).await,
        },
    }
    outcome
}

/// The peer of this stream has given up.
async fn comes_to_an_end(mut stream: SmcStackStream, fault: Fault) {
    let read = timeout(LIMIT, stream.read(&mut [0])).await;
    let read = read.unwrap_or_else(|_| panic!("nobody tells the client: {fault:?}"));
    assert!(matches!(read, Ok(0) | Err(_)), "{fault:?}: {read:?}");
}

/// Plays this fault at each step of the handshake.
fn at_each_step(then: Then, check: impl Fn(Fault, Outcome)) {
    for stream in [Stream::Client, Stream::Server] {
        for after in places(stream) {
            let fault = Fault { stream, after, then };
            check(fault, simulated(play(fault)));
        }
    }
}

const PLAIN: End = End::Tcp(FallbackReason::PeerNotSmc);
const ECHOED: End = End::Tcp(FallbackReason::OptionEchoed);

/// What a client comes to whose peer breaks off here: plain TCP by a second connection as long as nothing of CLC has
/// come, an error in the middle of an Accept, and SMC-D, which ends at once, after it. A server that goes right after its
/// Accept takes its buffer along, so that the client has to decline.
fn client_of_broken_off(fault: Fault, outcome: &Outcome) {
    let errors = [io::ErrorKind::TimedOut, io::ErrorKind::ConnectionReset, io::ErrorKind::InvalidData];
    let is_broken = errors.map(End::Error).contains(&outcome.client);
    let is_plain = outcome.client == ECHOED && outcome.servers.last() == Some(&PLAIN);
    let is_declined = outcome.client == End::Tcp(FallbackReason::Declined(DeclineCode::MEMORY));
    let is_expected = match (fault.stream, fault.after, fault.then) {
        (Stream::Client, PROPOSAL, Then::HangUp) => is_plain,
        (Stream::Client, PROPOSAL, Then::End) => is_declined,
        (Stream::Client, 0..PROPOSAL, _) => is_plain,
        (Stream::Client, ..) => outcome.client == End::Smcd,
        // At a byte a second, the rest of a header comes in time.
        (Stream::Server, 3..8, Then::Dribble(_)) => is_broken,
        (Stream::Server, 0..8, _) => is_plain,
        (Stream::Server, ..) => is_broken,
    };
    assert!(is_expected, "{fault:?}: {:?}, {:?}", outcome.client, outcome.servers);
}

#[test]
fn silence_at_each_step() {
    at_each_step(Then::Silence, |fault, outcome| {
        client_of_broken_off(fault, &outcome);
        assert!(outcome.took < Duration::from_secs(7), "{fault:?}: {:?}", outcome.took);
        assert!(outcome.servers.iter().all(|end| *end != End::Smcd), "{fault:?}");
    });
}

#[test]
fn hang_up_at_each_step() {
    at_each_step(Then::HangUp, |fault, outcome| {
        client_of_broken_off(fault, &outcome);
        assert!(outcome.took < Duration::from_secs(1), "{fault:?}: {:?}", outcome.took);
    });
}

#[test]
fn end_of_the_stream_at_each_step() {
    at_each_step(Then::End, |fault, outcome| {
        client_of_broken_off(fault, &outcome);
        assert!(outcome.took < Duration::from_secs(7), "{fault:?}: {:?}", outcome.took);
    });
}

#[test]
fn slow_peer_within_the_limit_becomes_smcd() {
    at_each_step(Then::Pause(Duration::from_secs(4)), |fault, outcome| {
        assert_eq!((outcome.client, outcome.servers), (End::Smcd, vec![End::Smcd]), "{fault:?}");
    });
}

#[test]
fn slow_peer_beyond_the_limit_is_as_good_as_silent() {
    at_each_step(Then::Pause(Duration::from_secs(20)), |fault, outcome| {
        client_of_broken_off(fault, &outcome);
        assert!(outcome.took < Duration::from_secs(7), "{fault:?}: {:?}", outcome.took);
        assert!(outcome.servers.iter().all(|end| *end != End::Smcd), "{fault:?}");
    });
}

#[test]
fn dribbling_peer_within_the_limit_becomes_smcd() {
    at_each_step(Then::Dribble(Duration::from_millis(10)), |fault, outcome| {
        assert_eq!((outcome.client, outcome.servers), (End::Smcd, vec![End::Smcd]), "{fault:?}");
    });
}

#[test]
fn dribbling_peer_beyond_the_limit_ends_in_tcp_or_an_error() {
    at_each_step(Then::Dribble(Duration::from_secs(1)), |fault, outcome| {
        // A byte a second brings the last few of a message in time.
        let ends_soon =
            matches!(fault.after, 223 | 353) || (fault.stream, fault.after) == (Stream::Server, 129);
        if ends_soon {
            assert_eq!(outcome.client, End::Smcd, "{fault:?}: {:?}", outcome.servers);
        } else {
            client_of_broken_off(fault, &outcome);
        }
        assert!(outcome.took < Duration::from_secs(13), "{fault:?}: {:?}", outcome.took);
    });
}
