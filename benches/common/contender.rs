//! Who takes part.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use smcd::{BusyPoll, Promotion, SmcConfig, Stack, dibs::loopback::DmbLimits};

/// Which way the bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    Smcd,
    Tcp,
    Unix,
    /// Two processors that copy through shared memory, and nothing else: what the machine can do.
    Ring,
}

/// How the ends wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// What one gets without asking. The raw ring knows only busy waiting.
    Default,
    /// [`Promotion::Eager`], and memory for as many buffers of the default size as there are connections.
    Eager,
    /// [`BusyPoll::For`] 50 µs.
    BusyPoll,
    /// [`BusyPoll::Off`].
    Sleep,
    /// `TCP_NODELAY` where the default is without: throughput. Round trips always have it.
    NoDelay,
}

/// A transport in one of its modes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Contender {
    pub(crate) transport: Transport,
    pub(crate) mode: Mode,
}

pub(crate) const SMCD: Contender = Contender::new(Transport::Smcd, Mode::Default);
pub(crate) const SMCD_EAGER: Contender = Contender::new(Transport::Smcd, Mode::Eager);
pub(crate) const SMCD_BUSY_POLL: Contender = Contender::new(Transport::Smcd, Mode::BusyPoll);
pub(crate) const SMCD_SLEEP: Contender = Contender::new(Transport::Smcd, Mode::Sleep);
pub(crate) const TCP: Contender = Contender::new(Transport::Tcp, Mode::Default);
pub(crate) const TCP_NODELAY: Contender = Contender::new(Transport::Tcp, Mode::NoDelay);
pub(crate) const UNIX: Contender = Contender::new(Transport::Unix, Mode::Default);
pub(crate) const RING: Contender = Contender::new(Transport::Ring, Mode::Default);

/// All that differ one way, in the order of their turns.
pub(crate) const ONE_WAY: [Contender; 7] = [SMCD, TCP, SMCD_BUSY_POLL, TCP_NODELAY, UNIX, SMCD_SLEEP, RING];

/// All that differ in round trips.
pub(crate) const ROUND_TRIP: [Contender; 6] = [SMCD, TCP, SMCD_BUSY_POLL, UNIX, SMCD_SLEEP, RING];

impl Contender {
    const fn new(transport: Transport, mode: Mode) -> Self {
        Self { transport, mode }
    }

    /// Settings of an SMC-D stream or listener.
    pub(crate) fn smc_config(self) -> SmcConfig {
        let config = SmcConfig::default();
        match self.mode {
            Mode::Default | Mode::NoDelay => config,
            Mode::Eager => config.promotion(Promotion::Eager).stack(roomy()),
            Mode::BusyPoll => config.busy_poll(BusyPoll::For(Duration::from_micros(50))),
            Mode::Sleep => config.busy_poll(BusyPoll::Off),
        }
    }
}

/// A stack whose memory is not set aside for fewer buffers than there are: of each only some pages are used.
fn roomy() -> Arc<Stack> {
    static ROOMY: OnceLock<Arc<Stack>> = OnceLock::new();
    let make = || {
        let limits = DmbLimits { bytes: usize::MAX, bytes_per_uid: usize::MAX, ..DmbLimits::default() };
        Stack::with_loopback(limits).unwrap_or_else(|_| Stack::new(Vec::new()))
    };
    ROOMY.get_or_init(make).clone()
}

impl Transport {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Smcd => "smcd",
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Ring => "ring",
        }
    }
}

impl Mode {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Eager => "eager",
            Self::BusyPoll => "busy_poll",
            Self::Sleep => "sleep",
            Self::NoDelay => "nodelay",
        }
    }
}

/// As in `smcd/busy_poll`.
impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.transport.name(), self.mode.name())
    }
}

impl FromStr for Contender {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        ONE_WAY
            .into_iter()
            .chain([SMCD_EAGER])
            .find(|c| c.to_string() == name)
            .ok_or_else(|| format!("no such contender: {name}"))
    }
}
