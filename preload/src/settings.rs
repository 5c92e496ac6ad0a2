//! Settings, from the environment.

use std::{
    fs::OpenOptions,
    io::Write as _,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use rustix::process::{Resource, getpid, getrlimit};
use smcd::{SmcConfig, raw};

/// Descriptors that a connection needs beside that of the program, while it is promoted.
const NEEDED: usize = 8;

static CONFIG: ArcSwapOption<SmcConfig> = ArcSwapOption::const_empty();
static DEBUG: OnceLock<Option<String>> = OnceLock::new();

/// Most descriptors that we may have.
static MAY_KEEP: AtomicUsize = AtomicUsize::new(0);

/// The settings of new connections.
pub(crate) fn config() -> Arc<SmcConfig> {
    if let Some(config) = &*CONFIG.load() {
        return config.clone();
    }
    let config = Arc::new(SmcConfig::default());
    CONFIG.store(Some(config.clone()));
    config
}

/// Takes half of the descriptors that the process may have; the other half is the program's. To be called again when
/// the limit has changed.
pub(crate) fn load_limits() {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    MAY_KEEP.store(usize::try_from(limit / 2).unwrap_or(usize::MAX), Ordering::Relaxed);
}

/// True if connections are to be promoted at all.
pub(crate) fn is_wanted() -> bool {
    config().promotion != smcd::Promotion::Off
}

/// True if there are descriptors for one more promoted connection.
pub(crate) fn may_promote() -> bool {
    raw::kept() + NEEDED <= MAY_KEEP.load(Ordering::Relaxed)
}

/// Where to say what happens, if anywhere: `1` is standard error, else it is the name of a file.
fn debug() -> Option<&'static str> {
    let read = || {
        let named = |name| std::env::var(name).ok().filter(|value| !value.is_empty() && value != "0");
        named("SMCD_DEBUG").or_else(|| named("SMC_DEBUG"))
    };
    DEBUG.get_or_init(read).as_deref()
}

/// Says what happens, if the user has asked for it.
pub(crate) fn say(what: impl FnOnce() -> String) {
    let Some(place) = debug() else { return };
    let line = format!("smcd: {} {}\n", getpid().as_raw_nonzero(), what());
    // Nobody can be told that it could not be said.
    let _ = match place {
        "1" => rustix::io::write(rustix::stdio::stderr(), line.as_bytes()).map(drop).map_err(Into::into),
        file => OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)
            .and_then(|mut file| file.write_all(line.as_bytes())),
    };
}
