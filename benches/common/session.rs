//! One connection and what can be measured over it.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

use super::{
    Contender, Job, Mode, Peer, Result, Stream, cpu,
    peer::{Report, runtime},
};

/// What a batch took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    pub(crate) elapsed: Duration,
    /// Processor time of both processes.
    pub(crate) cpu: Duration,
}

/// A connection to a process of its own.
pub(crate) struct Session {
    stream: Stream,
    mode: Mode,
    message: Vec<u8>,
    runtime: Runtime,
    /// Last, so that it finds the connection closed before it ends.
    _peer: Peer,
}

impl Session {
    pub(crate) fn open(contender: Contender, job: Job) -> Result<Self> {
        let mut peer = Peer::start(contender, job)?;
        if let Some((ours, _)) = cpu::places() {
            cpu::pin(ours)?;
        }
        let runtime = runtime()?;
        let stream = runtime.block_on(async {
            let mut stream = peer.connect().await?;
            promote(&mut stream, job).await.map(|()| stream)
        })?;
        Ok(Self { stream, mode: contender.mode, message: vec![0x5a; job.bytes()], runtime, _peer: peer })
    }

    /// Sends so many messages one way, until the other end has read the last one.
    pub(crate) fn one_way(&mut self, messages: u64) -> Result<Batch> {
        let (stream, message) = (&mut self.stream, &self.message);
        let nodelay = self.mode == Mode::NoDelay;
        self.runtime.block_on(measured(
            stream,
            messages * message.len() as u64,
            async |stream: &mut Stream| {
                // The default, except for the tail: it would wait for an acknowledgement that may be delayed for 40 ms.
                stream.set_nodelay(nodelay)?;
                for _ in 0..messages {
                    stream.send(black_box(message)).await?;
                }
                Ok(stream.set_nodelay(true)?)
            },
        ))
    }

    /// Sends so many messages there and back, and says how long each took.
    pub(crate) fn round_trips(&mut self, messages: u64, mut took: impl FnMut(Duration)) -> Result<Batch> {
        let (stream, message) = (&mut self.stream, &mut self.message);
        self.runtime.block_on(measured(stream, messages, async |stream: &mut Stream| {
            let mut before = Instant::now();
            for _ in 0..messages {
                stream.send(message).await?;
                stream.recv_exact(message).await?;
                let now = Instant::now();
                took(now - before);
                before = now;
            }
            Ok(())
        }))
    }
}

/// Runs one batch of the size that the other end is told.
pub(crate) async fn batch(
    stream: &mut Stream,
    size: u64,
    messages: impl AsyncFnOnce(&mut Stream) -> Result<()>,
) -> Result<Batch> {
    let (start, cpu_before) = (Instant::now(), cpu::time());
    stream.send(&size.to_le_bytes()).await?;
    messages(stream).await?;
    let mut report = [0; Report::LEN];
    stream.recv_exact(&mut report).await?;
    let (elapsed, cpu) = (start.elapsed(), cpu::time() - cpu_before);
    Ok(Batch { elapsed, cpu: cpu + Report::parse(report).cpu })
}

/// As [`batch`], and fails if what was measured is not what it is said to be.
async fn measured(
    stream: &mut Stream,
    size: u64,
    messages: impl AsyncFnOnce(&mut Stream) -> Result<()>,
) -> Result<Batch> {
    stream.check()?;
    batch(stream, size, messages).await
}

/// Batches of a single message, on a new connection: a few in any case, and until an SMC-D stream has been promoted.
pub(crate) async fn promote(stream: &mut Stream, job: Job) -> Result<()> {
    const AT_LEAST: usize = 4;
    const AT_MOST: usize = 400;
    let mut message = vec![0; job.bytes()];
    for done in 0..AT_MOST {
        if done >= AT_LEAST && stream.is_promoted() {
            return Ok(());
        }
        let size = if let Job::Sink(bytes) = job { bytes as u64 } else { 1 };
        batch(stream, size, async |stream: &mut Stream| {
            stream.send(&message).await?;
            if let Job::Echo(_) = job {
                stream.recv_exact(&mut message).await?;
            }
            Ok(())
        })
        .await?;
    }
    Ok(stream.check()?)
}
