//! A link between two endpoints of one process, for tests: frames can be lost, held up, doubled and changed on the way.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use smoltcp::phy::Medium;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    Link,
    link::{Sink, device},
};

/// Frames under way in one direction. More are lost, as by any queue.
const QUEUE: usize = 4096;

/// The largest IP packet.
const IP_MTU: usize = 1500;

/// Which way a frame goes on a link: from its first end to its second, or back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the first end of [`pair`] to the second.
    There,
    /// From the second to the first.
    Back,
}

/// What arrives, and how long after it was sent.
pub type Arrival = (Duration, Vec<u8>);

/// What lies between two endpoints.
pub trait Path: Send + 'static {
    /// What becomes of a frame: nothing if it is lost, several arrivals if it is doubled.
    fn carry(&mut self, way: Way, frame: Vec<u8>) -> Vec<Arrival>;
}

/// A path that delivers each frame at once.
#[derive(Clone, Copy, Debug)]
pub struct Direct;

impl Path for Direct {
    fn carry(&mut self, _: Way, frame: Vec<u8>) -> Vec<Arrival> {
        vec![(Duration::ZERO, frame)]
    }
}

impl<F: FnMut(Way, Vec<u8>) -> Vec<Arrival> + Send + 'static> Path for F {
    fn carry(&mut self, way: Way, frame: Vec<u8>) -> Vec<Arrival> {
        self(way, frame)
    }
}

/// The two ends of an IP link with this path between them.
pub fn pair(path: impl Path) -> (MemoryLink, MemoryLink) {
    pair_of(Medium::Ip, path)
}

/// The two ends of a link of this medium with this path between them.
pub fn pair_of(medium: Medium, path: impl Path) -> (MemoryLink, MemoryLink) {
    let wire = Arc::new(Mutex::new(Wire { path: Box::new(path), sides: Default::default(), sent: 0 }));
    let end = |way| MemoryLink { wire: wire.clone(), way, medium, ip_mtu: IP_MTU, until: None };
    (end(Way::There), end(Way::Back))
}

struct Wire {
    path: Box<dyn Path>,
    /// What is under way to the second end, and to the first.
    sides: [Side; 2],
    sent: u64,
}

#[derive(Default)]
struct Side {
    /// Ordered by time, then by the order of sending.
    frames: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    waiting: Option<Waker>,
}

impl Wire {
    /// What is under way in a direction.
    fn side(&mut self, way: Way) -> &mut Side {
        let [there, back] = &mut self.sides;
        match way {
            Way::There => there,
            Way::Back => back,
        }
    }

    fn send(&mut self, way: Way, frame: Vec<u8>) {
        let now = Instant::now();
        for (after, frame) in self.path.carry(way, frame) {
            self.sent += 1;
            let place = Reverse((now + after, self.sent, frame));
            let side = self.side(way);
            if side.frames.len() < QUEUE {
                side.frames.push(place);
            }
            if let Some(waker) = side.waiting.take() {
                waker.wake();
            }
        }
    }
}

/// One end of a link in memory.
pub struct MemoryLink {
    wire: Arc<Mutex<Wire>>,
    /// Which way its own frames go.
    way: Way,
    medium: Medium,
    ip_mtu: usize,
    /// When the next frame arrives.
    until: Option<Pin<Box<Sleep>>>,
}

impl MemoryLink {
    fn lock(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_frame(&mut self) -> Option<Vec<u8>> {
        let way = self.incoming();
        let mut wire = self.lock();
        let frames = &mut wire.side(way).frames;
        let is_due = frames.peek().is_some_and(|Reverse((at, ..))| *at <= Instant::now());
        is_due.then(|| frames.pop()).flatten().map(|Reverse((_, _, frame))| frame)
    }

    /// Which way the frames of the other end go.
    fn incoming(&self) -> Way {
        match self.way {
            Way::There => Way::Back,
            Way::Back => Way::There,
        }
    }
}

impl Link for MemoryLink {
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let way = self.incoming();
        let next = {
            let mut wire = self.lock();
            let side = wire.side(way);
            side.waiting = Some(cx.waker().clone());
            side.frames.peek().map(|Reverse((at, ..))| *at)
        };
        let Some(at) = next else { return Poll::Pending };
        let until = self.until.insert(Box::pin(sleep_until(at)));
        ready!(until.as_mut().poll(cx));
        Poll::Ready(Ok(()))
    }
}

impl Sink for MemoryLink {
    fn send(&mut self, frame: Vec<u8>) {
        self.lock().send(self.way, frame);
    }
}

device!(MemoryLink);
