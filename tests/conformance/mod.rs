//! What every DIBS device must do, written once against the trait.
//!
//! A backend runs it with [`check`], giving a way to make three devices of one fabric that reach each other: all in this
//! process, or one here and two in processes of their own ([`Remote`]).
#![allow(dead_code, unreachable_pub, unused_imports)]

mod party;
mod remote;

use std::{
    collections::HashSet,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use party::{Buffer, Party, Refusal};
pub use remote::{Remote, serve};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smcd::dibs::{Cause, Device, DeviceError, Dmb, DmbToken, Gid};

/// Three devices of one fabric that reach each other. What the owner of a DMB sees is looked at in this process.
pub struct Three {
    a: Arc<dyn Device>,
    b: Box<dyn Party>,
    c: Box<dyn Party>,
}

impl From<[Arc<dyn Device>; 3]> for Three {
    fn from([a, b, c]: [Arc<dyn Device>; 3]) -> Self {
        Self { a, b: Box::new(b), c: Box::new(c) }
    }
}

impl From<(Arc<dyn Device>, [Remote; 2])> for Three {
    fn from((a, [b, c]): (Arc<dyn Device>, [Remote; 2])) -> Self {
        Self { a, b: Box::new(b), c: Box::new(c) }
    }
}

impl Three {
    fn all(&self) -> [&dyn Party; 3] {
        [&self.a, self.b.as_ref(), self.c.as_ref()]
    }
}

const LEN: usize = 65536;

/// Runs everything.
pub fn check<T: Into<Three>>(make: impl Fn() -> T) {
    let make = || make().into();
    identities(&make());
    registration(&make());
    moving(&make());
    tokens_are_for_one_user(&make());
    signals(&make());
    blocking_waits(&make());
    unregistering(&make());
    hang_up(make());
    at_once(&make());
    let three = make();
    if three.a.supports_attach() {
        attaching(&three);
    } else {
        assert_refused(three.b.attach(three.a.gid(), DmbToken(1), LEN), &["Unsupported"]);
    }
}

fn register(owner: &Arc<dyn Device>, user: &dyn Party) -> Dmb {
    owner.register_dmb(user.gid(), LEN, None).unwrap()
}

/// By one of these errors.
fn assert_refused<T>(result: Result<T, Refusal>, names: &[&str]) {
    let refusal = result.err().expect("not refused");
    assert!(refusal.is_one_of(names), "{refusal:?} instead of {names:?}");
}

fn identities(three: &Three) {
    let all = three.all();
    assert!(all.iter().all(|device| device.fabric_id() == three.a.fabric_id()));
    assert_eq!(all.iter().map(|device| device.gid()).collect::<HashSet<_>>().len(), 3);
    for device in all {
        for peer in all {
            device.query(peer.gid()).unwrap();
        }
        let nobody = Gid::from_halves(0x0123_4567_89ab_cdef, 0);
        assert_refused(device.query(nobody), &["Unreachable"]);
        assert_refused(device.register(nobody, LEN), &["Unreachable"]);
        assert!(device.max_dmbs() > 0);
    }
}

fn registration(Three { a, b, .. }: &Three) {
    let dmbs: Vec<_> = (0..10).map(|_| register(a, b.as_ref())).collect();
    let tokens: HashSet<_> = dmbs.iter().map(|dmb| dmb.token().0).collect();
    let indexes: HashSet<_> = dmbs.iter().map(Dmb::index).collect();
    assert_eq!((tokens.len(), indexes.len()), (10, 10));
    for dmb in &dmbs {
        assert_eq!(dmb.len(), LEN);
        assert!((dmb.index() as usize) < a.max_dmbs());
        assert!(dmb.read(0, LEN).iter().all(|byte| *byte == 0), "not zeroed");
    }
    drop(dmbs);
    let mut later = (0..=a.max_dmbs()).map(|_| register(a, b.as_ref()));
    let again = later.find(|dmb| indexes.contains(&dmb.index())).expect("indexes are used again");
    assert!(!tokens.contains(&again.token().0), "tokens are not");
    drop(again);
    for len in [0, 1, 4095] {
        assert!(a.register_dmb(b.gid(), len, None).is_err());
    }
}

fn moving(Three { a, b, .. }: &Three) {
    let dmb = register(a, b.as_ref());
    let data: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
    for offset in [0, 1, 4095, LEN - data.len()] {
        b.move_data(dmb.token(), false, offset, &data).unwrap();
        assert_eq!(dmb.read(offset, data.len()), data);
    }
    b.move_data(dmb.token(), false, LEN, &[]).unwrap();
    for (offset, len) in [(LEN, 1), (LEN - 1, 2), (usize::MAX, 1), (usize::MAX - 5, 10)] {
        let refused = b.move_data(dmb.token(), false, offset, &vec![0; len]);
        // Some devices know no more than that it was refused.
        assert_refused(refused, &["OutOfRange", "StoreRefused"]);
    }
    let unknown = b.move_data(DmbToken(dmb.token().0 ^ 1), false, 0, &[1]);
    assert_refused(unknown, &["UnknownToken"]);
}

fn tokens_are_for_one_user(three: &Three) {
    let Three { a, b, c } = three;
    let dmb = register(a, b.as_ref());
    for stranger in [a as &dyn Party, c.as_ref()] {
        assert!(stranger.move_data(dmb.token(), true, 0, &[1]).is_err());
        assert!(stranger.attach(a.gid(), dmb.token(), LEN).is_err());
    }
    b.move_data(dmb.token(), false, 0, &[2]).unwrap();
    assert_eq!(dmb.read(0, 1), [2]);
}

fn is_readable(dmb: &Dmb, timeout: Duration) -> bool {
    let fd = dmb.interrupt().as_fd();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let timeout = Timespec { tv_sec: 0, tv_nsec: timeout.subsec_nanos().into() };
    poll(&mut fds, Some(&timeout)).unwrap() > 0
}

fn signals(Three { a, b, .. }: &Three) {
    for cause in Cause::ALL {
        let dmb = register(a, b.as_ref());
        dmb.interrupt().arm(cause);
        b.move_data(dmb.token(), false, 100, &[1]).unwrap();
        assert!(!is_readable(&dmb, Duration::from_millis(10)), "signalled without being told to");
        b.move_data(dmb.token(), true, 100, &[1]).unwrap();
        assert!(is_readable(&dmb, Duration::from_millis(900)), "not signalled");
        dmb.interrupt().clear();
        assert!(!is_readable(&dmb, Duration::ZERO), "not taken back");
        dmb.interrupt().arm(cause);
        b.move_data(dmb.token(), true, 100, &[1]).unwrap();
        assert!(is_readable(&dmb, Duration::from_millis(900)), "not signalled again");
    }
    // However often: no signal blocks the sender, and each arming brings one.
    let dmb = register(a, b.as_ref());
    for _ in 0..10_000 {
        dmb.interrupt().arm(Cause::Data);
        dmb.interrupt().arm(Cause::Space);
        b.move_data(dmb.token(), true, 0, &[1]).unwrap();
        assert!(is_readable(&dmb, Duration::from_millis(900)), "not signalled");
    }
}

fn blocking_waits(Three { a, b, .. }: &Three) {
    let dmb = register(a, b.as_ref());
    let interrupt = dmb.interrupt();
    assert!(
        interrupt.wait(Cause::Data, Some(Duration::ZERO), &mut || true).unwrap(),
        "there is news already"
    );
    let timed_out = interrupt.wait(Cause::Data, Some(Duration::from_millis(5)), &mut || false).unwrap();
    assert!(!timed_out, "woken by nobody");
    let token = dmb.token();
    thread::scope(|scope| {
        // Ping-pong through one byte: lost wake-ups end in the time limit.
        scope.spawn(move || {
            for round in 1..=2000u16 {
                b.move_data(token, true, 0, &round.to_ne_bytes()).unwrap();
                if round % 16 == 0 {
                    thread::yield_now();
                }
            }
        });
        let until = Instant::now() + Duration::from_secs(10);
        let read = || {
            let mut bytes = [0; 2];
            dmb.memory().read(0, &mut bytes).unwrap();
            u16::from_ne_bytes(bytes)
        };
        let mut seen = 0;
        while seen < 2000 {
            assert!(Instant::now() < until, "asleep at {seen}");
            interrupt.wait(Cause::Data, Some(Duration::from_secs(5)), &mut || read() != seen).unwrap();
            seen = read();
        }
    });
}

fn unregistering(Three { a, b, .. }: &Three) {
    let dmb = register(a, b.as_ref());
    let token = dmb.token();
    drop(dmb);
    assert!(matches!(a.unregister_dmb(token), Err(DeviceError::UnknownToken(_))));
    assert!(b.move_data(token, false, 0, &[1]).is_err());
    assert!(b.attach(a.gid(), token, LEN).is_err());
}

fn hang_up(Three { a, b, c }: Three) {
    let dmb = register(&a, b.as_ref());
    let quiet = register(&a, c.as_ref());
    b.move_data(dmb.token(), false, 0, &[1]).unwrap();
    drop(b);
    assert!(is_readable(&dmb, Duration::from_millis(900)), "the user has gone and nobody was told");
    assert!(!is_readable(&quiet, Duration::ZERO), "the other one is still there");
    assert!(dmb.interrupt().is_hung_up() && !quiet.interrupt().is_hung_up());
}

fn attaching(Three { a, b, .. }: &Three) {
    let dmb = register(a, b.as_ref());
    for (owner, token, len) in [(b.gid(), dmb.token(), LEN), (a.gid(), DmbToken(!dmb.token().0), LEN)] {
        assert!(b.attach(owner, token, len).is_err());
    }
    let remote = b.attach(a.gid(), dmb.token(), LEN).unwrap();
    assert_eq!(remote.identity(), (a.gid(), dmb.token(), LEN));
    remote.write(LEN - 5, b"hello");
    assert_eq!(dmb.read(LEN - 5, 5), b"hello");
    // Signals are suppressed unless somebody waits for them, and each arming brings one.
    for cause in Cause::ALL {
        let other = Cause::ALL.into_iter().find(|other| *other != cause).unwrap();
        let dmb = register(a, b.as_ref());
        let remote = b.attach(a.gid(), dmb.token(), LEN).unwrap();
        remote.ring(cause);
        dmb.interrupt().arm(other);
        remote.ring(cause);
        assert!(!is_readable(&dmb, Duration::from_millis(10)));
        dmb.interrupt().arm(cause);
        remote.ring(cause);
        assert!(is_readable(&dmb, Duration::from_millis(900)));
    }
    assert!(!remote.is_hung_up());
    drop(dmb);
    assert!(remote.is_hung_up(), "the owner has given it back");
    // Into memory that nobody reads, but without harm.
    remote.write(0, b"late");
    remote.ring(Cause::Data);
}

fn at_once(three: &Three) {
    let [a, b, c] = three.all();
    let moved = AtomicU32::new(0);
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for (owner, user) in [(a, b), (b, a), (a, c), (c, b)] {
            let (moved, start) = (&moved, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..200u8 {
                    let dmb = match owner.register(user.gid(), LEN) {
                        Err(refusal) if refusal.is_one_of(&["Busy"]) => continue,
                        other => other.unwrap(),
                    };
                    user.move_data(dmb.token(), true, 0, &[round]).unwrap();
                    assert_eq!(dmb.read(0, 1), [round]);
                    moved.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(moved.into_inner() > 400, "most of the time the devices were busy");
}
