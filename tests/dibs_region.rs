//! The device over a shared region: conformance, and what is its own.

mod conformance;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use smcd::dibs::{
    Device, DeviceError,
    region::{
        ConnectError, FabricServer, FabricSettings, FabricStop, Geometry, Liveness, REGION_FABRIC, Region,
        RegionError,
    },
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

/// A server at work, stopped with this.
struct Server {
    path: PathBuf,
    stop: FabricStop,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("smcd-server-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let mut settings = FabricSettings::default();
        (settings.bytes, settings.slots, settings.entries) = (16 << 20, 4, 64);
        let mut server = FabricServer::bind(&path, &settings).unwrap();
        let stop = server.stop_handle();
        Self { path, stop, thread: Some(thread::spawn(move || server.run().unwrap())) }
    }

    fn join(&self) -> Region {
        Region::connect(&self.path).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn conforms_over_ivshmem() {
    let servers = std::cell::RefCell::new(Vec::new());
    conformance::check(|| {
        let server = Server::new();
        let three = [(); 3].map(|()| Arc::new(server.join()) as Arc<dyn Device>);
        servers.borrow_mut().push(server);
        three
    });
}

#[test]
fn without_a_server_nobody_is_reached() {
    let server = Server::new();
    let [one, other] = [server.join(), server.join()];
    one.query_remote_gid(other.gid(), None).unwrap();
    let dmb = one.register_dmb(other.gid(), 65536, None).unwrap();
    let remote = other.attach_dmb(one.gid(), dmb.token(), 65536).unwrap();
    drop(server);
    let until = Instant::now() + Duration::from_secs(10);
    while !dmb.interrupt().is_hung_up() || !remote.doorbell().is_hung_up() {
        assert!(Instant::now() < until, "the end is not noticed");
        thread::sleep(Duration::from_millis(2));
    }
    assert!(matches!(one.query_remote_gid(other.gid(), None), Err(DeviceError::Unreachable(_))));
    // The memory is still there.
    remote.memory().write(0, b"nobody reads").unwrap();
}

#[test]
fn regions_of_servers_are_no_files() {
    let geometry = Geometry::new(16 << 20, 4, 64, REGION_FABRIC, Liveness::Server).unwrap();
    assert!(matches!(Region::create("/nonexistent", &geometry), Err(RegionError::OfServer)));
    assert!(matches!(Region::connect("/nonexistent"), Err(ConnectError::Connect(_))));
}
