//! One-way throughput, and the processor time that it costs.

use crate::{
    common::{Contender, Job, Result, Session, contender::ONE_WAY, session::Batch},
    plan::Plan,
    rows::{Key, Samples},
};

pub(crate) const BENCH: &str = "throughput";
pub(crate) const RATE: &str = "GB/s";
pub(crate) const CPU: &str = "cpu_s_per_gb";

const SIZES: [usize; 7] = [64, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

pub(crate) fn run(plan: &Plan, samples: &mut Samples) -> Result<()> {
    for bytes in SIZES {
        for contender in ONE_WAY {
            let messages = plan.messages(bytes);
            let batch = measure(contender, bytes, messages)?;
            let gigabytes = (messages * bytes as u64) as f64 / 1e9;
            let mut add = |metric, value| samples.add(Key { bench: BENCH, bytes, contender, metric }, value);
            add(RATE, gigabytes / batch.elapsed.as_secs_f64());
            add(CPU, batch.cpu.as_secs_f64() / gigabytes);
        }
    }
    Ok(())
}

fn measure(contender: Contender, bytes: usize, messages: u64) -> Result<Batch> {
    let mut session = Session::open(contender, Job::Sink(bytes))?;
    // Touches all memory and lets what adapts find its way.
    session.one_way(messages.div_ceil(8))?;
    session.one_way(messages)
}
