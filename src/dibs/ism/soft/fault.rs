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
    /// The function ends.
    End(End),
    /// It ends with a store block after so many more.
    EndAfter {
        /// Store blocks.
        stores: u64,
        /// How.
        end: End,
    },
    /// The function writes something else than the number of an event into its queue.
    BadQueue,
}

/// How a function comes to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum End {
    /// It is in error: it refuses all, and others are told.
    Failure,
    /// It was disabled: it refuses all, and others are told.
    Disabled,
    /// It is gone: all bits of what is read are set, nobody is told.
    Lost,
}
