//! How much is measured.

use std::time::Duration;

use crate::common::{Result, cpu};

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) runs: usize,
    quick: bool,
    only: Option<String>,
    /// The bench that this process was started for, and nothing else.
    pub(crate) solo: Option<String>,
}

impl Plan {
    /// Reads the command line. Without cargo's `--bench` this is a test run: quick.
    pub(crate) fn from_arguments() -> Result<Self> {
        let mut plan = Self { runs: 7, quick: true, only: None, solo: None };
        let mut quick = false;
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => plan.quick = false,
                "--quick" | "--test" => quick = true,
                "--only" => plan.only = Some(arguments.next().ok_or("--only needs the name of a bench")?),
                "--solo" => plan.solo = arguments.next(),
                "--unpinned" => cpu::leave_free(),
                other => {
                    return Err(format!(
                        "unknown argument {other}; known: --quick, --only BENCH, --unpinned"
                    )
                    .into());
                }
            }
        }
        plan.quick |= quick;
        if plan.quick {
            plan.runs = 1;
        }
        Ok(plan)
    }

    /// What a process that does a part of this has to be told.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &'static str> {
        let length = if self.quick { "--quick" } else { "--bench" };
        [Some(length), cpu::is_left_free().then_some("--unpinned")].into_iter().flatten()
    }

    pub(crate) fn includes(&self, bench: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == bench)
    }

    /// Messages of one measurement of throughput, the same for every transport: few enough for the slowest, which
    /// takes a second or so, and enough for the fastest, which takes some hundredths.
    pub(crate) fn messages(&self, bytes: usize) -> u64 {
        let total = (bytes << 17).min(1 << 29) / if self.quick { 64 } else { 1 };
        (total / bytes).max(1) as u64
    }

    /// How long one measurement of round trips lasts.
    pub(crate) fn round_trips(&self) -> Duration {
        Duration::from_millis(if self.quick { 10 } else { 200 })
    }

    /// Connections that do nothing.
    pub(crate) fn idle_connections(&self) -> usize {
        if self.quick { 50 } else { 1000 }
    }

    /// Short connections of each contender.
    pub(crate) fn short_connections(&self) -> usize {
        if self.quick { 100 } else { 2000 }
    }

    /// Promotions of each kind between two processes.
    pub(crate) fn promotions(&self) -> usize {
        if self.quick { 3 } else { 20 }
    }

    /// Very many connections that do nothing.
    pub(crate) fn many_connections(&self) -> usize {
        if self.quick { 100 } else { 10_000 }
    }

    /// For how long they do it.
    pub(crate) fn idle_time(&self) -> Duration {
        if self.quick { Duration::from_millis(100) } else { Duration::from_secs(2) }
    }
}
