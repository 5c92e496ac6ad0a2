//! Connections that were busy once and now do nothing: what they cost.

use std::time::Duration;

use crate::{
    common::{
        Contender, Job, Peer, Result,
        contender::{SMCD, SMCD_BUSY_POLL, TCP},
        cpu, peer,
        session::promote,
    },
    plan::Plan,
    rows::{Key, Samples},
};

pub(crate) const BENCH: &str = "idle";
/// Processor time of both ends over the whole idle time.
pub(crate) const CPU: &str = "cpu_s";

const MESSAGE: usize = 64;

const JOB: Job = Job::Sink(MESSAGE);

pub(crate) fn run(plan: &Plan, samples: &mut Samples) -> Result<()> {
    peer::raise_descriptor_limit()?;
    for contender in [SMCD, SMCD_BUSY_POLL, TCP] {
        let cpu = measure(contender, plan)?;
        samples.add(Key { bench: BENCH, bytes: 0, contender, metric: CPU }, cpu.as_secs_f64());
    }
    Ok(())
}

fn measure(contender: Contender, plan: &Plan) -> Result<Duration> {
    let mut peer = Peer::start(contender, JOB)?;
    if let Some((ours, _)) = cpu::places() {
        cpu::pin(ours)?;
    }
    peer::runtime()?.block_on(async {
        let mut clock = peer.clock().await?;
        for _ in 0..plan.idle_connections() {
            let mut idle = peer.connect().await?;
            promote(&mut idle, JOB).await?;
            // Waits for what never comes, as a server does.
            tokio::spawn(async move { idle.recv(&mut [0; MESSAGE]).await });
        }
        clock.rest(plan.idle_time()).await
    })
}
