//! The task that moves the frames of an endpoint.

use std::{
    future::poll_fn,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::sleep_until};

use super::{Link, clock::Clock, core::Core, signalling::Signalling};

/// What the driver shares with the streams and listeners of its endpoint.
pub(super) struct Shared {
    core: Mutex<Core>,
    /// Something is to be sent, or closed, or there is room again.
    work: Notify,
}

impl Shared {
    pub(super) fn new(core: Core) -> Arc<Self> {
        Arc::new(Self { core: Mutex::new(core), work: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the driver look again.
    fn has_work(&self) {
        self.work.notify_one();
    }
}

/// What an endpoint, its streams and listeners hold. With the last one the driver ends, once it has sent what is left.
#[derive(Clone)]
pub(super) struct Held(Arc<Last>);

struct Last(Arc<Shared>);

impl Held {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Last(shared)))
    }

    /// Looks at the sockets.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut Core) -> T) -> T {
        look(&mut self.0.0.lock())
    }

    /// Does something to the sockets after which the driver has to look.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Core) -> T) -> T {
        let result = self.look(act);
        self.0.0.has_work();
        result
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        self.0.lock().is_abandoned = true;
        self.0.has_work();
    }
}

/// Moves frames until nobody needs it.
pub(super) async fn drive<L: Link>(mut device: Signalling<L>, shared: Arc<Shared>, clock: Clock) {
    let _ended = Ended(shared.clone());
    loop {
        let next = shared.lock().turn(clock.now(), &mut device);
        let Some(next) = next else { return };
        tokio::select! {
            // What is to be sent goes before what has come, and time last, so that no run differs from another.
            biased;
            () = shared.work.notified() => {}
            arrival = poll_fn(|cx| device.link.poll_arrival(cx)) => if let Err(error) = arrival {
                fail(&shared, &error);
            },
            () = sleep_until(clock.at(next)) => {}
        }
        if shared.lock().has_failed() {
            return;
        }
    }
}

/// Sees to it that nobody waits for a driver that is no more, because its runtime has ended for instance.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        let mut core = self.0.lock();
        if !core.has_failed() {
            core.fail(io::ErrorKind::BrokenPipe);
        }
    }
}

fn fail(shared: &Shared, error: &io::Error) {
    tracing::warn!(%error, "the link of an endpoint has failed");
    shared.lock().fail(error.kind());
}
