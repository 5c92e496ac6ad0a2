//! Thousands of connections at once between two processes, under a descriptor limit of 16,384.

mod common;

use std::time::Duration;

use common::{block_on, cpu_time, descriptors, in_time, role, spawn};
use rustix::process::{Resource, Rlimit, setrlimit};
use smcd::{SmcConfig, SmcListener, SmcStream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

const DESCRIPTORS: u64 = 16_384;

/// How the connections of a test come to be SMC-D, and how many there are.
#[derive(Clone, Copy)]
enum Way {
    InBand,
    Promotion,
}

impl Way {
    fn parse(name: &str) -> Self {
        if name == "promotion" { Self::Promotion } else { Self::InBand }
    }

    fn name(self) -> &'static str {
        match self {
            Self::InBand => "in_band",
            Self::Promotion => "promotion",
        }
    }

    fn connections(self) -> usize {
        match self {
            Self::InBand => 2000,
            Self::Promotion => 1000,
        }
    }

    fn config(self) -> SmcConfig {
        match self {
            Self::InBand => common::in_band(),
            Self::Promotion => SmcConfig::new(),
        }
    }

    /// Messages to and fro on each connection. Enough for promotion, and then some by shared memory.
    fn messages(self) -> u32 {
        match self {
            Self::InBand => 1,
            Self::Promotion => 64,
        }
    }
}

fn limit_descriptors() {
    setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) }).unwrap();
}

/// Both directions by shared memory.
fn assert_moved(stream: &SmcStream) {
    let counts = stream.byte_counts();
    assert!(counts.sent > 0 && counts.received > 0, "{counts:?} by {}", stream.transport());
}

/// The client process: opens all connections at once, asks on each, then waits.
#[test]
fn crowd() {
    let Some(role) = role() else { return };
    let (addr, way) = role.split_once(' ').unwrap();
    let way = Way::parse(way);
    limit_descriptors();
    block_on(async {
        let mut all = JoinSet::new();
        for number in 0..way.connections() as u32 {
            let addr = addr.to_owned();
            all.spawn(async move {
                let mut stream = SmcStream::connect_with(addr, &way.config()).await.unwrap();
                for message in 0..way.messages() {
                    // No two alike, so that an answer from elsewhere would show.
                    let question = u64::from(number) << 32 | u64::from(message);
                    stream.write_u64(question).await.unwrap();
                    assert_eq!(stream.read_u64().await.unwrap(), !question);
                }
                assert_moved(&stream);
                stream
            });
        }
        let mut streams = all.join_all().await;
        let mut rest = Vec::new();
        // Until the server says that it is done; none of it takes processor time.
        let before = cpu_time();
        streams[0].read_to_end(&mut rest).await.unwrap();
        let used = cpu_time() - before;
        assert!(used <= Duration::from_millis(50), "{used:?} of processor time while idle");
    });
}

fn many(way: Way) {
    if role().is_some() {
        return;
    }
    limit_descriptors();
    block_on(async {
        let listener = SmcListener::bind_with("127.0.0.1:0", way.config()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut crowd = spawn("crowd", &format!("{addr} {}", way.name()));
        let mut all = JoinSet::new();
        for _ in 0..way.connections() {
            let (mut stream, _) = in_time(listener.accept()).await.unwrap();
            all.spawn(async move {
                for _ in 0..way.messages() {
                    let question = stream.read_u64().await.unwrap();
                    stream.write_u64(!question).await.unwrap();
                }
                assert_moved(&stream);
                // From here on each end is asleep in a read.
                tokio::select! {
                    read = stream.read_u8() => panic!("read {read:?}"),
                    () = tokio::time::sleep(Duration::from_secs(8)) => stream,
                }
            });
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        println!("{} descriptors for {} connections", descriptors(), way.connections());
        let before = cpu_time();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let used = cpu_time() - before;
        assert!(used <= Duration::from_millis(50), "{used:?} of processor time while idle");
        let mut streams = in_time(all.join_all()).await;
        for stream in &mut streams {
            stream.shutdown().await.unwrap();
        }
        assert!(tokio::task::spawn_blocking(move || crowd.wait()).await.unwrap().unwrap().success());
    });
}

#[test]
fn two_thousand_connections_work_and_idle_without_processor_time() {
    many(Way::InBand);
}

#[test]
fn a_thousand_connections_are_promoted_and_idle_without_processor_time() {
    many(Way::Promotion);
}
