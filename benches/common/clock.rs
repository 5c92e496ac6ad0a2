//! What both processes use while something happens between them.

use std::time::{Duration, Instant};

use super::{
    Job, Result, Stream,
    session::{Batch, batch},
};

/// A connection whose batches say so; they carry nothing else.
pub(crate) struct Clock(Stream);

impl Clock {
    /// What the other end does with it.
    pub(super) const JOB: Job = Job::Sink(1);

    pub(super) fn new(stream: Stream) -> Self {
        Self(stream)
    }

    /// Runs `work`. The time is that of `work` alone; the processor time has the batch in it, which is a round trip
    /// more.
    pub(crate) async fn time<T>(&mut self, work: impl AsyncFnOnce() -> Result<T>) -> Result<(T, Batch)> {
        let mut done = None;
        let batch = batch(&mut self.0, 1, async |clock: &mut Stream| {
            let start = Instant::now();
            let result = work().await?;
            done = Some((result, start.elapsed()));
            Ok(clock.send(&[0]).await?)
        })
        .await?;
        let (result, elapsed) = done.ok_or("nothing was done")?;
        Ok((result, Batch { elapsed, ..batch }))
    }

    /// Lets so much time go by, and says how much processor time that took.
    pub(crate) async fn rest(&mut self, time: Duration) -> Result<Duration> {
        let work = async || {
            tokio::time::sleep(time).await;
            Ok(())
        };
        Ok(self.time(work).await?.1.cpu)
    }
}
