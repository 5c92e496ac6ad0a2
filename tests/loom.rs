//! The protocols of cursors, of the doorbell, and of going back to TCP under the model checker: every interleaving and
//! every reordering that the memory model allows, on the very files that the library is built from.
//!
//! A byte that is read before it was published is a data race, which loom reports. A wake-up that is lost leaves both
//! threads asleep, which loom reports as a deadlock.
#![allow(dead_code)]

/// What the files below call `crate::sync`.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

    pub(crate) fn model(test: impl Fn() + Send + Sync + 'static) {
        loom::model(test);
    }
}

#[path = "../src/smc/cdc.rs"]
mod cdc;
#[path = "../src/smc/cursor.rs"]
mod cursor;
#[path = "../src/smc/misbehaved.rs"]
#[allow(unreachable_pub)]
mod misbehaved;
#[path = "../src/dibs/parking.rs"]
mod parking;
#[path = "../src/smc/receiver.rs"]
mod receiver;
#[path = "../src/smc/returning.rs"]
mod returning;
#[path = "../src/smc/sender.rs"]
mod sender;
#[path = "../src/smc/words.rs"]
mod words;
#[path = "../src/dibs/writing.rs"]
mod writing;

use cursor::{CDC_LEN, RingLen, load};
use loom::{
    cell::UnsafeCell,
    sync::{Arc, Condvar, Mutex},
    thread,
};
use misbehaved::PeerMisbehaved;
use parking::Sleeper;
use receiver::Receiver;
use returning::Stand;
use sender::Sender;
use sync::{AtomicU32, AtomicU64, Ordering, fence};
use writing::Order;

/// Bytes in the ring: small, so that it fills and wraps soon.
const RING: usize = 2;

/// One direction of a connection: the two words, the ring, and a parking word and a bell for each side.
struct Shared {
    prod: AtomicU64,
    cons: AtomicU64,
    ring: [UnsafeCell<u8>; RING],
    want_data: AtomicU32,
    want_space: AtomicU32,
    data_bell: Bell,
    space_bell: Bell,
}

/// What a descriptor is to an event loop: a ring that is not lost if nobody sleeps yet.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    ring: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.ring.notify_one();
    }

    fn sleep(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.ring.wait(rung).unwrap();
        }
        *rung = false;
    }
}

impl Shared {
    fn new() -> Self {
        Self {
            prod: AtomicU64::new(0),
            cons: AtomicU64::new(0),
            ring: std::array::from_fn(|_| UnsafeCell::new(0)),
            want_data: AtomicU32::new(0),
            want_space: AtomicU32::new(0),
            data_bell: Bell::default(),
            space_bell: Bell::default(),
        }
    }

    fn write(&self, sender: &mut Sender, byte: u8) -> bool {
        if sender.space() == 0 {
            sender.on_cons(load(&self.cons).0).unwrap();
        }
        if sender.space() == 0 {
            return false;
        }
        let at = sender.plan(1).first.0 as usize;
        // SAFETY: loom checks that nobody else accesses the cell meanwhile; that is the test.
        self.ring[at].with_mut(|cell| unsafe { *cell = byte });
        sender.advance(1);
        self.prod.store(sender.prod().to_word([0, 0]), Ordering::Release);
        if parking::take(&self.want_data).is_some() {
            self.data_bell.ring();
        }
        true
    }

    fn read(&self, receiver: &mut Receiver) -> Option<u8> {
        if receiver.available() == 0 {
            receiver.on_prod(load(&self.prod).0).unwrap();
        }
        if receiver.available() == 0 {
            return None;
        }
        let at = receiver.plan(1).first.0 as usize;
        // SAFETY: as above.
        let byte = self.ring[at].with(|cell| unsafe { *cell });
        if receiver.consume(1) {
            self.cons.store(receiver.cons().to_word([0, 0]), Ordering::Release);
            receiver.confirmed();
            if parking::take(&self.want_space).is_some() {
                self.space_bell.ring();
            }
        }
        Some(byte)
    }
}

/// As the front ends wait: attempt, arm, attempt once more, sleep.
fn wait_for<T>(word: &AtomicU32, bell: &Bell, mut attempt: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        parking::arm(word, Sleeper::EventLoop);
        if let Some(done) = attempt() {
            parking::disarm(word);
            return done;
        }
        bell.sleep();
    }
}

#[test]
fn bytes_arrive_in_order_and_nobody_sleeps_on() {
    let mut builder = loom::model::Builder::new();
    // Three preemptions find every bug of this kind that we could think of; without a bound it takes hours.
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let ring = RingLen::of_dmb(CDC_LEN + RING).unwrap();
        let shared = Arc::new(Shared::new());
        let writer = {
            let shared = shared.clone();
            thread::spawn(move || {
                let mut sender = Sender::new(ring);
                for byte in 1..=4 {
                    wait_for(&shared.want_space, &shared.space_bell, || {
                        shared.write(&mut sender, byte).then_some(())
                    });
                }
            })
        };
        let mut receiver = Receiver::new(ring);
        for byte in 1..=4 {
            let got = wait_for(&shared.want_data, &shared.data_bell, || shared.read(&mut receiver));
            assert_eq!(got, byte);
        }
        writer.join().unwrap();
    });
}

/// How the two ends tell each other which way the bytes take, and how a writer marks its writes.
#[derive(Default)]
struct Way {
    leaving: AtomicU64,
    back: AtomicU64,
    writing: AtomicU32,
}

