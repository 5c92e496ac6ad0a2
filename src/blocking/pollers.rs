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
pub(super) struct Polling<'a>(&'a Pollers);

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
