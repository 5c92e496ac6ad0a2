//! Round trips: how long a message takes there and back, at the median and in the tail.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::{
    common::{Contender, Job, Result, Session, contender::ROUND_TRIP},
    plan::Plan,
    rows::{Key, Samples},
};

pub(crate) const BENCH: &str = "round_trip";
pub(crate) const P50: &str = "p50_us";
pub(crate) const P99: &str = "p99_us";
pub(crate) const P99_9: &str = "p99.9_us";
/// Processor time of both ends for each round trip.
pub(crate) const CPU: &str = "cpu_us";

const SIZES: [usize; 3] = [64, 1 << 10, 16 << 10];

/// Round trips between two looks at the clock.
const BATCH: u64 = 500;

/// Nanoseconds that a round trip is taken to last at most.
const LONGEST: u64 = 10_000_000_000;

pub(crate) fn run(plan: &Plan, samples: &mut Samples) -> Result<()> {
    for bytes in SIZES {
        for contender in ROUND_TRIP {
            let latencies = measure(contender, bytes, plan.round_trips())?;
            let mut add = |metric, value| samples.add(Key { bench: BENCH, bytes, contender, metric }, value);
            for (metric, quantile) in [(P50, 0.5), (P99, 0.99), (P99_9, 0.999)] {
                add(metric, latencies.nanos.value_at_quantile(quantile) as f64 / 1e3);
            }
            add(CPU, latencies.cpu.as_secs_f64() * 1e6 / latencies.nanos.len() as f64);
        }
    }
    Ok(())
}

struct Latencies {
    nanos: Histogram<u64>,
    cpu: Duration,
}

fn measure(contender: Contender, bytes: usize, time: Duration) -> Result<Latencies> {
    let mut session = Session::open(contender, Job::Echo(bytes))?;
    // Lets what adapts find its way.
    repeat(time / 4, || session.round_trips(BATCH, drop).map(drop))?;
    let mut nanos = Histogram::new_with_bounds(1, LONGEST, 3)?;
    let mut cpu = Duration::ZERO;
    repeat(time, || {
        cpu += session.round_trips(BATCH, |took| nanos.saturating_record(took.as_nanos() as u64))?.cpu;
        Ok(())
    })?;
    Ok(Latencies { nanos, cpu })
}

/// Runs `batch` again and again until the time is over, at least once.
fn repeat(time: Duration, mut batch: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    loop {
        batch()?;
        if start.elapsed() >= time {
            return Ok(());
        }
    }
}
