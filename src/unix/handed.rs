//! Descriptors that somebody else has sent.

use std::os::fd::OwnedFd;

use super::closer;

/// Descriptors from a process that is not trusted. Those that nobody takes are closed where that may block.
#[derive(Debug, Default)]
pub(crate) struct Handed(Vec<OwnedFd>);

impl Handed {
    pub(crate) fn new(fds: Vec<OwnedFd>) -> Self {
        Self(fds)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The descriptors themselves; whoever takes them closes them.
    pub(crate) fn take(mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        closer::discard(self.0.drain(..));
    }
}
