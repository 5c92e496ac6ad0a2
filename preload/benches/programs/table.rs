//! The tables for readers: medians, and what the project wants to reach beside them.

use crate::{
    contender::{
        ALL,
        Contender::{self, BusyPoll, Client, Server, Sleep, Smcd, Tcp, Unix},
    },
    figure::Row,
    figures::{cell, render},
    plan::Plan,
    work::{BENCHES, Bench},
};

fn find<'a>(rows: &'a [Row], bench: &str, contender: Contender) -> Option<&'a Row> {
    rows.iter().find(|row| (row.bench, row.contender) == (bench, contender.name()))
}

/// How many times better the first is than the second.
fn ratio(rows: &[Row], bench: &Bench, ours: Contender, theirs: Contender) -> Option<f64> {
    let [ours, theirs] = [ours, theirs].map(|who| find(rows, bench.name, who).map(|row| row.median));
    Some(if bench.more_is_better { ours? / theirs? } else { theirs? / ours? })
}

/// Medians, ratios, and processor time.
pub(crate) fn table(rows: &[Row]) -> String {
    let titles = ALL.map(|who| who.title().to_owned());
    let ratios = [Tcp, Unix].map(|who| format!("SMC-D : {}", who.title()));
    let cpus = [Tcp, Smcd, Unix].map(|who| format!("CPU, {}", who.title()));
    let header = std::iter::once(String::new()).chain(titles).chain(ratios).chain(cpus).collect();
    let measured = BENCHES.iter().filter(|bench| find(rows, bench.name, Tcp).is_some());
    let lines: Vec<_> = std::iter::once(header).chain(measured.map(|bench| line(rows, bench))).collect();
    render(&lines)
}

fn line(rows: &[Row], bench: &Bench) -> Vec<String> {
    let medians = ALL.map(|who| cell(find(rows, bench.name, who).map(|row| row.median)));
    let ratios = [Tcp, Unix].map(|who| cell(ratio(rows, bench, Smcd, who)));
    let cpus = [Tcp, Smcd, Unix].map(|who| cell(find(rows, bench.name, who).map(|row| row.cpu)));
    std::iter::once(bench.label.to_owned()).chain(medians).chain(ratios).chain(cpus).collect()
}

pub(crate) fn notes(plan: &Plan) -> String {
    format!(
        "Medians of {} interleaved runs; the programs are Debian's, with their defaults. \"Busy poll\" is for 50 µs, \
         \"sleep\" without any spinning; \"server only\" and \"client only\" have the library at one end, and stay TCP. \
         CPU is that of both ends: µs for each operation, and s for each GB of iperf3. Ratios say how many times better \
         the first is than the second.\n",
        plan.runs
    )
}

/// What is wanted: so many times better than TCP, at least.
struct Target(&'static str, &'static [&'static str], Contender, f64);

const CURVE: &[&str] = &[
    "redis-get-1",
    "redis-get-10",
    "redis-get-50",
    "redis-get-200",
    "redis-get-500",
    "redis-short-1",
    "redis-short-10",
    "redis-short-50",
    "redis-short-200",
    "redis-short-500",
];
/// All that there are.
const EACH: &[&str] = &[];

/// Of several benches, the worst counts.
#[rustfmt::skip]
const TARGETS: [Target; 9] = [
    Target("sockperf 64 B round trip asleep, times faster", &["sockperf"], Sleep, 2.0),
    Target("sockperf 64 B round trip with busy poll, times faster", &["sockperf"], BusyPoll, 12.0),
    Target("iperf3, times TCP", &["iperf3"], Smcd, 2.0),
    Target("redis GET and SET, 50 clients, times TCP", &["redis-get-50", "redis-set-50"], Smcd, 1.5),
    Target("redis GET and SET, 200 clients, 1 KiB, times TCP", &["redis-get-200-1k", "redis-set-200-1k"], Smcd, 1.5),
    Target("nginx, 64 connections, times TCP", &["nginx-64"], Smcd, 1.3),
    Target("redis, 1 to 500 clients, with and without keep-alive, worst, share of TCP", CURVE, Smcd, 0.97),
    Target("server alone accelerated, worst, share of TCP", EACH, Server, 0.98),
    Target("client alone accelerated, worst, share of TCP", EACH, Client, 0.98),
];

/// Those that were measured.
pub(crate) fn targets(rows: &[Row]) -> String {
    let header = ["", "wanted", "measured", "verdict"].map(str::to_owned).to_vec();
    render(
        &std::iter::once(header)
            .chain(TARGETS.iter().filter_map(|target| verdict(rows, target)))
            .collect::<Vec<_>>(),
    )
}

fn verdict(rows: &[Row], Target(what, benches, who, least): &Target) -> Option<Vec<String>> {
    let is_meant = |name: &str| benches.is_empty() || benches.contains(&name);
    let of_all = BENCHES.iter().filter(|bench| is_meant(bench.name));
    let worst = of_all.filter_map(|bench| ratio(rows, bench, *who, Tcp)).min_by(f64::total_cmp)?;
    let verdict = if worst >= *least { "reached" } else { "missed" };
    Some(vec![(*what).to_owned(), format!("at least {least}"), cell(Some(worst)), verdict.to_owned()])
}
