//! What every DIBS device must do, written once against the trait.
//!
//! A backend runs it with [`check`], giving a way to make three devices of one fabric that reach each other.
#![allow(unreachable_pub)]

use std::{
    collections::HashSet,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smcd::dibs::{Cause, Device, DeviceError, Dmb, DmbToken, Gid};

/// Three devices of one fabric that reach each other.
pub type Three = [Arc<dyn Device>; 3];

const LEN: usize = 65536;

/// Runs everything.
pub fn check(make: impl Fn() -> Three) {
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
    if three[0].supports_attach() {
        attaching(&three);
    } else {
        assert!(matches!(
            three[1].attach_dmb(three[0].gid(), DmbToken(1), LEN),
            Err(DeviceError::Unsupported)
        ));
    }
}

fn register(owner: &Arc<dyn Device>, user: &Arc<dyn Device>) -> Dmb {
    owner.register_dmb(user.gid(), LEN, None).unwrap()
}

fn identities([a, b, c]: &Three) {
    assert_eq!(a.fabric_id(), b.fabric_id());
    assert_eq!(HashSet::from([a.gid(), b.gid(), c.gid()]).len(), 3);
    for device in [a, b, c] {
        for peer in [a, b, c] {
            device.query_remote_gid(peer.gid(), None).unwrap();
        }
        let nobody = Gid::from_halves(0x0123_4567_89ab_cdef, 0);
        assert!(matches!(device.query_remote_gid(nobody, None), Err(DeviceError::Unreachable(_))));
        assert!(matches!(device.register_dmb(nobody, LEN, None), Err(DeviceError::Unreachable(_))));
        assert!(device.max_dmbs() > 0);
    }
}

fn registration([a, b, _]: &Three) {
    let dmbs: Vec<_> = (0..10).map(|_| register(a, b)).collect();
    let tokens: HashSet<_> = dmbs.iter().map(|dmb| dmb.token().0).collect();
    let indexes: HashSet<_> = dmbs.iter().map(Dmb::index).collect();
    assert_eq!((tokens.len(), indexes.len()), (10, 10));
    for dmb in &dmbs {
        assert_eq!(dmb.len(), LEN);
        assert!((dmb.index() as usize) < a.max_dmbs());
        let mut content = vec![1; LEN];
        dmb.memory().read(0, &mut content).unwrap();
        assert!(content.iter().all(|byte| *byte == 0), "not zeroed");
    }
    drop(dmbs);
    let again = register(a, b);
    assert!(indexes.contains(&again.index()), "indexes are used again");
    assert!(!tokens.contains(&again.token().0), "tokens are not");
    for len in [0, 1, 4095] {
        assert!(a.register_dmb(b.gid(), len, None).is_err());
    }
}

fn moving([a, b, _]: &Three) {
    let dmb = register(a, b);
    let data: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
    for offset in [0, 1, 4095, LEN - data.len()] {
        b.move_data(dmb.token(), 0, false, offset, &data).unwrap();
        let mut got = vec![0; data.len()];
        dmb.memory().read(offset, &mut got).unwrap();
        assert_eq!(got, data);
    }
    b.move_data(dmb.token(), 0, false, LEN, &[]).unwrap();
    for (offset, len) in [(LEN, 1), (LEN - 1, 2), (usize::MAX, 1), (usize::MAX - 5, 10)] {
        let refused = b.move_data(dmb.token(), 0, false, offset, &vec![0; len]);
        // Some devices know no more than that it was refused.
        let is_refused =
            matches!(refused, Err(DeviceError::OutOfRange { .. } | DeviceError::StoreRefused { .. }));
        assert!(is_refused, "{refused:?}");
    }
    let unknown = b.move_data(DmbToken(dmb.token().0 ^ 1), 0, false, 0, &[1]);
    assert!(matches!(unknown, Err(DeviceError::UnknownToken(_))));
}

fn tokens_are_for_one_user([a, b, c]: &Three) {
    let dmb = register(a, b);
    for stranger in [a, c] {
        assert!(stranger.move_data(dmb.token(), 0, true, 0, &[1]).is_err());
        assert!(stranger.attach_dmb(a.gid(), dmb.token(), LEN).is_err());
    }
    b.move_data(dmb.token(), 0, false, 0, &[2]).unwrap();
    let mut byte = [0];
    dmb.memory().read(0, &mut byte).unwrap();
    assert_eq!(byte, [2]);
}

fn is_readable(dmb: &Dmb, timeout: Duration) -> bool {
    let fd = dmb.interrupt().as_fd();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let timeout = Timespec { tv_sec: 0, tv_nsec: timeout.subsec_nanos().into() };
    poll(&mut fds, Some(&timeout)).unwrap() > 0
}

fn signals([a, b, _]: &Three) {
    for cause in Cause::ALL {
        let dmb = register(a, b);
        dmb.interrupt().arm(cause);
        b.move_data(dmb.token(), 0, false, 100, &[1]).unwrap();
        assert!(!is_readable(&dmb, Duration::from_millis(10)), "signalled without being told to");
        b.move_data(dmb.token(), 0, true, 100, &[1]).unwrap();
        assert!(is_readable(&dmb, Duration::from_millis(900)), "not signalled");
        dmb.interrupt().clear();
        assert!(!is_readable(&dmb, Duration::ZERO), "not taken back");
        dmb.interrupt().arm(cause);
        b.move_data(dmb.token(), 0, true, 100, &[1]).unwrap();
        assert!(is_readable(&dmb, Duration::from_millis(900)), "not signalled again");
    }
    // However often: no signal blocks the sender, and each arming brings one.
    let dmb = register(a, b);
    for _ in 0..10_000 {
        dmb.interrupt().arm(Cause::Data);
        dmb.interrupt().arm(Cause::Space);
        b.move_data(dmb.token(), 0, true, 0, &[1]).unwrap();
        assert!(is_readable(&dmb, Duration::from_millis(900)), "not signalled");
    }
}

fn blocking_waits([a, b, _]: &Three) {
    let dmb = register(a, b);
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
                b.move_data(token, 0, true, 0, &round.to_ne_bytes()).unwrap();
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

fn unregistering([a, b, _]: &Three) {
    let dmb = register(a, b);
    let token = dmb.token();
    drop(dmb);
    assert!(matches!(a.unregister_dmb(token), Err(DeviceError::UnknownToken(_))));
    assert!(b.move_data(token, 0, false, 0, &[1]).is_err());
    assert!(b.attach_dmb(a.gid(), token, LEN).is_err());
}

fn hang_up([a, b, c]: Three) {
    let dmb = register(&a, &b);
    let quiet = register(&a, &c);
    b.move_data(dmb.token(), 0, false, 0, &[1]).unwrap();
    drop(b);
    assert!(is_readable(&dmb, Duration::from_millis(900)), "the user has gone and nobody was told");
    assert!(!is_readable(&quiet, Duration::ZERO), "the other one is still there");
    assert!(dmb.interrupt().is_hung_up() && !quiet.interrupt().is_hung_up());
}

fn attaching([a, b, _]: &Three) {
    let dmb = register(a, b);
    for (owner, token, len) in [(b.gid(), dmb.token(), LEN), (a.gid(), DmbToken(!dmb.token().0), LEN)] {
        assert!(b.attach_dmb(owner, token, len).is_err());
    }
    let remote = b.attach_dmb(a.gid(), dmb.token(), LEN).unwrap();
    assert_eq!((remote.owner(), remote.token(), remote.len()), (a.gid(), dmb.token(), LEN));
    remote.memory().write(LEN - 5, b"hello").unwrap();
    let mut got = [0; 5];
    dmb.memory().read(LEN - 5, &mut got).unwrap();
    assert_eq!(&got, b"hello");
    // Signals are suppressed unless somebody waits for them, and each arming brings one.
    for cause in Cause::ALL {
        let other = Cause::ALL.into_iter().find(|other| *other != cause).unwrap();
        let dmb = register(a, b);
        let remote = b.attach_dmb(a.gid(), dmb.token(), LEN).unwrap();
        remote.doorbell().ring(cause);
        dmb.interrupt().arm(other);
        remote.doorbell().ring(cause);
        assert!(!is_readable(&dmb, Duration::from_millis(10)));
        dmb.interrupt().arm(cause);
        remote.doorbell().ring(cause);
        assert!(is_readable(&dmb, Duration::from_millis(900)));
    }
    assert!(!remote.doorbell().is_hung_up());
    drop(dmb);
    assert!(remote.doorbell().is_hung_up(), "the owner has given it back");
    // Into memory that nobody reads, but without harm.
    remote.memory().write(0, b"late").unwrap();
    remote.doorbell().ring(Cause::Data);
}

fn at_once([a, b, c]: &Three) {
    let moved = AtomicU32::new(0);
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for (owner, user) in [(a, b), (b, a), (a, c), (c, b)] {
            let (moved, start) = (&moved, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..200u8 {
                    let dmb = match owner.register_dmb(user.gid(), LEN, None) {
                        Err(DeviceError::Busy) => continue,
                        other => other.unwrap(),
                    };
                    user.move_data(dmb.token(), 0, true, 0, &[round]).unwrap();
                    let mut byte = [0];
                    dmb.memory().read(0, &mut byte).unwrap();
                    assert_eq!(byte, [round]);
                    moved.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(moved.into_inner() > 400, "most of the time the devices were busy");
}
