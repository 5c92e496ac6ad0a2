//! Who polls the descriptor of an interrupt.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::event::PollFlags;

use super::poll;
use crate::dibs::Interrupt;

/// The threads that poll the descriptor of one interrupt: one may wait for data, another for space.
///
/// `poll` knows no edges, so signals have to be taken out before the next sleep. But one that is taken out while the
/// other thread is still on its way out of `poll` would never be seen there. So only a thread that is alone takes
/// signals out. If there are any, the other will not be long.
#[derive(Debug, Default)]
pub(super) struct Pollers {
    inside: Mutex<usize>,
    left: Condvar,
}

/// A thread among the pollers, until dropped. Having left it looks for news before it comes again.
#[derive(Debug)]
pub(crate) struct Polling<'a>(&'a Pollers);

impl Pollers {
    fn inside(&self) -> MutexGuard<'_, usize> {
        // Nothing panics while it is held.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Comes in, and takes out the signals that have come so far. Now is the time to arm.
    pub(super) fn enter(&self, interrupt: &dyn Interrupt) -> Polling<'_> {
        let mut inside = self.inside();
        while *inside > 0 && !poll::now(interrupt.as_fd(), PollFlags::IN).is_empty() {
            inside = self.left.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
        if *inside == 0 {
            interrupt.clear();
        }
        *inside += 1;
        Polling(self)
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        *self.0.inside() -= 1;
        self.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dibs::Cause;
    use std::{
        io::{self, Read, Write},
        os::{
            fd::{AsFd, BorrowedFd},
            unix::net::UnixStream,
        },
        sync::mpsc,
        thread,
        time::Duration,
    };

    /// Signals are bytes.
    #[derive(Debug)]
    struct Socket(UnixStream);

    impl Interrupt for Socket {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }

        fn is_hung_up(&self) -> bool {
            false
        }

        fn arm(&self, _: Cause) {}

        fn clear(&self) {
            let _ = (&self.0).read(&mut [0; 100]).unwrap();
        }

        fn wait(&self, _: Cause, _: Option<Duration>, _: &mut dyn FnMut() -> bool) -> io::Result<bool> {
            Ok(true)
        }
    }

    fn is_signalled(interrupt: &Socket) -> bool {
        !poll::now(interrupt.as_fd(), PollFlags::IN).is_empty()
    }

    #[test]
    fn a_signal_stays_until_everybody_has_seen_it() {
        let (mut bell, socket) = UnixStream::pair().unwrap();
        let (interrupt, pollers) = (Socket(socket), Pollers::default());
        bell.write_all(&[1]).unwrap();
        let first = pollers.enter(&interrupt);
        assert!(!is_signalled(&interrupt), "an old one");
        drop(pollers.enter(&interrupt));
        bell.write_all(&[1]).unwrap();
        let (entered, wait) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let _second = pollers.enter(&interrupt);
                entered.send(is_signalled(&interrupt)).unwrap();
            });
            assert!(wait.recv_timeout(Duration::from_millis(20)).is_err(), "has not waited");
            assert!(is_signalled(&interrupt), "taken from the first");
            drop(first);
            assert!(!wait.recv().unwrap(), "would not sleep");
        });
    }
}
