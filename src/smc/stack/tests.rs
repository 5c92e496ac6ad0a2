use std::{
    fs::File,
    path::PathBuf,
    sync::{atomic::AtomicBool, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::dibs::{
    Memory,
    region::{Geometry, Liveness, REGION_FABRIC},
};

const BYTES: usize = 1 << 20;

/// What the endpoint of a slot says to another, of regions with 16 entries.
const fn said(from: usize, to: usize) -> usize {
    8192 + from * (4096 + 16 * 256) + 2048 + 32 * to
}

fn region(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("smcd-{name}-{}", std::process::id()));
    let geometry = Geometry::new(BYTES, 3, 16, REGION_FABRIC, Liveness::Locks).unwrap();
    Region::create(&path, &geometry).unwrap();
    path
}

/// Sends events from slot 0 to slot 1 until it is told to end, as fast as memory takes them.
fn flood(path: &PathBuf, until: &AtomicBool) {
    let memory = Memory::map(File::options().read(true).write(true).open(path).unwrap(), BYTES).unwrap();
    let word = |at| memory.word32(said(0, 1) + at).unwrap();
    let (rung, event) = (word(0), word(4));
    while !until.load(Ordering::Relaxed) {
        event.fetch_add(1, Ordering::Relaxed);
        rung.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn who_sends_events_without_end_holds_up_nobody() {
    let path = region("flood");
    let [hostile, ours, honest] = [(); 3].map(|()| Region::open(&path).unwrap());
    assert_eq!((hostile.slot(), ours.slot()), (0, 1));
    let stack = Stack::new(vec![Arc::new(ours.clone())]);
    let (until, (done, is_done)) = (AtomicBool::new(false), mpsc::channel());
    thread::scope(|scope| {
        scope.spawn(|| flood(&path, &until));
        let [r0, r1] = 1u16.to_ne_bytes();
        let request = u64::from_ne_bytes([0, 0, 0, 0, 0, 0, r0, r1]);
        honest.signal_event(ours.gid(), 0x83, request).unwrap();
        let start = Instant::now();
        let honest = &honest;
        scope.spawn(move || {
            // The one of the honest is found among the others, and answered.
            while honest.take_event().is_none() && start.elapsed() < Duration::from_secs(20) {
                stack.tend();
            }
            let _ = done.send(start.elapsed());
        });
        let took = is_done.recv_timeout(Duration::from_secs(20));
        // Without an end to the flood, the test would have none.
        until.store(true, Ordering::Relaxed);
        assert!(took.unwrap() < Duration::from_secs(10));
    });
    std::fs::remove_file(path).unwrap();
}
