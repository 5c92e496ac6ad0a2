//! Settings of streams. Without tokio.
#![allow(dead_code, missing_docs, unreachable_pub)]

use smcd::{Handshake, Promotion, SmcConfig, Stack, dibs::loopback::DmbLimits};

/// Settings for handshakes in band, with a stack of their own, as another process has.
pub fn config() -> SmcConfig {
    limited(DmbLimits::default())
}

/// Settings for handshakes in band, with the stack of the process.
pub fn in_band() -> SmcConfig {
    SmcConfig::new().handshake(Handshake::InBand)
}

/// As [`config`], with this much memory.
pub fn limited(limits: DmbLimits) -> SmcConfig {
    in_band().stack(Stack::with_loopback(limits).unwrap())
}

/// Settings for promotion by this policy, with a stack of their own.
pub fn promoting(when: Promotion) -> SmcConfig {
    config().handshake(Handshake::Promotion).promotion(when)
}
