//! Connections that were busy once and now do nothing: what they cost.

use std::time::Duration;

use crate::{
    common::{
        Contender, Job, Peer, Result, Stream,
        contender::{SMCD, SMCD_BUSY_POLL, TCP},
        cpu, peer,
        session::batch,
    },
    plan::Plan,
    rows::{Key, Samples},
};

pub(crate) const BENCH: &str = "idle";
/// Processor time of both ends over the whole idle time.
pub(crate) const CPU: &str = "cpu_s";

const MESSAGE: usize = 64;

pub(crate) fn run(plan: &Plan, samples: &mut Samples) -> Result<()> {
    peer::raise_descriptor_limit()?;
    for contender in [SMCD, SMCD_BUSY_POLL, TCP] {
        let cpu = measure(contender, plan)?;
        samples.add(Key { bench: BENCH, bytes: 0, contender, metric: CPU }, cpu.as_secs_f64());
    }
    Ok(())
}

fn measure(contender: Contender, plan: &Plan) -> Result<Duration> {
    let mut peer = Peer::start(contender, Job::Sink(MESSAGE))?;
    if let Some((ours, _)) = cpu::places() {
        cpu::pin(ours)?;
    }
    peer::runtime()?.block_on(async {
        let mut clock = peer.connect().await?;
        for _ in 0..plan.idle_connections() {
            let mut idle = peer.connect().await?;
            traffic(&mut idle).await?;
            // Waits for what never comes, as a server does.
            tokio::spawn(async move { idle.recv(&mut [0; MESSAGE]).await });
        }
        // The other end's clock runs from the first message of this batch to its last one.
        let idle = batch(&mut clock, 1, async |clock: &mut Stream| {
            tokio::time::sleep(plan.idle_time()).await;
            Ok(clock.send(&[0]).await?)
        });
        Ok(idle.await?.cpu)
    })
}

/// Enough for a connection to find that staying awake pays, if it does.
async fn traffic(stream: &mut Stream) -> Result<()> {
    for _ in 0..4 {
        batch(stream, MESSAGE as u64, async |stream: &mut Stream| Ok(stream.send(&[0; MESSAGE]).await?))
            .await?;
    }
    Ok(())
}
