use std::path::PathBuf;

use super::*;
use crate::dibs::region::layout::{Liveness, REGION_FABRIC, entry};

const LEN: usize = 16384;
/// Incarnation of nobody here.
const OTHER: u32 = 0x1234_5678;

/// An owner, and a user with a DMB of it.
struct Two {
    path: PathBuf,
    owner: Region,
    user: Region,
}

impl Two {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("smcd-{name}-{}", std::process::id()));
        let geometry = Geometry::new(1 << 20, 3, 16, REGION_FABRIC, Liveness::Locks).unwrap();
        Region::create(&path, &geometry).unwrap();
        let [owner, user] = [(); 2].map(|()| Region::open(&path).unwrap());
        Self { path, owner, user }
    }

    fn register(&self) -> Dmb {
        self.owner.register_dmb(self.user.gid(), LEN, None).unwrap()
    }

    /// What a thread of the user has found, and goes on with later.
    fn found(&self, dmb: &Dmb) -> Arc<Target> {
        self.user.0.target(&mut self.user.0.state(), dmb.token()).unwrap()
    }

    fn held(&self, index: u32) -> usize {
        self.owner.geometry().entry(0, index as usize) + entry::HELD
    }

    fn memory(&self) -> &crate::dibs::Memory {
        self.user.0.attachment.memory()
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn who_is_late_holds_nothing_and_changes_nothing() {
    let two = Two::new("late");
    let dmb = two.register();
    let (target, held) = (two.found(&dmb), two.held(dmb.index()));
    drop(dmb);
    for of_next in [0, OTHER] {
        put32(two.memory(), held, of_next);
        assert!(matches!(target.hold(two.user.clone()), Err(DeviceError::UnknownToken(_))));
        assert!(matches!(target.write(true, 0, &[1]), Err(DeviceError::UnknownToken(_))));
        assert_eq!(get32(two.memory(), held), of_next);
    }
}

#[test]
fn held_says_who_holds_a_dmb_as_long_as_it_does() {
    let two = Two::new("held");
    let dmb = two.register();
    let (target, held, own) = (two.found(&dmb), two.held(dmb.index()), two.user.0.own.incarnation);
    // Of one before us.
    put32(two.memory(), held, OTHER);
    target.write(true, 0, &[1]).unwrap();
    assert_eq!(get32(two.memory(), held), 0);
    put32(two.memory(), held, OTHER);
    let holders = [(); 2].map(|()| target.hold(two.user.clone()).unwrap());
    target.write(true, 0, &[1]).unwrap();
    let [one, other] = holders;
    drop(one);
    assert_eq!(get32(two.memory(), held), own);
    drop(other);
    assert_eq!(get32(two.memory(), held), 0);
    // What another has put there is left alone.
    let holder = target.hold(two.user.clone()).unwrap();
    put32(two.memory(), held, OTHER);
    drop(holder);
    assert_eq!(get32(two.memory(), held), OTHER);
}

#[test]
fn an_entry_is_used_again_as_late_as_can_be() {
    let two = Two::new("again");
    let indexes: Vec<_> = (0..32).map(|_| two.register().index()).collect();
    assert_eq!(indexes[..16], (0..16).collect::<Vec<_>>());
    assert_eq!(indexes[16..], indexes[..16]);
}

#[test]
fn who_sends_events_without_end_keeps_no_other_away() {
    let two = Two::new("events");
    // The first of the slots is the one that talks.
    let (ours, honest) = (&two.user, Region::open(&two.path).unwrap());
    assert_eq!((ours.slot(), honest.slot()), (1, 2));
    let said = ours.geometry().said(0, 1);
    let talk = || {
        for word in [said + said::EVENT, said + said::RUNG] {
            put32(two.memory(), word, get32(two.memory(), word).wrapping_add(1));
        }
        ours.0.look(&mut ours.0.state());
    };
    (0..100).for_each(|_| talk());
    honest.signal_event(ours.gid(), 7, 9).unwrap();
    ours.0.look(&mut ours.0.state());
    let taken = (0..3).filter_map(|_| {
        talk();
        ours.take_event()
    });
    let expected = Event::Software { from: honest.gid(), code: 7, data: 9 };
    assert!(taken.into_iter().any(|event| event == expected));
}
