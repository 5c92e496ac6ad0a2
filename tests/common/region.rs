//! Regions for tests.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
};

use smcd::{
    SmcConfig, Stack,
    dibs::region::{FabricServer, FabricSettings, FabricStop, Geometry, Liveness, REGION_FABRIC, Region},
};

use super::in_band;

/// A region in a file, gone with this.
pub struct Fabric(PathBuf);

impl Fabric {
    /// With four slots.
    pub fn new(liveness: Liveness) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("smcd-region-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let fabric = Self(std::env::temp_dir().join(name));
        let geometry = Geometry::new(32 << 20, 4, 64, REGION_FABRIC, liveness).unwrap();
        Region::create(&fabric.0, &geometry).unwrap();
        fabric
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self) -> Region {
        Region::open(&self.0).unwrap()
    }

    /// An endpoint that moves data and has to be signalled.
    pub fn join_signalled(&self) -> Region {
        Region::open_signalled(&self.0).unwrap()
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Settings for handshakes in band over this device alone.
pub fn over(device: Region) -> SmcConfig {
    in_band().stack(Stack::new(vec![Arc::new(device)]))
}

/// Settings of two ends that share a region: both map, or one or both have to be signalled.
pub fn both_over_region(signalled: [bool; 2]) -> [SmcConfig; 2] {
    let fabric = Fabric::new(Liveness::Locks);
    signalled.map(|signalled| over(if signalled { fabric.join_signalled() } else { fabric.join() }))
}

/// A server of a region of 16 MiB with 4 slots, stopped with this.
pub struct Server {
    path: PathBuf,
    stop: FabricStop,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("smcd-server-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let mut settings = FabricSettings::default();
        (settings.bytes, settings.slots, settings.entries) = (16 << 20, 4, 64);
        let mut server = FabricServer::bind(&path, &settings).unwrap();
        let stop = server.stop_handle();
        Self { path, stop, thread: Some(thread::spawn(move || server.run().unwrap())) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self) -> Region {
        Region::connect(&self.path).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}
