//! The time that smoltcp is told.

use std::time::Duration;

use tokio::time::Instant;

/// Counts from the start of its endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> smoltcp::time::Instant {
        smoltcp_instant(self.0.elapsed())
    }

    /// When it is that time.
    pub(super) fn at(self, time: smoltcp::time::Instant) -> Instant {
        self.0 + Duration::from_micros(time.total_micros().max(0).cast_unsigned())
    }
}

fn smoltcp_instant(since_start: Duration) -> smoltcp::time::Instant {
    // In a few hundred thousand years.
    smoltcp::time::Instant::from_micros(i64::try_from(since_start.as_micros()).unwrap_or(i64::MAX))
}

/// A span of time, as smoltcp has it.
pub(super) fn smoltcp_span(span: Duration) -> smoltcp::time::Duration {
    smoltcp::time::Duration::from_micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
}
