//! `smcdctl applicability`: how much of a program's traffic could be SMC-D, and what it would gain.

use std::{
    ffi::OsString,
    fmt::Write as _,
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;
use indicatif::{BinaryBytes, HumanCount};
use serde::Serialize;
use serde_json::json;
use smcd::observe::{Collector, Process, Share, Sizes, Totals};

use crate::{
    child::{end_as, run_to_the_end},
    counters::size_names,
    progress::spinner,
    run::{cannot_run, prepare, total},
    table::{number, table},
};

/// How long a message takes by TCP between two processes, in microseconds, and how many times less by SMC-D; for each
/// class of sizes. From the bench report of the project (one way, default settings, a virtual machine with two
/// processors). Where no size of a class was measured, the smaller ratio of its neighbours stands.
const COSTS: [(f64, f64); 13] = [
    (1.0, 7.1),
    (1.2, 6.9),
    (1.5, 6.9),
    (2.5, 4.6),
    (4.0, 3.7),
    (5.4, 3.7),
    (12.0, 2.9),
    (18.6, 2.9),
    (50.0, 2.9),
    (96.0, 4.6),
    (160.0, 2.3),
    (227.0, 2.3),
    (400.0, 2.3),
];

const MODEL: &str = "the time that messages of these sizes take one way by TCP, and by SMC-D, as measured for the \
bench report of the project; only of well-suited connections, and without what the program does itself";

/// Run a program by plain TCP, and report how much of its traffic could be SMC-D.
///
/// Eligible is what goes between processes of this host. Well suited are connections that carry enough to be worth it by
/// the default policy: 256 KiB or 24 messages. The report comes when the program has ended, on the standard error
/// stream, or with --json on the standard output.
#[derive(Debug, Args)]
pub(crate) struct Applicability {
    /// Write JSON to the standard output.
    #[arg(long)]
    json: bool,
    /// The program and its arguments.
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

impl Applicability {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let collector = Collector::new()?;
        let mut command = prepare(&self.command)?;
        command.env("SMCD_PROMOTION", "off").env("SMCD_OBSERVE", "1");
        command.env(Collector::VARIABLE, collector.name());
        let mut processes: Vec<Process> = Vec::new();
        let bar = spinner();
        let ended = run_to_the_end(&mut command, || {
            processes.extend(collector.take_in());
            bar.set_message(number(
                processes.len(),
                "process with connections",
                "processes with connections",
            ));
        });
        bar.finish_and_clear();
        let status = match ended {
            Ok(status) => status,
            Err(error) => return Ok(cannot_run(command.get_program(), &error)),
        };
        let report = Report::new(processes.len(), &total(&processes));
        if self.json {
            let mut out = io::stdout().lock();
            writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        } else {
            eprint!("{}", report.text());
        }
        Ok(end_as(status))
    }
}

#[derive(Debug, Serialize)]
struct Report {
    processes: usize,
    all: Part,
    eligible: Part,
    well_suited: Part,
    /// Messages of eligible connections by size, read and written together.
    sizes: serde_json::Value,
    gain: Option<Gain>,
    #[serde(skip)]
    histogram: Sizes,
}

/// Connections, and what they carried both ways.
#[derive(Debug, Serialize)]
struct Part {
    connections: u64,
    bytes: u64,
    calls: u64,
}

/// What is to be expected.
#[derive(Debug, Serialize)]
struct Gain {
    /// How many times less time the transfer takes.
    times: f64,
    /// Seconds that it takes by TCP.
    seconds_by_tcp: f64,
    model: &'static str,
}

impl Report {
    fn new(processes: usize, totals: &Totals) -> Self {
        let part = |share: &Share| Part {
            connections: share.connections,
            bytes: share.received.bytes().saturating_add(share.sent.bytes()),
            calls: share.received.calls().saturating_add(share.sent.calls()),
        };
        let all = Part {
            connections: totals.seen,
            bytes: totals.received.bytes().saturating_add(totals.sent.bytes()),
            calls: totals.received.calls().saturating_add(totals.sent.calls()),
        };
        let histogram = both(&totals.eligible);
        let sizes: serde_json::Map<_, _> =
            size_names().zip(histogram).map(|(name, calls)| (name, json!(calls))).collect();
        Self {
            processes,
            all,
            eligible: part(&totals.eligible),
            well_suited: part(&totals.well_suited),
            sizes: sizes.into(),
            gain: gain(&both(&totals.well_suited)),
            histogram,
        }
    }

    fn text(&self) -> String {
        let mut rows =
            vec![["Traffic", " Connections", " Bytes", " Messages", " Share"].map(String::from).to_vec()];
        for (name, part) in
            [("all", &self.all), ("eligible", &self.eligible), ("well suited", &self.well_suited)]
        {
            rows.push(vec![
                name.into(),
                HumanCount(part.connections).to_string(),
                BinaryBytes(part.bytes).to_string(),
                HumanCount(part.calls).to_string(),
                format!("{} %", percent(part.bytes, self.all.bytes)),
            ]);
        }
        let mut text = format!(
            "smcdctl: {} with TCP connections\n\n{}",
            number(self.processes, "process", "processes"),
            table(&rows)
        );
        let calls: u64 = self.histogram.iter().fold(0, |sum, calls| sum.saturating_add(*calls));
        if calls > 0 {
            let mut rows = vec![["Size", " Messages", " Share"].map(String::from).to_vec()];
            for (name, count) in size_names().zip(self.histogram).filter(|(_, count)| *count > 0) {
                rows.push(vec![name, HumanCount(count).to_string(), format!("{} %", percent(count, calls))]);
            }
            // Writing to a string does not fail.
            let _ = write!(text, "\nEligible messages by size:\n{}", table(&rows));
        }
        let _ = match &self.gain {
            Some(gain) => writeln!(
                text,
                "\nExpected: the transfer takes {:.1} times less time than the {:.3} s that it takes by TCP.\nModel: {}.",
                gain.times, gain.seconds_by_tcp, gain.model
            ),
            None => writeln!(text, "\nExpected: no gain, since no connection is well suited."),
        };
        text
    }
}

fn both(share: &Share) -> Sizes {
    let mut sum = share.received;
    sum += share.sent;
    sum.sizes
}

fn percent(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(100)
}

/// What the model says of so many messages; `None` if there are none.
fn gain(sizes: &Sizes) -> Option<Gain> {
    let (mut tcp, mut smcd) = (0.0, 0.0);
    for (calls, (micros, ratio)) in sizes.iter().zip(COSTS) {
        tcp += *calls as f64 * micros;
        smcd += *calls as f64 * micros / ratio;
    }
    // Each message is counted where it is written and where it is read; by one of them if the other is not watched.
    (smcd > 0.0).then(|| Gain { times: tcp / smcd, seconds_by_tcp: tcp / 1e6, model: MODEL })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_follows_the_sizes() {
        assert!(gain(&[0; 13]).is_none());
        let mut small = [0; 13];
        small[0] = 1000;
        assert!((gain(&small).unwrap().times - 7.1).abs() < 1e-9);
        let mut mixed = small;
        mixed[7] = 1000;
        let mixed = gain(&mixed).unwrap();
        assert!(mixed.times > 2.9 && mixed.times < 7.1);
        assert!((mixed.seconds_by_tcp - 0.0196).abs() < 1e-9);
    }

    #[test]
    fn shares_of_nothing() {
        assert_eq!((percent(0, 0), percent(1, 3), percent(u64::MAX, u64::MAX)), (0, 33, 100));
        let report = Report::new(0, &Totals::default());
        assert!(report.text().contains("no gain"));
    }
}
