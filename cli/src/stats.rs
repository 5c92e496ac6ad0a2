//! `smcdctl stats`: the counters of all processes of this user.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::SystemTime,
};

use anyhow::Context;
use clap::Args;
use serde_json::json;
use smcd::observe::{Process, processes};

use crate::{
    counters::{self, Counters},
    table::number,
};

/// Show the counters of all processes of this user together.
///
/// They begin when a process makes its first connection. What processes have counted that have ended is gone with them;
/// `run --report` keeps it.
#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Write JSON.
    #[arg(long)]
    json: bool,
    /// Only what was counted since the last call with --delta.
    #[arg(long)]
    delta: bool,
    /// Only those of this process.
    #[arg(long)]
    pid: Option<u32>,
}

/// The counters of each process, by its number and when it began.
type ByProcess = BTreeMap<String, Counters>;

impl Stats {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let now = self.now()?;
        let before = if self.delta { exchange(&now)? } else { ByProcess::new() };
        let mut sum = Counters::new();
        for (key, counters) in &now {
            let then = before.get(key).cloned().unwrap_or_default();
            counters::add(&mut sum, &counters::since(counters, &then));
        }
        let mut out = io::stdout().lock();
        if self.json {
            let all = json!({ "processes": now.len(), "counters": counters::json(&sum) });
            writeln!(out, "{all:#}")?;
        } else {
            writeln!(out, "{}\n", number(now.len(), "process", "processes"))?;
            write!(out, "{}", counters::text(&sum))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn now(&self) -> anyhow::Result<ByProcess> {
        let wanted = |process: &Process| self.pid.is_none_or(|pid| pid == process.pid());
        let mut all = ByProcess::new();
        for process in processes()?.into_iter().filter(wanted) {
            let Ok(snapshot) = process.snapshot() else { continue };
            let began = snapshot.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let key = format!("{}:{}", process.pid(), began.as_nanos());
            all.insert(key, counters::flatten(&snapshot.totals));
        }
        Ok(all)
    }
}

/// Keeps these counters for the next call, and says what the last one kept.
fn exchange(now: &ByProcess) -> anyhow::Result<ByProcess> {
    let file = state_file()?;
    // A first call finds nothing, and what is not ours counts as nothing.
    let mut kept: ByProcess =
        fs::read(&file).ok().and_then(|kept| serde_json::from_slice(&kept).ok()).unwrap_or_default();
    let before = kept.clone();
    kept.retain(|key, _| is_alive(key));
    kept.extend(now.clone());
    // Written beside it and put in its place: whoever looks meanwhile finds the one or the other.
    let new = file.with_extension(format!("{}.new", std::process::id()));
    let failed = || format!("cannot keep the counters in {}", file.display());
    fs::write(&new, serde_json::to_vec(&kept)?).with_context(failed)?;
    fs::rename(&new, &file).with_context(failed)?;
    Ok(before)
}

fn state_file() -> anyhow::Result<PathBuf> {
    let place = xdg::BaseDirectories::with_prefix("smcd").place_state_file("stats.json");
    place.context("there is no directory to keep the counters in (XDG_STATE_HOME)")
}

fn is_alive(key: &str) -> bool {
    key.split(':').next().is_some_and(|pid| fs::exists(format!("/proc/{pid}")).unwrap_or(false))
}
