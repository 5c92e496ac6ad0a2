//! Taking turns at waiting.

use std::{
    io,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use super::patience::Patience;

/// The right to wait for something, which one thread has at a time.
#[derive(Debug, Default)]
pub(super) struct Turn {
    state: Mutex<State>,
    free: Condvar,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    taken: bool,
    /// Threads that want it. Waking nobody would cost a system call too.
    waiting: usize,
}

/// The turn, in the hands of a thread; handed on when dropped.
#[derive(Debug)]
pub(super) struct Taken<'a>(&'a Turn);

impl Turn {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the turn when it is free.
    ///
    /// # Errors
    /// `WouldBlock` if that takes too long.
    pub(super) fn take(&self, patience: Patience) -> io::Result<Taken<'_>> {
        let mut state = self.state();
        while state.taken {
            let left = patience.left()?;
            state.waiting += 1;
            state = match left {
                None => self.free.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.free.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
            state.waiting -= 1;
        }
        state.taken = true;
        Ok(Taken(self))
    }
}

/// A turn that nobody takes or gives up at present.
#[derive(Debug)]
pub(crate) struct Held<'a>(MutexGuard<'a, State>);

impl Turn {
    /// Keeps the turn as it is, for a process that is about to fork.
    pub(crate) fn hold(&self) -> Held<'_> {
        Held(self.state())
    }
}

impl Held<'_> {
    /// In the child of a fork: none of those who had the turn or wanted it exist here.
    pub(crate) fn free(mut self) {
        *self.0 = State::default();
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.taken = false;
        if state.waiting > 0 {
            self.0.free.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{thread, time::Duration};

    #[test]
    fn one_has_it_and_hands_it_on() {
        let turn = Turn::default();
        let held = turn.take(Patience::Never).unwrap();
        assert!(turn.take(Patience::Never).is_err());
        assert!(turn.take(Patience::of(Some(Duration::from_millis(5)))).is_err());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| drop(turn.take(Patience::Forever).unwrap()));
            }
            thread::sleep(Duration::from_millis(20));
            drop(held);
        });
        drop(turn.take(Patience::Never).unwrap());
    }
}
