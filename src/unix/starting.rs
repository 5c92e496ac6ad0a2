//! For tests that start processes, and those that others must not disturb so.

use std::{
    io,
    process::{Child, Command},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Held while a process is started, which for a moment has all descriptors of this one: what is closed meanwhile does not
/// hang up, and buffers that the other end has let go of look fit to be used again.
static STARTING: Mutex<()> = Mutex::new(());

/// No test starts a process as long as this is held.
pub(crate) fn nobody_starts() -> MutexGuard<'static, ()> {
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a process when that disturbs nobody.
pub(crate) fn start(command: &mut Command) -> io::Result<Child> {
    let _starting = nobody_starts();
    command.spawn()
}
