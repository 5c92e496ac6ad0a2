//! Registries of any content are read without harm; what the library has written is read as it was written.

use std::{
    net::{TcpListener, TcpStream},
    os::{fd::AsFd, unix::fs::FileExt},
    process::{Command, Stdio},
};

use proptest::prelude::*;

use super::{super::layout::*, *};
use crate::{
    FallbackReason,
    clc::DeclineCode,
    observe::{
        self, Process,
        record::{Phase, Record},
        source::tests::memory,
        tally::{Meter, Tally},
    },
    unix::starting::start,
};

fn registry(words: &[(usize, u64)]) -> Source {
    let file = memory(LEN * 8, &[MAGIC_VALUE, LAYOUT_VALUE]);
    for (at, word) in words {
        file.write_all_at(&word.to_ne_bytes(), *at as u64 * 8).unwrap();
    }
    Source::new(file).unwrap()
}

#[test]
fn an_empty_registry() {
    let snapshot = Snapshot::read(&registry(&[])).unwrap();
    assert_eq!(snapshot.totals, Totals::default());
    assert!(snapshot.connections.is_empty());
}

#[test]
fn a_record_that_is_never_finished_is_left_out() {
    let record = |number: usize, at: usize| RECORDS_AT + number * RECORD_WORDS + at;
    let words = [
        (FRESH, u64::MAX),
        (FOLDS_BEGUN, 1),
        (record(0, field::SEQ), 3),
        (record(0, field::SINCE), 1),
        (record(1, field::SEQ), 4),
        (record(1, field::SINCE), 1),
        (record(RECORDS - 1, field::SEQ), 4),
        (record(RECORDS - 1, field::SINCE), 1),
        (record(2, field::SEQ), 4),
        (record(2, field::SINCE), 1),
        (record(2, field::STATUS), 9),
    ];
    assert_eq!(Snapshot::read(&registry(&words)).unwrap().connections.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The first records, and what is said about all, are whatever they are.
    #[test]
    fn nonsense_is_read_without_harm(words in proptest::collection::vec(
        prop_oneof![any::<u64>(), 0u64..20, Just(u64::MAX)], RECORDS_AT + 3 * RECORD_WORDS,
    ), fresh in prop_oneof![0u64..5, any::<u64>()]) {
        let mut words = words;
        (words[MAGIC], words[LAYOUT], words[FRESH]) = (MAGIC_VALUE, LAYOUT_VALUE, fresh);
        let source = Source::new(memory(LEN * 8, &words)).unwrap();
        let snapshot = Snapshot::read(&source).unwrap();
        prop_assert!(snapshot.connections.len() <= 3);
    }
}

fn own() -> Process {
    Process::of(std::process::id()).expect("a registry of our own")
}

fn find(cookie: u64) -> Option<Connection> {
    own().snapshot().unwrap().connections.into_iter().find(|connection| connection.cookie == cookie)
}

fn pair() -> (TcpStream, TcpStream, u64) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let cookie = rustix::net::sockopt::socket_cookie(&client).unwrap();
    (client, listener.accept().unwrap().0, cookie)
}

#[test]
fn a_record_says_what_was_written() {
    let (client, _server, cookie) = pair();
    let (tally, meter) = (Tally::new(), Meter::default());
    tally.count(Direction::Out, 100);
    let record = tally.make_record(client.as_fd()).unwrap();
    record.is_eligible(true);
    record.enter(Phase::Negotiating);
    tally.count(Direction::Out, 5000);
    let found = find(cookie).unwrap();
    assert_eq!((found.local, found.peer), (client.local_addr().unwrap(), client.peer_addr().unwrap()));
    assert_eq!((found.state, found.mode, found.eligible), (State::Negotiating, Mode::Tcp, Some(true)));
    assert_eq!((found.sent.tcp.bytes, found.sent.tcp.calls), (5100, 2));
    assert_eq!(found.reason.name, "not-yet");

    let gids = (Gid::from_bytes([1; 16]), Gid::from_bytes([2; 16]));
    tally.agree(&meter, gids, (100, 200), false);
    meter.count(Direction::In, 8);
    meter.discount(Direction::In, 8);
    meter.count(Direction::In, 70_000);
    meter.woken(Direction::Out, true);
    let found = find(cookie).unwrap();
    assert_eq!((found.state, found.mode), (State::Agreed, Mode::Smcd));
    assert_eq!((found.gid, found.peer_gid), gids);
    assert_eq!((found.receive_buffer, found.send_buffer), (100, 200));
    assert_eq!((found.received.ring.bytes, found.received.ring.calls), (70_000, 1));
    assert_eq!(found.received.sizes.iter().sum::<u64>(), 1);
    assert_eq!(found.sent.wakeups, 1);

    drop(tally);
    assert_eq!(find(cookie).unwrap().state, State::Closing);
    drop(meter);
    assert_eq!(find(cookie), None);
}

#[test]
fn the_reason_has_its_codes() {
    let (client, _server, cookie) = pair();
    let tally = Tally::new();
    tally.stay(FallbackReason::PeerDeclined(DeclineCode::NO_UEID), || client.as_fd());
    let found = find(cookie).unwrap();
    assert_eq!(found.state, State::Staying);
    assert_eq!(found.reason.to_string(), "peer-declined 0x05000000/0x03030008");
}

#[test]
fn a_connection_that_was_not_wanted_has_no_record() {
    let (client, _server, cookie) = pair();
    let other = Record::open(client.as_fd()).unwrap();
    drop(other);
    let tally = Tally::new();
    tally.stay(FallbackReason::Disabled, || client.as_fd());
    assert_eq!(find(cookie), None);
}

#[test]
fn a_program_that_is_started_does_not_get_the_registry() {
    let (client, _server, _) = pair();
    drop(Record::open(client.as_fd()));
    assert!(observe::descriptor().is_some());
    let mut child = start(Command::new("cat").stdin(Stdio::piped())).unwrap();
    assert!(Process::of(child.id()).is_none());
    drop(child.stdin.take());
    child.wait().unwrap();
}
