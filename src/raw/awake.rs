//! Staying awake for several streams at a time.

use crate::smc::{BusyPoll, spin::Spinner};

/// Decides whether whoever waits for a set of streams stays awake for a while first, by what that has brought before.
#[derive(Debug)]
pub struct Awake(Spinner);

impl Awake {
    /// One that has learned nothing yet.
    pub fn new(how: BusyPoll) -> Self {
        Self(Spinner::new(how))
    }

    /// Stays awake until `news` is true. False if that was not worth it, or not in time: now is the time to sleep.
    pub fn wait(&self, news: impl FnMut() -> bool) -> bool {
        self.0.wait(std::ptr::from_ref(self).addr(), news)
    }

    /// To be told when a wait has ended, or there was none.
    #[inline]
    pub fn done(&self) {
        self.0.awake();
    }
}
