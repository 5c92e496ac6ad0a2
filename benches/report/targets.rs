//! What the project wants to reach, next to what was measured.

use crate::{
    common::{
        Contender,
        contender::{RING, SMCD, SMCD_BUSY_POLL, SMCD_SLEEP, TCP, TCP_NODELAY, UNIX},
    },
    many, promotion, round_trip,
    rows::Row,
    short,
    table::{Metric, cell, render},
    throughput,
};

struct Target {
    what: &'static str,
    bench: &'static str,
    metric: &'static str,
    bytes: usize,
    wanted: Wanted,
}

/// At least this many times as good, or at most this much.
enum Wanted {
    AtLeast(f64, Contender, Contender),
    AtMost(f64),
}

const fn at_least(
    what: &'static str,
    (bench, metric, bytes): (&'static str, &'static str, usize),
    ratio: f64,
    ours: Contender,
    theirs: Contender,
) -> Target {
    Target { what, bench, metric, bytes, wanted: Wanted::AtLeast(ratio, ours, theirs) }
}

const fn at_most(what: &'static str, (bench, metric): (&'static str, &'static str), value: f64) -> Target {
    Target { what, bench, metric, bytes: 0, wanted: Wanted::AtMost(value) }
}

const RATE_64K: (&str, &str, usize) = (throughput::BENCH, throughput::RATE, 64 << 10);
const RATE_4K: (&str, &str, usize) = (throughput::BENCH, throughput::RATE, 4 << 10);
const ROUND_TRIP: (&str, &str, usize) = (round_trip::BENCH, round_trip::P50, 64);

const TARGETS: [Target; 17] = [
    at_least("64 KiB one way, times `TcpStream`", RATE_64K, 2.0, SMCD, TCP),
    at_least("64 KiB one way, times `TcpStream` with `TCP_NODELAY`", RATE_64K, 2.0, SMCD, TCP_NODELAY),
    at_least("64 KiB one way, share of the raw ring", RATE_64K, 0.7, SMCD, RING),
    at_least("4 KiB one way, times `TcpStream`", RATE_4K, 6.0, SMCD, TCP),
    at_least("4 KiB one way, times `TcpStream` with `TCP_NODELAY`", RATE_4K, 6.0, SMCD, TCP_NODELAY),
    at_least("64 B round trip, times faster than `TcpStream`", ROUND_TRIP, 15.0, SMCD, TCP),
    at_least(
        "64 B round trip with busy poll, times faster than `TcpStream`",
        ROUND_TRIP,
        15.0,
        SMCD_BUSY_POLL,
        TCP,
    ),
    at_least("64 B round trip, times faster than `UnixStream`", ROUND_TRIP, 1.0, SMCD, UNIX),
    at_least("64 B round trip asleep, times faster than `UnixStream`", ROUND_TRIP, 1.0, SMCD_SLEEP, UNIX),
    at_least(
        "short connections one by one, times `TcpStream`",
        (short::BENCH, short::SEQUENCE, 0),
        0.97,
        SMCD,
        TCP,
    ),
    at_least(
        "short connections 8 at a time, times `TcpStream`",
        (short::BENCH, short::PARALLEL, 0),
        0.97,
        SMCD,
        TCP,
    ),
    at_most("promotion, first of two new processes, µs", (promotion::BENCH, promotion::FIRST), 150.0),
    at_most("promotion, first contact, µs", (promotion::BENCH, promotion::CONTACT), 150.0),
    at_most("promotion, new buffers, µs", (promotion::BENCH, promotion::BESIDE), 150.0),
    at_most("promotion, used buffers, µs", (promotion::BENCH, promotion::LATER), 150.0),
    at_most("idle connection, client, KiB without rings", (many::BENCH, many::CLIENT), 16.0),
    at_most("idle connection, server, KiB without rings", (many::BENCH, many::SERVER), 16.0),
];

/// A table of those that were measured.
pub(crate) fn targets(rows: &[Row]) -> String {
    let header = ["target", "wanted", "measured", ""].map(str::to_owned).to_vec();
    let lines: Vec<_> =
        std::iter::once(header).chain(TARGETS.iter().filter_map(|target| line(rows, target))).collect();
    render(&lines)
}

fn line(rows: &[Row], target: &Target) -> Option<Vec<String>> {
    let metric = Metric::of(target.bench, target.metric)?;
    let (wanted, measured, reached) = match target.wanted {
        Wanted::AtLeast(least, ours, theirs) => {
            let ratio = metric.ratio(rows, target.bytes, ours, theirs)?;
            (format!("at least {least}"), ratio, ratio >= least)
        }
        Wanted::AtMost(most) => {
            let value = metric.median(rows, target.bytes, SMCD)?;
            (format!("at most {most}"), value, value <= most)
        }
    };
    let verdict = if reached { "reached" } else { "missed" };
    Some(vec![target.what.to_owned(), wanted, cell(Some(measured)), verdict.to_owned()])
}
