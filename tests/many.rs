//! Thousands of connections at once between two processes, under a descriptor limit of 16,384.

mod common;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{block_on, cpu_time, descriptors, in_time, role, spawn};
use rustix::process::{Resource, Rlimit, setrlimit};
use smcd::{SmcConfig, SmcListener, SmcStream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
    task::JoinSet,
};

const DESCRIPTORS: u64 = 16_384;

/// What an end may use while nothing happens for [`REST`].
const MOST: Duration = Duration::from_millis(50);
const REST: Duration = Duration::from_secs(2);

/// The tests of this file count the processor time and the descriptors of their process.
static ALONE: Mutex<()> = Mutex::new(());

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

/// The processor time that this process takes in [`REST`], once what the last connection left to do is done.
async fn at_rest() -> Duration {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = cpu_time();
    tokio::time::sleep(REST).await;
    cpu_time() - before
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
        let used = at_rest().await;
        assert!(used <= MOST, "{used:?} of processor time while idle");
        // Until the server says that it is done.
        streams[0].read_to_end(&mut Vec::new()).await.unwrap();
    });
}

fn many(way: Way) {
    if role().is_some() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    limit_descriptors();
    block_on(async {
        let listener = SmcListener::bind_with("127.0.0.1:0", way.config()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut crowd = spawn("crowd", &format!("{addr} {}", way.name()));
        let mut all = JoinSet::new();
        let (asleep, awake) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        for _ in 0..way.connections() {
            let (mut stream, _) = in_time(listener.accept()).await.unwrap();
            let (asleep, awake) = (Arc::clone(&asleep), Arc::clone(&awake));
            all.spawn(async move {
                for _ in 0..way.messages() {
                    let question = stream.read_u64().await.unwrap();
                    stream.write_u64(!question).await.unwrap();
                }
                assert_moved(&stream);
                asleep.fetch_add(1, Ordering::Relaxed);
                // From here on each end is asleep in a read.
                tokio::select! {
                    read = stream.read_u8() => panic!("read {read:?}"),
                    _ = awake.acquire() => stream,
                }
            });
        }
        let since = Instant::now();
        while asleep.load(Ordering::Relaxed) < way.connections() {
            assert!(since.elapsed() < Duration::from_secs(120), "{asleep:?} have come to rest");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("{} descriptors for {} connections", descriptors(), way.connections());
        let used = at_rest().await;
        assert!(used <= MOST, "{used:?} of processor time while idle");
        // The client has not rested as long as this end yet.
        tokio::time::sleep(REST).await;
        awake.close();
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
