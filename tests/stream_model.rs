//! Random reads, writes, cancellations and half-closes against a byte queue, through the public API.

mod common;

use std::time::Duration;

use common::{
    config, in_time, pair_with, pattern, promoting, region::both_over_region, soft_ism::both_over_ism,
};
use proptest::prelude::*;
use smcd::{
    BusyPoll, Promotion, SmcConfig, SmcStream,
    smc::split_owned::{OwnedReadHalf, OwnedWriteHalf},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

/// What one task does with its half of a stream, step by step.
#[derive(Clone, Debug)]
enum Act {
    /// Reads or writes at most so many bytes.
    Move(usize),
    /// The same, given up after so many microseconds.
    Cancel(usize, u64),
    /// Writes from several pieces; a reader peeks.
    Parts(usize),
    /// Lets others work.
    Pause,
}

/// How the two ends become SMC-D, and over which device.
#[derive(Clone, Copy, Debug)]
enum Way {
    InBand,
    Promoted(Promotion),
    /// Over a region, where an end maps the buffer of the other or moves data into it, and has to be signalled.
    Region([bool; 2]),
    /// Over ISM functions in software, by this version of SMC-D.
    Ism(u8),
}

impl Way {
    fn configs(self) -> [SmcConfig; 2] {
        match self {
            Self::InBand => [config(), config()],
            Self::Promoted(when) => [promoting(when), promoting(when)],
            Self::Region(signalled) => both_over_region(signalled),
            Self::Ism(version) => both_over_ism(version),
        }
    }
}

fn act() -> impl Strategy<Value = Act> {
    let len = || prop_oneof![1usize..300, 1usize..20_000, 1usize..400_000];
    prop_oneof![
        6 => len().prop_map(Act::Move),
        3 => (len(), 0u64..300).prop_map(|(len, micros)| Act::Cancel(len, micros)),
        2 => len().prop_map(Act::Parts),
        1 => Just(Act::Pause),
    ]
}

/// Writes the pattern as the acts say, then shuts down; returns how much it was.
async fn writer(mut half: OwnedWriteHalf, acts: Vec<Act>, seed: u64) -> u64 {
    let mut at = seed;
    for act in acts {
        at += match act {
            Act::Move(len) => half.write(&pattern(at, len)).await.unwrap() as u64,
            Act::Cancel(len, micros) => {
                let data = pattern(at, len);
                let write = half.write(&data);
                // Given up: then nothing was written.
                tokio::time::timeout(Duration::from_micros(micros), write)
                    .await
                    .map_or(0, |n| n.unwrap() as u64)
            }
            Act::Parts(len) => {
                let data = pattern(at, len);
                let (head, tail) = data.split_at(len / 3);
                let parts = [std::io::IoSlice::new(head), std::io::IoSlice::new(tail)];
                half.write_vectored(&parts).await.unwrap() as u64
            }
            Act::Pause => {
                tokio::task::yield_now().await;
                0
            }
        };
    }
    half.shutdown().await.unwrap();
    at - seed
}

/// Reads as the acts say, over and over, until the end; returns how much it was.
async fn reader(mut half: OwnedReadHalf, acts: Vec<Act>, seed: u64) -> u64 {
    let mut at = seed;
    let mut buf = vec![0; 400_000];
    for act in acts.iter().cycle() {
        let n = match act {
            Act::Move(len) => Some(half.read(&mut buf[..*len]).await.unwrap()),
            Act::Cancel(len, micros) => {
                let read = half.read(&mut buf[..*len]);
                tokio::time::timeout(Duration::from_micros(*micros), read).await.ok().map(Result::unwrap)
            }
            Act::Parts(len) => {
                let stream: &SmcStream = half.as_ref();
                let n = stream.peek(&mut buf[..*len]).await.unwrap();
                assert!(buf[..n] == pattern(at, n), "peeked wrong bytes");
                None
            }
            Act::Pause => {
                tokio::task::yield_now().await;
                None
            }
        };
        match n {
            None => {}
            Some(0) => break,
            Some(n) => {
                assert!(buf[..n] == pattern(at, n), "wrong bytes at {}", at - seed);
                at += n as u64;
            }
        }
    }
    at - seed
}

fn is_unpin(_: &(impl AsyncRead + Unpin)) {}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn a_stream_is_a_byte_queue_in_each_direction(
        sizes in [14u32..21, 14u32..21],
        way in prop_oneof![
            Just(Way::InBand),
            Just(Way::Promoted(Promotion::Eager)),
            Just(Way::Promoted(Promotion::After { bytes: 100_000, messages: 5 })),
            any::<[bool; 2]>().prop_map(Way::Region),
            prop_oneof![Just(1), Just(2)].prop_map(Way::Ism),
        ],
        threads in prop_oneof![Just(1usize), Just(3)],
        how in prop_oneof![Just(BusyPoll::Adaptive), Just(BusyPoll::Off), Just(BusyPoll::For(Duration::from_micros(20)))],
        writers in [prop::collection::vec(act(), 1..40), prop::collection::vec(act(), 1..40)],
        readers in [prop::collection::vec(act(), 1..10), prop::collection::vec(act(), 1..10)],
    ) {
        let runtime = if threads == 1 {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
        } else {
            tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
        };
        runtime.block_on(async {
            let [ours, theirs] = way.configs();
            let configs = [(ours, sizes[0]), (theirs, sizes[1])]
                .map(|(config, code)| config.receive_buffer(1 << code).busy_poll(how));
            let (client, server) = pair_with(&configs[0], &configs[1]).await;
            assert!(matches!(way, Way::Promoted(_)) || client.transport().is_smcd(), "{}", client.transport());
            let [mut of_client, mut of_server] = readers;
            // So that each comes round to a step that ends the reading.
            of_client.push(Act::Move(1000));
            of_server.push(Act::Move(1000));
            let (client_read, client_write) = client.into_split();
            let (server_read, server_write) = server.into_split();
            is_unpin(&client_read);
            let [to_server, to_client] = writers;
            let tasks = [
                tokio::spawn(writer(client_write, to_server, 1)),
                tokio::spawn(reader(server_read, of_server, 1)),
                tokio::spawn(writer(server_write, to_client, 1 << 40)),
                tokio::spawn(reader(client_read, of_client, 1 << 40)),
            ];
            let mut moved = Vec::new();
            for task in tasks {
                moved.push(in_time(task).await.unwrap());
            }
            assert_eq!((moved[0], moved[2]), (moved[1], moved[3]), "lost at the end");
        });
    }
}
