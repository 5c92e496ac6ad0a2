//! Who takes part: the same programs, and what they have of the library.

use crate::{
    mode::{DEFAULT_POLICY, Mode},
    scratch::Scratch,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Contender {
    Tcp,
    /// The library at both ends, with its default settings.
    Smcd,
    /// The same with a busy poll of 50 µs.
    BusyPoll,
    /// The same without any spinning.
    Sleep,
    /// A unix socket in place of TCP.
    Unix,
    /// The library at one end, where it can do nothing but harm.
    Server,
    Client,
}

use Contender::*;

/// In the order of their columns.
pub(crate) const ALL: [Contender; 7] = [Tcp, Smcd, BusyPoll, Sleep, Unix, Server, Client];

impl Contender {
    /// As it stands in `programs.json`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Tcp => "tcp",
            Smcd => "smcd",
            BusyPoll => "smcd_busy_poll",
            Sleep => "smcd_sleep",
            Unix => "unix",
            Server => "server_only",
            Client => "client_only",
        }
    }

    /// As it stands above its column.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Tcp => "TCP",
            Smcd => "SMC-D",
            BusyPoll => "busy poll",
            Sleep => "sleep",
            Unix => "Unix",
            Server => "server only",
            Client => "client only",
        }
    }

    pub(crate) const fn mode(self) -> Mode {
        match self {
            Tcp | Unix => Mode::Tcp,
            Smcd | BusyPoll | Sleep => Mode::Both,
            Server => Mode::Server,
            Client => Mode::Client,
        }
    }

    /// A directory in which the library has the settings of this contender.
    pub(crate) fn scratch(self, traced: bool) -> Scratch {
        let busy_poll = match self {
            BusyPoll => "50",
            Sleep => "off",
            Tcp | Smcd | Unix | Server | Client => "adaptive",
        };
        let settings = [("SMCD_PROMOTION", DEFAULT_POLICY), ("SMCD_BUSY_POLL", busy_poll)];
        let scratch = Scratch::new("bench").set(&settings);
        // With a line for each connection, short ones would be slower.
        if traced { scratch } else { scratch.set(&[("SMCD_DEBUG", "")]) }
    }
}
