//! Staying awake for news of a connection, whoever waits for them.

use std::io;

use super::{
    BusyPoll,
    connection::{Connection, Progress},
    spin::Spinner,
};
use crate::dibs::Cause;

/// What the two directions of a connection have learned about waiting.
#[derive(Debug)]
pub(crate) struct Spinners {
    data: Spinner,
    space: Spinner,
}

impl Spinners {
    pub(crate) fn new(how: BusyPoll) -> Self {
        Self { data: Spinner::new(how), space: Spinner::new(how) }
    }

    fn of(&self, cause: Cause) -> &Spinner {
        match cause {
            Cause::Data => &self.data,
            Cause::Space => &self.space,
        }
    }

    /// To be called when a wait has ended, or there was none.
    #[inline]
    pub(crate) fn awake(&self, cause: Cause) {
        self.of(cause).awake();
    }

    /// Attempts, and stays awake for a while to attempt again if that promises something.
    pub(crate) fn look(
        &self,
        connection: &Connection,
        cause: Cause,
        attempt: &mut dyn FnMut() -> io::Result<Progress>,
    ) -> Option<io::Result<usize>> {
        // Before the attempt, so that nothing falls between the two.
        let mut seen = connection.news();
        let mut result = finished(attempt());
        if result.is_some() {
            return result;
        }
        let who = std::ptr::from_ref(connection).addr();
        self.of(cause).wait(who, || {
            let now = connection.news();
            // News may be for the other direction; then it was not what this one waits for.
            if now != seen {
                seen = now;
                result = finished(attempt());
            }
            result.is_some()
        });
        result
    }
}

/// The result of an attempt, `None` if it has to wait.
#[inline]
pub(crate) fn finished(progress: io::Result<Progress>) -> Option<io::Result<usize>> {
    match progress {
        Ok(Progress::Done(n)) => Some(Ok(n)),
        Ok(Progress::Eof) => Some(Ok(0)),
        Ok(Progress::Blocked) => None,
        Err(error) => Some(Err(error)),
    }
}
