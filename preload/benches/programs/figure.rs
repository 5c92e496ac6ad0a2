//! What was measured: samples while it runs, rows at the end.

use serde::Serialize;

use crate::{contender::Contender, figures::median_of};

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) figure: f64,
    /// Processor time of both ends for each operation, in microseconds; for each GB, in seconds, where bytes are
    /// counted.
    pub(crate) cpu: f64,
}

/// One figure of the report.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) bench: &'static str,
    pub(crate) contender: &'static str,
    pub(crate) median: f64,
    min: f64,
    max: f64,
    /// The median, as [`Measured::cpu`] has it.
    pub(crate) cpu: f64,
    runs: usize,
}

#[derive(Default)]
pub(crate) struct Samples(Vec<(&'static str, Contender, Vec<Measured>)>);

impl Samples {
    pub(crate) fn add(&mut self, bench: &'static str, contender: Contender, measured: Measured) {
        match self.0.iter_mut().find(|(name, who, _)| (*name, *who) == (bench, contender)) {
            Some((.., all)) => all.push(measured),
            None => self.0.push((bench, contender, vec![measured])),
        }
    }

    pub(crate) fn into_rows(self) -> Vec<Row> {
        let row = |(bench, contender, all): (&'static str, Contender, Vec<Measured>)| {
            let mut figures: Vec<_> = all.iter().map(|measured| measured.figure).collect();
            let median = median_of(&mut figures);
            let mut cpus: Vec<_> = all.iter().map(|measured| measured.cpu).collect();
            Row {
                bench,
                contender: contender.name(),
                median,
                min: figures[0],
                max: figures[figures.len() - 1],
                cpu: median_of(&mut cpus),
                runs: all.len(),
            }
        };
        self.0.into_iter().map(row).collect()
    }
}
