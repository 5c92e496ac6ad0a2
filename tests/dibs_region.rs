//! The device over a shared region: conformance, and what is its own.

mod conformance;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use smcd::dibs::{
    Device, DeviceError,
    region::{Geometry, Liveness, REGION_FABRIC, Region, RegionError},
};

/// A region in a file, gone with this.
struct Fabric(PathBuf);

impl Fabric {
    fn new(liveness: Liveness) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("smcd-region-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let fabric = Self(std::env::temp_dir().join(name));
        let geometry = Geometry::new(16 << 20, 4, 64, REGION_FABRIC, liveness).unwrap();
        Region::create(&fabric.0, &geometry).unwrap();
        fabric
    }

    fn join(&self) -> Region {
        Region::open(&self.0).unwrap()
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn conforms_over_a_file() {
    conformance::check(|| {
        let fabric = Fabric::new(Liveness::Locks);
        [(); 3].map(|()| Arc::new(fabric.join()) as Arc<dyn Device>)
    });
}

#[test]
fn conforms_with_heartbeats() {
    conformance::check(|| {
        let fabric = Fabric::new(Liveness::Heartbeats);
        [0, 1, 3].map(|slot| Arc::new(Region::open_slot(&fabric.0, slot).unwrap()) as Arc<dyn Device>)
    });
}

#[test]
fn slots_are_for_one_each_and_free_again() {
    let fabric = Fabric::new(Liveness::Locks);
    let mut all: Vec<_> = (0..4).map(|_| fabric.join()).collect();
    assert_eq!(all.iter().map(Region::slot).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(matches!(Region::open(&fabric.0), Err(RegionError::NoFreeSlot)));
    assert!(matches!(Region::open_slot(&fabric.0, 2), Err(RegionError::NoFreeSlot)));
    assert!(matches!(Region::open_slot(&fabric.0, 4), Err(RegionError::NoSuchSlot(4))));
    let gone = all.remove(1).gid();
    assert!(matches!(all[0].query_remote_gid(gone, None), Err(DeviceError::Unreachable(_))));
}
