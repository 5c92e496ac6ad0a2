//! What the project wants to reach, next to what was measured.

use crate::{
    common::{
        Contender,
        contender::{RING, SMCD, SMCD_BUSY_POLL, SMCD_EAGER, SMCD_SLEEP, TCP, TCP_NODELAY, UNIX},
        figures::{cell, render},
    },
    many, promotion, round_trip,
    rows::{Row, median},
    short,
    table::Metric,
    throughput,
};

struct Target(&'static str, Figure, Wanted);

enum Figure {
    /// How many times better the first is than the second, by bench, metric and bytes of a message.
    Ratio((&'static str, &'static str, usize), Contender, Contender),
    /// The median itself, by bench and metric.
    Median((&'static str, &'static str), Contender),
}

use Figure::{Median, Ratio};

enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

use Wanted::{AtLeast, AtMost};

const RATE_64K: (&str, &str, usize) = (throughput::BENCH, throughput::RATE, 64 << 10);
const RATE_4K: (&str, &str, usize) = (throughput::BENCH, throughput::RATE, 4 << 10);
const ROUND_TRIP: (&str, &str, usize) = (round_trip::BENCH, round_trip::P50, 64);

const fn short(metric: &'static str) -> Figure {
    Median((short::BENCH, metric), SMCD)
}

const fn promotion(metric: &'static str) -> Figure {
    Median((promotion::BENCH, metric), SMCD_EAGER)
}

const fn many(metric: &'static str) -> Figure {
    Median((many::BENCH, metric), SMCD_EAGER)
}

#[rustfmt::skip]
const TARGETS: [Target; 17] = [
    Target("64 KiB one way, times `TcpStream`", Ratio(RATE_64K, SMCD, TCP), AtLeast(2.0)),
    Target("64 KiB one way, times `TcpStream` with `TCP_NODELAY`", Ratio(RATE_64K, SMCD, TCP_NODELAY), AtLeast(2.0)),
    Target("64 KiB one way, share of the raw ring", Ratio(RATE_64K, SMCD, RING), AtLeast(0.7)),
    Target("4 KiB one way, times `TcpStream`", Ratio(RATE_4K, SMCD, TCP), AtLeast(6.0)),
    Target("4 KiB one way, times `TcpStream` with `TCP_NODELAY`", Ratio(RATE_4K, SMCD, TCP_NODELAY), AtLeast(6.0)),
    Target("64 B round trip, times faster than `TcpStream`", Ratio(ROUND_TRIP, SMCD, TCP), AtLeast(15.0)),
    Target("64 B round trip with busy poll, times faster than `TcpStream`", Ratio(ROUND_TRIP, SMCD_BUSY_POLL, TCP), AtLeast(15.0)),
    Target("64 B round trip, times faster than `UnixStream`", Ratio(ROUND_TRIP, SMCD, UNIX), AtLeast(1.0)),
    Target("64 B round trip asleep, times faster than `UnixStream`", Ratio(ROUND_TRIP, SMCD_SLEEP, UNIX), AtLeast(1.0)),
    Target("short connections one by one, share of `TcpStream`'s rate", short(short::SEQUENCE.ratio), AtLeast(0.97)),
    Target("short connections 8 at a time, share of `TcpStream`'s rate", short(short::PARALLEL.ratio), AtLeast(0.97)),
    Target("promotion, first of two new processes, µs", promotion(promotion::FIRST), AtMost(150.0)),
    Target("promotion, first contact, µs", promotion(promotion::CONTACT), AtMost(150.0)),
    Target("promotion, new buffers, µs", promotion(promotion::BESIDE), AtMost(150.0)),
    Target("promotion, used buffers, µs", promotion(promotion::LATER), AtMost(150.0)),
    Target("idle connection, client, KiB without rings", many(many::CLIENT), AtMost(16.0)),
    Target("idle connection, server, KiB without rings", many(many::SERVER), AtMost(16.0)),
];

/// A table of those that were measured.
pub(crate) fn targets(rows: &[Row]) -> String {
    let header = ["", "wanted", "measured", "verdict"].map(str::to_owned).to_vec();
    let lines: Vec<_> =
        std::iter::once(header).chain(TARGETS.iter().filter_map(|target| line(rows, target))).collect();
    render(&lines)
}

fn line(rows: &[Row], Target(what, figure, wanted): &Target) -> Option<Vec<String>> {
    let measured = match *figure {
        Ratio((bench, metric, bytes), ours, theirs) => {
            Metric::of(bench, metric)?.ratio(rows, bytes, ours, theirs)?
        }
        Median((bench, metric), who) => median(rows, bench, metric, 0, who)?,
    };
    let (wanted, reached) = match *wanted {
        AtLeast(least) => (format!("at least {least}"), measured >= least),
        AtMost(most) => (format!("at most {most}"), measured <= most),
    };
    let verdict = if reached { "reached" } else { "missed" };
    Some(vec![(*what).to_owned(), wanted, cell(Some(measured)), verdict.to_owned()])
}
