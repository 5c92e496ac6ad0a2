//! The table for readers, in Markdown that can be read as it is.

use crate::{
    common::{
        Contender,
        contender::{RING, SMCD, SMCD_BUSY_POLL, SMCD_SLEEP, TCP, TCP_NODELAY, UNIX},
    },
    idle, round_trip,
    rows::{Row, median, size_name, sizes},
    throughput,
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
struct Metric {
    bench: &'static str,
    name: &'static str,
    label: &'static str,
    more_is_better: bool,
}

const fn metric(bench: &'static str, name: &'static str, label: &'static str) -> Metric {
    Metric { bench, name, label, more_is_better: false }
}

const METRICS: [Metric; 7] = [
    Metric { more_is_better: true, ..metric(throughput::BENCH, throughput::RATE, "one way, GB/s") },
    metric(throughput::BENCH, throughput::CPU, "one way, CPU s per GB"),
    metric(round_trip::BENCH, round_trip::P50, "round trip p50, µs"),
    metric(round_trip::BENCH, round_trip::P99, "round trip p99, µs"),
    metric(round_trip::BENCH, round_trip::P99_9, "round trip p99.9, µs"),
    metric(round_trip::BENCH, round_trip::CPU, "round trip, CPU µs"),
    metric(idle::BENCH, idle::CPU, "1,000 idle connections, CPU s in 2 s"),
];

/// How many times better `ours` is than `theirs`.
fn ratio(rows: &[Row], metric: &Metric, bytes: usize, ours: Contender, theirs: Contender) -> Option<f64> {
    let of = |who| median(rows, metric.bench, metric.name, bytes, who);
    let (ours, theirs) = (of(ours)?, of(theirs)?);
    Some(if metric.more_is_better { ours / theirs } else { theirs / ours })
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
    let medians = COLUMNS.iter().map(|(_, who)| cell(median(rows, metric.bench, metric.name, bytes, *who)));
    let ratios = RATIOS.iter().map(|(_, ours, theirs)| cell(ratio(rows, metric, bytes, *ours, *theirs)));
    std::iter::once(label).chain(medians).chain(ratios).collect()
}

/// Three significant digits.
fn cell(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if !value.is_finite() => String::new(),
        Some(value) if value >= 99.5 => format!("{value:.0}"),
        Some(value) if value >= 9.95 => format!("{value:.1}"),
        Some(value) if value >= 0.0995 => format!("{value:.2}"),
        Some(value) => format!("{value:.4}"),
    }
}

/// Markdown with aligned columns; the first line is the header.
fn render(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|at| {
            lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        text += &row_of(line.iter().zip(&widths).enumerate().map(|(at, (cell, &width))| {
            if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        }));
        if number == 0 {
            let rule = |(at, &width)| if at == 0 { "-".repeat(width) } else { "-".repeat(width - 1) + ":" };
            text += &row_of(widths.iter().enumerate().map(rule));
        }
    }
    text
}

fn row_of(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

/// What the project wants to reach, next to what was measured.
pub(crate) fn targets(rows: &[Row]) -> String {
    let [rate, _, p50, ..] = &METRICS;
    let targets = [
        ("64 KiB one way, times TcpStream", 2.0, ratio(rows, rate, 64 << 10, SMCD, TCP)),
        (
            "64 KiB one way, times TcpStream with TCP_NODELAY",
            2.0,
            ratio(rows, rate, 64 << 10, SMCD, TCP_NODELAY),
        ),
        ("64 KiB one way, share of the raw ring", 0.7, ratio(rows, rate, 64 << 10, SMCD, RING)),
        ("4 KiB one way, times TcpStream", 6.0, ratio(rows, rate, 4 << 10, SMCD, TCP)),
        (
            "4 KiB one way, times TcpStream with TCP_NODELAY",
            6.0,
            ratio(rows, rate, 4 << 10, SMCD, TCP_NODELAY),
        ),
        ("64 B round trip with busy poll, times faster than TcpStream", 15.0, {
            ratio(rows, p50, 64, SMCD_BUSY_POLL, TCP)
        }),
        ("64 B round trip by default, times faster than UnixStream", 1.0, ratio(rows, p50, 64, SMCD, UNIX)),
        ("64 B round trip asleep, times faster than UnixStream", 1.0, ratio(rows, p50, 64, SMCD_SLEEP, UNIX)),
    ];
    let mut text = String::from("Targets:\n");
    for (what, least, measured) in targets {
        if let Some(measured) = measured {
            let verdict = if measured >= least { "reached" } else { "missed" };
            text += &format!("  {what}: {} (at least {least}: {verdict})\n", cell(Some(measured)));
        }
    }
    text
}
