//! What can be made to go wrong at a function.

/// To be injected by [`SoftIsm::inject`](super::SoftIsm::inject). What makes a function stop lasts until it is opened anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The next command with this code is refused so.
    Answer {
        /// Code of the command.
        command: u32,
        /// What it is answered; 0xffff is none at all.
        code: u16,
    },
    /// After so many more store blocks the function stops, as by [`Fault::Failure`].
    FailureAfter {
        /// Store blocks.
        stores: u64,
    },
    /// The function is in error: it refuses all, and others are told.
    Failure,
    /// The function was disabled: it refuses all, and others are told.
    Disabled,
    /// The function is gone: all bits of what is read are set, nobody is told.
    Lost,
    /// The function writes something else than the number of an event into its queue.
    BadQueue,
}
