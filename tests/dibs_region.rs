//! The device over a shared region: conformance, and what is its own.

mod common;
mod conformance;

use std::sync::Arc;

use common::region::Fabric;
use smcd::dibs::{
    Device, DeviceError,
    region::{Liveness, Region, RegionError},
};

#[test]
fn conforms_over_a_file() {
    conformance::check(|| {
        let fabric = Fabric::new(Liveness::Locks);
        [(); 3].map(|()| Arc::new(fabric.join()) as Arc<dyn Device>)
    });
}

#[test]
fn conforms_where_all_have_to_be_signalled() {
    conformance::check(|| {
        let fabric = Fabric::new(Liveness::Locks);
        [(); 3].map(|()| Arc::new(fabric.join_signalled()) as Arc<dyn Device>)
    });
}

#[test]
fn conforms_with_heartbeats() {
    conformance::check(|| {
        let fabric = Fabric::new(Liveness::Heartbeats);
        [0, 1, 3].map(|slot| Arc::new(Region::open_slot(fabric.path(), slot).unwrap()) as Arc<dyn Device>)
    });
}

#[test]
fn slots_are_for_one_each_and_free_again() {
    let fabric = Fabric::new(Liveness::Locks);
    let mut all: Vec<_> = (0..4).map(|_| fabric.join()).collect();
    assert_eq!(all.iter().map(Region::slot).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(matches!(Region::open(fabric.path()), Err(RegionError::NoFreeSlot)));
    assert!(matches!(Region::open_slot(fabric.path(), 2), Err(RegionError::NoFreeSlot)));
    assert!(matches!(Region::open_slot(fabric.path(), 4), Err(RegionError::NoSuchSlot(4))));
    let gone = all.remove(1).gid();
    assert!(matches!(all[0].query_remote_gid(gone, None), Err(DeviceError::Unreachable(_))));
}
