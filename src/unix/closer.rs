//! Closing what strangers have sent.
//!
//! `close` may block for as long as its sender likes: a TCP socket that lingers, a file of a user-space file system.
//! So descriptors that are not what they should be are closed by a thread that has nothing else to do. It is started
//! by the first of them; without an attack there is none.

use std::{
    os::fd::OwnedFd,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
};

/// More than this waiting to be closed means that the thread is held up, and nothing more is taken from strangers.
const TOO_MANY: usize = 256;

static PENDING: AtomicUsize = AtomicUsize::new(0);

/// Closes these descriptors, in a while.
pub(crate) fn discard(fds: impl IntoIterator<Item = OwnedFd>) {
    static CLOSER: OnceLock<Option<Sender<OwnedFd>>> = OnceLock::new();
    let mut fds = fds.into_iter().peekable();
    if fds.peek().is_none() {
        return;
    }
    let closer = CLOSER.get_or_init(|| {
        let (to_closer, work) = channel::<OwnedFd>();
        let run = move || {
            for fd in work {
                drop(fd);
                PENDING.fetch_sub(1, Ordering::Relaxed);
            }
        };
        thread::Builder::new().name("smcd-closer".into()).spawn(run).ok().map(|_| to_closer)
    });
    for fd in fds {
        if let Some(closer) = closer {
            PENDING.fetch_add(1, Ordering::Relaxed);
            // It never ends; if it could not be started, there is no better place than this one.
            let _ = closer.send(fd);
        }
    }
}

/// True if what was sent before cannot be closed.
pub(crate) fn is_held_up() -> bool {
    PENDING.load(Ordering::Relaxed) > TOO_MANY
}
