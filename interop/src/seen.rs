//! What was seen of a case, on its way from the machine to the host.

use serde::{Deserialize, Serialize};

use crate::bench::Rates;

/// Why an end was TCP, in Linux' numbers, or that it was not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Way {
    /// Shared memory.
    Smcd,
    /// TCP for this reason; what the peer said, where that is known; and the reason in words.
    Tcp { code: u32, peer: Option<u32>, words: String },
    /// Nothing can be said: TCP that was never meant to be more.
    Plain,
}

/// A reason that Linux has counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) by_server: bool,
    pub(crate) code: u32,
    pub(crate) times: u16,
}

/// The connections of a case.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Name of the case.
    pub(crate) case: String,
    /// What went wrong, if something did: a lost or changed byte, an error.
    pub(crate) failure: Option<String>,
    /// The ways of the client's ends that are the library's, and those of the server's.
    pub(crate) client: Vec<Way>,
    pub(crate) server: Vec<Way>,
    /// The fallbacks that Linux has counted meanwhile.
    pub(crate) counted: Vec<Counted>,
    /// The connections of SMC-D that it has counted, as client and as server.
    pub(crate) smcd: [u64; 2],
    /// What its kernel said that is not well.
    pub(crate) complaints: Vec<String>,
    pub(crate) milliseconds: u64,
}

/// One measurement.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Name of the case.
    pub(crate) case: String,
    pub(crate) rates: Rates,
    /// The connections of SMC-D that Linux has counted meanwhile, as client and as server.
    pub(crate) smcd: [u64; 2],
}

/// How the host's end of a connection ended with its machine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Bereft {
    pub(crate) milliseconds: u64,
    /// What reading came to: an error, or an end.
    pub(crate) read: Result<usize, String>,
    /// What writing came to afterwards.
    pub(crate) written: Result<usize, String>,
}