/// Writes as `Connection::try_write` does; false if the reader is leaving.
fn write_if_read(shared: &Shared, way: &Way, sender: &mut Sender, byte: u8) -> bool {
    // The fence is the processor's own here: the checker knows no `membarrier`, which is a fence in all threads.
    let _writing = writing::begin(&way.writing, Order::Fence);
    if way.leaving.load(Ordering::Acquire) != 0 {
        return false;
    }
    assert!(shared.write(sender, byte), "there is room");
    true
}

#[test]
fn a_writer_that_was_outwaited_writes_no_more() {
    loom::model(|| {
        let ring = RingLen::of_dmb(CDC_LEN + RING).unwrap();
        let (shared, way) = (Arc::new(Shared::new()), Arc::new(Way::default()));
        let writer = {
            let (shared, way) = (shared.clone(), way.clone());
            thread::spawn(move || {
                let mut sender = Sender::new(ring);
                (1..=2).take_while(|byte| write_if_read(&shared, &way, &mut sender, *byte)).count()
            })
        };
        way.leaving.store(1, Ordering::Release);
        fence(Ordering::SeqCst);
        while !writing::is_over(&way.writing) {
            thread::yield_now();
        }
        // That no byte is written meanwhile is for the checker to see.
        let mut receiver = Receiver::new(ring);
        let taken: Vec<u8> = std::iter::from_fn(|| shared.read(&mut receiver)).collect();
        let written = writer.join().unwrap();
        assert_eq!(taken, (1..=2).take(written).collect::<Vec<u8>>());
    });
}

#[test]
fn what_goes_by_tcp_again_comes_after_the_ring() {
    loom::model(|| {
        let ring = RingLen::of_dmb(CDC_LEN + RING).unwrap();
        let (shared, way) = (Arc::new(Shared::new()), Arc::new(Way::default()));
        let tcp = Arc::new(Mutex::new(None));
        let writer = {
            let (shared, way, tcp) = (shared.clone(), way.clone(), tcp.clone());
            thread::spawn(move || {
                let mut sender = Sender::new(ring);
                assert!(write_if_read(&shared, &way, &mut sender, 1));
                way.back.store(1, Ordering::Release);
                *tcp.lock().unwrap() = Some(2);
            })
        };
        let mut receiver = Receiver::new(ring);
        let mut got = Vec::new();
        while got.len() < 2 {
            got.extend(shared.read(&mut receiver));
            // First the flag, then the ring once more.
            let is_back = way.back.load(Ordering::Acquire) != 0;
            if let Some(byte) = shared.read(&mut receiver) {
                got.push(byte);
            } else if is_back {
                got.extend(tcp.lock().unwrap().take());
            } else if tcp.lock().unwrap().is_some() {
                // As `read_ring` has it: what TCP brings shows that the flag is there.
                assert_ne!(way.back.load(Ordering::Acquire), 0);
            }
            thread::yield_now();
        }
        assert_eq!(got, [1, 2]);
        writer.join().unwrap();
    });
}

/// Sends what is unread in the ring, as `Connection::take_back` does; the other end may have left it long ago.
fn take_back(shared: &Shared, way: &Way, returned: &AtomicU64, sender: &mut Sender, tcp: &Mutex<Vec<u8>>) {
    if way.leaving.load(Ordering::Acquire) == 0 || returning::take(returned).is_none() {
        return;
    }
    sender.on_cons(load(&shared.cons).0).unwrap();
    let (unread, mut at) = (sender.unconfirmed(), sender.cons());
    for _ in 0..unread {
        // SAFETY: as above.
        let byte = shared.ring[at.count as usize].with(|cell| unsafe { *cell });
        tcp.lock().unwrap().push(byte);
        at = at.add(sender.ring(), 1);
    }
    returning::finish(returned, unread);
}

#[test]
fn what_is_taken_back_comes_once() {
    for has_left_before in [false, true] {
        loom::model(move || {
            let ring = RingLen::of_dmb(CDC_LEN + RING).unwrap();
            let (shared, way) = (Arc::new(Shared::new()), Arc::new(Way::default()));
            let (returned, tcp) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
            way.leaving.store(has_left_before.into(), Ordering::Relaxed);
            let mut sender = Sender::new(ring);
            assert!(shared.write(&mut sender, 1) && shared.write(&mut sender, 2));
            let writer = {
                let (shared, way, returned, tcp) =
                    (shared.clone(), way.clone(), returned.clone(), tcp.clone());
                thread::spawn(move || take_back(&shared, &way, &returned, &mut sender, &tcp))
            };
            let mut receiver = Receiver::new(ring);
            let mut got = vec![shared.read(&mut receiver).unwrap()];
            shared.cons.store(receiver.cons().to_word([0, 0]), Ordering::Release);
            returning::ask(&returned, 0);
            way.leaving.store(1, Ordering::Release);
            while returning::withdraw(&returned, 0) == Stand::Taken {
                thread::yield_now();
            }
            match returning::look(&returned) {
                Stand::Nothing => got.extend(shared.read(&mut receiver)),
                Stand::Done(sent) => {
                    let tcp = tcp.lock().unwrap();
                    assert_eq!(tcp.len(), sent as usize);
                    got.extend(&*tcp);
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(got, [1, 2]);
            writer.join().unwrap();
            // What was withdrawn is not sent after all.
            let sent = u32::try_from(tcp.lock().unwrap().len()).unwrap();
            let stand = if sent == 0 { Stand::Nothing } else { Stand::Done(sent) };
            assert_eq!(returning::look(&returned), stand);
        });
    }
}
