//! What was measured: samples while it runs, rows at the end.

use serde::Serialize;

use crate::common::{Contender, figures::median_of};

/// One figure of the report.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) bench: &'static str,
    /// Bytes of a message; 0 if that says nothing.
    pub(crate) bytes: usize,
    pub(crate) mode: &'static str,
    pub(crate) transport: &'static str,
    pub(crate) metric: &'static str,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) runs: usize,
}

/// All samples so far, in the order in which the first of each kind came.
#[derive(Default)]
pub(crate) struct Samples(Vec<(Key, Vec<f64>)>);

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Key {
    pub(crate) bench: &'static str,
    pub(crate) bytes: usize,
    pub(crate) contender: Contender,
    pub(crate) metric: &'static str,
}

impl Samples {
    pub(crate) fn add(&mut self, key: Key, value: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) => values.push(value),
            None => self.0.push((key, vec![value])),
        }
    }

    /// Every single one.
    pub(crate) fn each(&self) -> impl Iterator<Item = (Key, f64)> {
        self.0.iter().flat_map(|(key, values)| values.iter().map(|value| (*key, *value)))
    }

    pub(crate) fn into_rows(self) -> Vec<Row> {
        self.0.into_iter().map(|(key, values)| row(key, values)).collect()
    }
}

fn row(key: Key, mut values: Vec<f64>) -> Row {
    let median = median_of(&mut values);
    Row {
        bench: key.bench,
        bytes: key.bytes,
        mode: key.contender.mode.name(),
        transport: key.contender.transport.name(),
        metric: key.metric,
        median,
        min: values[0],
        max: values[values.len() - 1],
        runs: values.len(),
    }
}

/// The median of this figure, if it was measured.
pub(crate) fn median(
    rows: &[Row],
    bench: &str,
    metric: &str,
    bytes: usize,
    contender: Contender,
) -> Option<f64> {
    let is_it = |row: &&Row| {
        (row.bench, row.metric, row.bytes) == (bench, metric, bytes)
            && (row.transport, row.mode) == (contender.transport.name(), contender.mode.name())
    };
    rows.iter().find(is_it).map(|row| row.median)
}

/// The message sizes of this figure, for whomever it was measured.
pub(crate) fn sizes(rows: &[Row], bench: &str, metric: &str) -> Vec<usize> {
    let mut sizes: Vec<usize> =
        rows.iter().filter(|row| row.bench == bench && row.metric == metric).map(|row| row.bytes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// A message size in words.
pub(crate) fn size_name(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}
