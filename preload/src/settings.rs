//! Settings, from the environment.

use std::{
    fs::OpenOptions,
    io::Write as _,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use rustix::process::{Resource, getpid, getrlimit};
use smcd::{DebugOutput, SmcConfig, raw};

use crate::reserve;

/// Descriptors that a connection needs beside that of the program, while it is promoted.
const NEEDED: usize = 8;

static CONFIG: ArcSwapOption<SmcConfig> = ArcSwapOption::const_empty();

/// Most descriptors that we may have.
static MAY_KEEP: AtomicUsize = AtomicUsize::new(0);

/// The SMC option is to be asked for.
static ASKS: AtomicBool = AtomicBool::new(false);

/// The program does something that we cannot see.
static IS_OFF: AtomicBool = AtomicBool::new(false);

/// The settings of new connections.
pub(crate) fn config() -> Arc<SmcConfig> {
    if let Some(config) = &*CONFIG.load() {
        return config.clone();
    }
    let config = SmcConfig::from_env().unwrap_or_else(|error| {
        say(|| format!("{error}; the default is used"));
        SmcConfig::default()
    });
    let config = Arc::new(config);
    ASKS.store(raw::wants_option(&config), Ordering::Relaxed);
    CONFIG.store(Some(config.clone()));
    config
}

/// Takes half of the descriptors that the process may have; the other half is the program's. To be called again when
/// the limit has changed.
pub(crate) fn load_limits() {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    MAY_KEEP.store(usize::try_from(limit / 2).unwrap_or(usize::MAX), Ordering::Relaxed);
}

/// True if connections are to become SMC-D, or at least to be looked at.
pub(crate) fn is_wanted() -> bool {
    let config = config();
    config.promotion != smcd::Promotion::Off || config.observe || asks()
}

/// True if there are peers that are to be asked by the SMC option.
#[inline]
pub(crate) fn asks() -> bool {
    ASKS.load(Ordering::Relaxed)
}

/// True if the program does something that we cannot see.
pub(crate) fn is_off() -> bool {
    IS_OFF.load(Ordering::Relaxed)
}

/// True if there are descriptors for one more promoted connection.
pub(crate) fn may_promote() -> bool {
    raw::kept() + NEEDED <= MAY_KEEP.load(Ordering::Relaxed) && !reserve::is_used() && !is_off()
}

/// From now on nothing is promoted, for this reason.
pub(crate) fn switch_off(why: &str) {
    if !IS_OFF.swap(true, Ordering::Relaxed) {
        say(|| format!("nothing is promoted: {why}"));
    }
}

fn output() -> Option<&'static DebugOutput> {
    static OUTPUT: OnceLock<Option<DebugOutput>> = OnceLock::new();
    OUTPUT.get_or_init(DebugOutput::from_env).as_ref()
}

/// Reads the environment, which some programs empty.
pub(crate) fn load() {
    output();
    config();
    load_limits();
}

/// Says what happens, if the user has asked for it.
pub(crate) fn say(what: impl FnOnce() -> String) {
    let Some(output) = output() else { return };
    let line = format!("smcd: {} {}\n", getpid().as_raw_nonzero(), what());
    // Nobody can be told that it could not be said.
    let _ = match output {
        DebugOutput::File(file) => OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)
            .and_then(|mut file| file.write_all(line.as_bytes())),
        _ => rustix::io::write(rustix::stdio::stderr(), line.as_bytes()).map(drop).map_err(Into::into),
    };
}
