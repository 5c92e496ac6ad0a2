//! How much is measured.

use crate::{Result, contender::Contender, work::Bench};

pub(crate) struct Plan {
    pub(crate) runs: usize,
    pub(crate) quick: bool,
    only: String,
}

impl Plan {
    /// Reads the command line. Without cargo's `--bench` this is a test run: quick.
    pub(crate) fn from_arguments() -> Result<Self> {
        let mut plan = Self { runs: 5, quick: true, only: String::new() };
        let mut quick = false;
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--bench" => plan.quick = false,
                "--quick" | "--test" => quick = true,
                "--only" => plan.only = value()?,
                "--runs" => plan.runs = value()?.parse()?,
                other => {
                    return Err(
                        format!("unknown argument {other}; known: --quick, --only NAME, --runs N").into()
                    );
                }
            }
        }
        plan.quick |= quick;
        if plan.quick {
            plan.runs = 1;
        }
        Ok(plan)
    }

    pub(crate) fn includes(&self, bench: &str) -> bool {
        bench.starts_with(&self.only)
    }

    /// Those of a bench; hardly any when it is only to be shown that it runs.
    pub(crate) fn contenders(&self, bench: &Bench) -> impl Iterator<Item = Contender> {
        let few = [Contender::Tcp, Contender::Smcd, Contender::Unix];
        bench.contenders.iter().copied().filter(move |contender| !self.quick || few.contains(contender))
    }

    /// So long a program measures that is told a time; none of them takes less than a second.
    pub(crate) const fn seconds(&self) -> u32 {
        if self.quick { 1 } else { 3 }
    }

    /// Of so many requests, that many.
    pub(crate) const fn requests(&self, full: u32) -> u32 {
        if self.quick { full / 40 } else { full }
    }
}
