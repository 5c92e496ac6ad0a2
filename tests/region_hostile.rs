//! An endpoint of a region that writes what it likes, where it may and where it may not.

mod common;

use std::{
    fs::File,
    ops::Range,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use common::{
    in_time, pair_with, pattern,
    random::Random,
    region::{Fabric, over},
};
use smcd::{
    SmcConfig,
    dibs::{Device, Dmb, Gid, region::Liveness},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// As `LAYOUT.md` says, of the regions that these tests make.
const ENTRIES: u64 = 64;
const AREA: u64 = 4096 + ENTRIES * 256;
const BYTES: u64 = 32 << 20;

/// Control page and directory of a slot.
fn area(slot: u64) -> Range<u64> {
    8192 + slot * AREA..8192 + (slot + 1) * AREA
}

fn slice(slot: u64) -> Range<u64> {
    let start = 8192 + 4 * AREA;
    let len = (BYTES - start) / 4 / 4096 * 4096;
    start + slot * len..start + (slot + 1) * len
}

/// Where the entry of a DMB of slot 0 lies.
fn entry_of(dmb: &Dmb) -> u64 {
    area(0).start + 4096 + 256 * u64::from(dmb.index())
}

/// A number with a bias to those that mean something.
fn value(random: &mut Random, region: &File) -> u64 {
    match random.next() % 5 {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << (random.next() % 64),
        // What stands elsewhere: GIDs and tokens of others, their cursors.
        3 => {
            let mut word = [0; 8];
            let _ = region.read_at(&mut word, (random.next() % (8192 + 4 * AREA)) & !7);
            u64::from_le_bytes(word)
        }
        _ => random.next(),
    }
}

/// Writes all the time, until it is dropped.
struct Scribbler {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Scribbler {
    fn new(fabric: &Fabric, ranges: Vec<Range<u64>>) -> Self {
        let mut random = Random::new(0);
        Self::with(fabric, move |region, _| {
            let range = &ranges[random.next() as usize % ranges.len()];
            let at = (range.start + random.next() % (range.end - range.start)) & !7;
            region.write_all_at(&value(&mut random, region).to_le_bytes(), at).unwrap();
        })
    }

    /// One that rings, and sends an event, each time.
    fn drummer(fabric: &Fabric, from: u64, to: u64) -> Self {
        let said = area(from).start + 2048 + 32 * to;
        Self::with(fabric, move |region, count| {
            // *rung* and *event*.
            region.write_all_at(&(count << 32 | count & 0xffff_ffff).to_le_bytes(), said).unwrap();
        })
    }

    fn with(fabric: &Fabric, mut write: impl FnMut(&File, u64) + Send + 'static) -> Self {
        let region = File::options().read(true).write(true).open(fabric.path()).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let until = is_over.clone();
        let thread = thread::spawn(move || {
            let mut count = 0;
            while !until.load(Ordering::Relaxed) {
                count += 1;
                write(&region, count);
            }
            count
        });
        Self { is_over, thread: Some(thread) }
    }

    /// How often it has written.
    fn stop(mut self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// Sends so many bytes through a new connection and compares them; says whether that was SMC-D.
async fn connection(configs: &[SmcConfig; 2], len: usize) -> bool {
    let (mut client, mut server) = pair_with(&configs[0], &configs[1]).await;
    let is_smcd = client.transport().is_smcd();
    let mut got = vec![0; len];
    let data = pattern(7, len);
    let (sent, received) = tokio::join!(client.write_all(&data), server.read_exact(&mut got));
    sent.unwrap();
    received.unwrap();
    assert!(got == data, "wrong bytes");
    is_smcd
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_keeps_to_its_own_parts_disturbs_nobody() {
    let fabric = Fabric::new(Liveness::Locks);
    let configs = [(); 2].map(|()| over(fabric.join()));
    // The third has its slot in order, but for what it writes there.
    let third = fabric.join();
    assert_eq!(third.slot(), 2);
    let (mut client, mut server) = pair_with(&configs[0], &configs[1]).await;
    assert!(client.transport().is_smcd());
    let scribbler = Scribbler::new(&fabric, vec![area(2), slice(2)]);
    let until = Instant::now() + Duration::from_secs(3);
    let (mut at, mut got) = (0, vec![0; 50_000]);
    while Instant::now() < until {
        // A connection that is there goes on, whatever is claimed.
        let data = pattern(at, got.len());
        let both = async { tokio::join!(client.write_all(&data), server.read_exact(&mut got)) };
        let (sent, received) = in_time(both).await;
        sent.unwrap();
        received.unwrap();
        assert!(got == data, "wrong bytes at {at}");
        at += got.len() as u64;
        // Nor is a new one by TCP: that would take a GID which is claimed by chance.
        assert!(in_time(connection(&configs, 20_000)).await);
    }
    assert!(scribbler.stop() > 1000);
    drop(third);
    // And when it has gone, all is as before.
    let (client, server) = in_time(pair_with(&configs[0], &configs[1])).await;
    assert!(client.transport().is_smcd(), "{} {}", client.transport(), server.transport());
}

/// By one whose slot comes before theirs, so that it would be heard first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_stops_to_signal_disturbs_nobody() {
    let fabric = Fabric::new(Liveness::Locks);
    let first = fabric.join();
    assert_eq!(first.slot(), 0);
    let configs = [(); 2].map(|()| over(fabric.join()));
    let drummers = [1, 2].map(|to| Scribbler::drummer(&fabric, 0, to));
    for _ in 0..10 {
        assert!(in_time(connection(&configs, 20_000)).await);
    }
    assert!(drummers.into_iter().all(|drummer| drummer.stop() > 1000));
}

#[test]
fn a_gid_that_two_claim_is_nobodys() {
    let fabric = Fabric::new(Liveness::Locks);
    let (a, b, c) = (fabric.join(), fabric.join(), fabric.join());
    a.query_remote_gid(b.gid(), None).unwrap();
    let region = File::options().write(true).open(fabric.path()).unwrap();
    // The others look at an endpoint's GID once, when they find it.
    region.write_all_at(&b.gid().to_bytes(), area(2).start + 8).unwrap();
    region.write_all_at(&(0x1234_u64 << 32 | 1).to_le_bytes(), area(2).start).unwrap();
    assert!(a.query_remote_gid(b.gid(), None).is_err());
    assert!(a.register_dmb(b.gid(), 16384, None).is_err());
    drop(c);
    a.query_remote_gid(b.gid(), None).unwrap();
}

#[test]
fn a_dmb_outside_its_owners_slice_is_none() {
    let fabric = Fabric::new(Liveness::Locks);
    let (owner, user) = (fabric.join(), fabric.join());
    let region = File::options().read(true).write(true).open(fabric.path()).unwrap();
    let word = |offset: u64, value: u64| region.write_all_at(&value.to_le_bytes(), offset).unwrap();
    let (start, end) = (slice(0).start, slice(0).end);
    let places = [
        (start - 4096, 16384),
        (end - 4096, 16384),
        (end, 16384),
        (0, 16384),
        (start + 1, 16384),
        (start, 0),
        (start, 16385),
        (start, BYTES),
        (u64::MAX - 4095, 8192),
        (start, u64::MAX - 4095),
    ];
    for (offset, len) in places {
        let dmb = owner.register_dmb(user.gid(), 16384, None).unwrap();
        let entry = entry_of(&dmb);
        word(entry + 8, offset);
        word(entry + 16, len);
        assert!(user.move_data(dmb.token(), 0, true, 0, &[1]).is_err(), "{offset:#x} {len:#x}");
        let attached = user.attach_dmb(owner.gid(), dmb.token(), len as usize);
        assert!(attached.is_err(), "{offset:#x} {len:#x}");
    }
    // What was checked once is not looked at again.
    let dmb = owner.register_dmb(user.gid(), 16384, None).unwrap();
    user.move_data(dmb.token(), 0, false, 0, &[1]).unwrap();
    word(entry_of(&dmb) + 8, 0);
    word(entry_of(&dmb) + 16, BYTES);
    user.move_data(dmb.token(), 0, false, 0, &[2]).unwrap();
    assert!(user.move_data(dmb.token(), 0, false, 16384, &[2]).is_err());
    let mut byte = [0];
    dmb.memory().read(0, &mut byte).unwrap();
    assert_eq!(byte, [2]);
}

#[test]
fn a_word_that_never_ends_a_message_delays_nobody_for_ever() {
    let fabric = Fabric::new(Liveness::Locks);
    let (owner, user) = (fabric.join(), fabric.join());
    let region = File::options().read(true).write(true).open(fabric.path()).unwrap();
    let all = owner.memory_left(user.gid(), None);
    let dmb = owner.register_dmb(user.gid(), 16384, None).unwrap();
    let (entry, index) = (entry_of(&dmb), dmb.index());
    // As if the user were writing, for ever. Its memory is kept, and the next DMBs get other entries.
    let mut incarnation = [0; 4];
    region.read_exact_at(&mut incarnation, entry + 48).unwrap();
    region.write_all_at(&[0xff; 4], entry + 128).unwrap();
    region.write_all_at(&incarnation, entry + 132).unwrap();
    drop(dmb);
    let register = || owner.register_dmb(user.gid(), 16384, None).unwrap();
    let others: Vec<_> = (1..ENTRIES).map(|_| register()).collect();
    assert!(others.iter().all(|other| other.index() != index));
    assert!(owner.register_dmb(user.gid(), 16384, None).is_err());
    user.move_data(others[0].token(), 0, true, 0, &[1]).unwrap();
    assert!(user.query_remote_gid(Gid::from_halves(1, 1), None).is_err());
    drop(others);
    assert_eq!(owner.memory_left(user.gid(), None), all - 16384);
    let gid = user.gid();
    drop(user);
    let until = Instant::now() + Duration::from_secs(10);
    while owner.memory_left(gid, None) < all {
        assert!(Instant::now() < until, "not free after the user's end");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Then nobody can say what is read. But it ends, and nothing breaks that is not shared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_everywhere_kills_and_holds_up_nobody() {
    let fabric = Fabric::new(Liveness::Locks);
    let configs = [(); 2].map(|()| over(fabric.join()));
    let scribbler = Scribbler::new(&fabric, vec![0..slice(0).start, slice(0), slice(1)]);
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let (mut client, mut server) = in_time(pair_with(&configs[0], &configs[1])).await;
        let mut got = vec![0; 50_000];
        let data = pattern(1, got.len());
        let work = async { tokio::join!(client.write_all(&data), server.read_exact(&mut got)) };
        // Wrong bytes, an error, or nothing more at all: as with a peer that does what it likes.
        let _ = tokio::time::timeout(Duration::from_millis(200), work).await;
    }
    assert!(scribbler.stop() > 1000);
    let _ = in_time(pair_with(&configs[0], &configs[1])).await;
}
