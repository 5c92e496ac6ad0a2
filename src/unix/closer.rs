//! Closing what strangers have sent.
//!
//! `close` may block for as long as its sender likes: a TCP socket that lingers, a file of a user-space file system.
//! So descriptors that are not what they should be are closed by a thread that has nothing else to do. It is started
//! by the first of them; without an attack there is none.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
};

use super::PerProcess;

/// More than this waiting to be closed means that the thread is held up, and nothing more is taken from strangers.
const TOO_MANY: usize = 256;

/// The thread that closes. A child has none of its parent's threads.
static CLOSER: PerProcess<Closer> = PerProcess::new();

struct Closer {
    /// None if the thread could not be started.
    work: Option<Sender<OwnedFd>>,
    pending: Arc<AtomicUsize>,
}

impl Closer {
    fn start() -> Self {
        let (to_closer, work) = channel::<OwnedFd>();
        let pending = Arc::new(AtomicUsize::new(0));
        let left = pending.clone();
        let run = move || {
            for fd in work {
                drop(fd);
                left.fetch_sub(1, Ordering::Relaxed);
            }
        };
        let started = thread::Builder::new().name("smcd-closer".into()).spawn(run);
        Self { work: started.ok().map(|_| to_closer), pending }
    }
}

/// Closes these descriptors, in a while.
pub(crate) fn discard(fds: impl IntoIterator<Item = OwnedFd>) {
    let mut fds = fds.into_iter().peekable();
    if fds.peek().is_none() {
        return;
    }
    let closer = CLOSER.get_or_make(Closer::start);
    for fd in fds {
        if let Some(work) = &closer.work {
            closer.pending.fetch_add(1, Ordering::Relaxed);
            // It never ends; if it could not be started, there is no better place than this one.
            let _ = work.send(fd);
        }
    }
}

/// True if what was sent before cannot be closed.
pub(crate) fn is_held_up() -> bool {
    CLOSER.get().is_some_and(|closer| closer.pending.load(Ordering::Relaxed) > TOO_MANY)
}
