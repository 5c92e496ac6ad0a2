//! What signals do to a call that waits.

use libc::c_int;

/// Signals there are at most (`_NSIG`).
const SIGNALS: c_int = 64;

/// True if a call that a signal has interrupted goes on, as the kernel would have it: no handler of the program wants it
/// otherwise. Which signal it was cannot be known; where handlers differ, the call ends, which programs with such
/// handlers expect.
pub(crate) fn restart() -> bool {
    (1..=SIGNALS).all(|signal| {
        // SAFETY: all zeroes is a value of this plain structure.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: only asks, into a structure of ours.
        let known = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) } == 0;
        let is_handled = action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN;
        !known || !is_handled || action.sa_flags & libc::SA_RESTART != 0
    })
}
