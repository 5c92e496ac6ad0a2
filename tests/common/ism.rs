//! ISM functions in software for tests, for the processes of this machine.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use smcd::dibs::ism::{
    Ism,
    soft::{SoftIsm, SoftIsmServer, SoftIsmSettings, SoftIsmStop},
};

use super::{role, soft_ism::fabric, spawn};

/// A directory for sockets, gone with this.
pub struct Sockets(PathBuf);

impl Sockets {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("smcd-ism-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn of(&self, function: usize) -> PathBuf {
        self.0.join(format!("function{function}"))
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Functions that this process serves.
pub struct Functions {
    pub fabric: SoftIsm,
    sockets: Sockets,
    stop: SoftIsmStop,
}

impl Functions {
    pub fn new(functions: usize) -> Self {
        let mut settings = SoftIsmSettings::default();
        settings.functions = functions;
        Self::with(&settings)
    }

    pub fn with(settings: &SoftIsmSettings) -> Self {
        let (fabric, sockets) = (SoftIsm::new(settings).unwrap(), Sockets::new());
        let server = SoftIsmServer::bind(fabric.clone(), sockets.path()).unwrap();
        let stop = server.stop_handle();
        thread::spawn(move || server.run().unwrap());
        Self { fabric, sockets, stop }
    }

    pub fn socket(&self, function: usize) -> PathBuf {
        self.sockets.of(function)
    }

    pub fn open(&self, function: usize) -> Ism {
        Ism::connect(self.socket(function)).unwrap()
    }
}

impl Drop for Functions {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

/// Three functions that another process serves: the test `serve_functions` of this binary.
pub struct Server {
    pub child: Child,
    pub sockets: Sockets,
}

impl Server {
    pub fn new() -> Self {
        let sockets = Sockets::new();
        let child = spawn("serve_functions", sockets.path().to_str().unwrap());
        until("no server", || sockets.of(2).exists());
        Self { child, sockets }
    }

    pub fn open(&self, function: usize) -> Ism {
        Ism::connect(self.sockets.of(function)).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the other process does, until it is killed.
pub fn serve_functions() {
    let Some(directory) = role() else { return };
    SoftIsmServer::bind(fabric(3), directory).unwrap().run().unwrap();
}

pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}
