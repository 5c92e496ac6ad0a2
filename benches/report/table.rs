//! The table for readers, in Markdown that can be read as it is.

use crate::{
    common::{
        Contender,
        contender::{RING, SMCD, SMCD_BUSY_POLL, SMCD_EAGER, SMCD_SLEEP, TCP, TCP_NODELAY, UNIX},
        figures::{cell, render},
    },
    idle, many, promotion, round_trip,
    rows::{Row, median, size_name, sizes},
    short, throughput,
};

/// Columns of medians.
const COLUMNS: [(&str, Contender); 7] = [
    ("SMC-D", SMCD),
    ("busy poll", SMCD_BUSY_POLL),
    ("sleep", SMCD_SLEEP),
    ("TcpStream", TCP),
    ("nodelay", TCP_NODELAY),
    ("UnixStream", UNIX),
    ("raw ring", RING),
];

/// Columns of ratios: how many times better the first is than the second.
const RATIOS: [(&str, Contender, Contender); 5] = [
    ("SMC-D : TCP", SMCD, TCP),
    ("SMC-D : nodelay", SMCD, TCP_NODELAY),
    ("SMC-D : Unix", SMCD, UNIX),
    ("SMC-D : ring", SMCD, RING),
    ("busy poll : TCP", SMCD_BUSY_POLL, TCP),
];

/// One metric, which makes one line of the table for each message size.
pub(crate) struct Metric {
    bench: &'static str,
    name: &'static str,
    label: &'static str,
    more_is_better: bool,
    /// Whose figure is that of SMC-D.
    smcd: Contender,
}

const fn metric(bench: &'static str, name: &'static str, label: &'static str) -> Metric {
    Metric { bench, name, label, more_is_better: false, smcd: SMCD }
}

/// Of connections that are promoted at once.
const fn eager(bench: &'static str, name: &'static str, label: &'static str) -> Metric {
    Metric { smcd: SMCD_EAGER, ..metric(bench, name, label) }
}

const METRICS: [Metric; 21] = [
    Metric { more_is_better: true, ..metric(throughput::BENCH, throughput::RATE, "one way, GB/s") },
    metric(throughput::BENCH, throughput::CPU, "one way, CPU s per GB"),
    metric(round_trip::BENCH, round_trip::P50, "round trip p50, µs"),
    metric(round_trip::BENCH, round_trip::P99, "round trip p99, µs"),
    metric(round_trip::BENCH, round_trip::P99_9, "round trip p99.9, µs"),
    metric(round_trip::BENCH, round_trip::CPU, "round trip, CPU µs"),
    Metric {
        more_is_better: true,
        ..metric(short::BENCH, short::SEQUENCE.rate, "short connections, one by one, per s")
    },
    Metric {
        more_is_better: true,
        ..metric(short::BENCH, short::PARALLEL.rate, "short connections, 8 at a time, per s")
    },
    metric(short::BENCH, short::SEQUENCE.cpu, "short connection, one by one, CPU µs"),
    metric(short::BENCH, short::PARALLEL.cpu, "short connection, 8 at a time, CPU µs"),
    eager(promotion::BENCH, promotion::FIRST, "promotion, first of two new processes, µs"),
    eager(promotion::BENCH, promotion::CONTACT, "promotion, first contact, µs"),
    eager(promotion::BENCH, promotion::BESIDE, "promotion, new buffers, µs"),
    eager(promotion::BENCH, promotion::LATER, "promotion, used buffers, µs"),
    eager(promotion::BENCH, promotion::BESIDE_CPU, "promotion, new buffers, CPU µs"),
    eager(promotion::BENCH, promotion::LATER_CPU, "promotion, used buffers, CPU µs"),
    metric(idle::BENCH, idle::CPU, "1,000 idle connections, CPU s in 2 s"),
    eager(many::BENCH, many::CPU, "very many idle connections, CPU s in 2 s"),
    eager(many::BENCH, many::CLIENT, "idle connection, client, KiB without rings"),
    eager(many::BENCH, many::SERVER, "idle connection, server, KiB without rings"),
    eager(many::BENCH, many::DESCRIPTORS, "idle connection, descriptors"),
];

impl Metric {
    /// The metric of this name.
    pub(crate) fn of(bench: &str, name: &str) -> Option<&'static Self> {
        METRICS.iter().find(|metric| (metric.bench, metric.name) == (bench, name))
    }

    /// The median of a contender.
    pub(crate) fn median(&self, rows: &[Row], bytes: usize, who: Contender) -> Option<f64> {
        let who = if who == SMCD { self.smcd } else { who };
        median(rows, self.bench, self.name, bytes, who)
    }

    /// How many times better `ours` is than `theirs`.
    pub(crate) fn ratio(
        &self,
        rows: &[Row],
        bytes: usize,
        ours: Contender,
        theirs: Contender,
    ) -> Option<f64> {
        let (ours, theirs) = (self.median(rows, bytes, ours)?, self.median(rows, bytes, theirs)?);
        Some(if self.more_is_better { ours / theirs } else { theirs / ours })
    }
}

/// All medians and ratios.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut lines = vec![header()];
    for metric in &METRICS {
        for bytes in sizes(rows, metric.bench, metric.name) {
            lines.push(line(rows, metric, bytes));
        }
    }
    render(&lines)
}

fn header() -> Vec<String> {
    let medians = COLUMNS.iter().map(|(name, _)| (*name).to_owned());
    let ratios = RATIOS.iter().map(|(name, ..)| (*name).to_owned());
    std::iter::once(String::new()).chain(medians).chain(ratios).collect()
}

fn line(rows: &[Row], metric: &Metric, bytes: usize) -> Vec<String> {
    let label =
        if bytes == 0 { metric.label.to_owned() } else { format!("{} {}", size_name(bytes), metric.label) };
    let medians = COLUMNS.iter().map(|(_, who)| cell(metric.median(rows, bytes, *who)));
    let ratios = RATIOS.iter().map(|(_, ours, theirs)| cell(metric.ratio(rows, bytes, *ours, *theirs)));
    std::iter::once(label).chain(medians).chain(ratios).collect()
}
