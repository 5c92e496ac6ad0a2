//! What promotion costs, once, and apart from what it saves afterwards.
//!
//! Both ends promote as early as they can, and exchange messages to and fro. There is no thread behind the promotion:
//! its steps are taken in the application's reads and writes at both ends, and since each message waits for the one
//! before, what a step takes at either end makes that round trip longer. So the time is the sum, over all round trips
//! up to the one in which the second direction moves, of what they take more than the same round trip (the first, the
//! second, ...) of a plain TCP connection, whose median is known from connections in between. Round trips in which one
//! direction has moved already are faster; that is not set off. What a step does while the other end is busy too
//! costs nobody time, but processor time: that is the difference between whole connections, with connecting and
//! closing, and as many round trips by TCP.
//!
//! Buffers are new at the first connection of two processes, which also has to touch code and data that no connection
//! has touched before; they are new for a connection beside others; and they are used ones for a connection after
//! another one.

use std::time::{Duration, Instant};

use crate::{
    common::{
        Clock, Contender, Job, Peer, Result, Stream,
        contender::{SMCD_EAGER, TCP},
        cpu, peer,
    },
    plan::Plan,
    rows::{Key, Samples, median_of},
};

pub(crate) const BENCH: &str = "promotion";
/// Time and processor time of both ends, by which buffers the connection gets.
pub(crate) const FIRST: &str = "first_us";
pub(crate) const FIRST_CPU: &str = "first_cpu_us";
pub(crate) const BESIDE: &str = "beside_us";
pub(crate) const BESIDE_CPU: &str = "beside_cpu_us";
pub(crate) const LATER: &str = "later_us";
pub(crate) const LATER_CPU: &str = "later_cpu_us";
/// Round trips until both directions have moved.
pub(crate) const ROUNDS: &str = "round_trips";

const MESSAGE: usize = 64;

/// Round trips in which promotion has to be over.
const AT_MOST: usize = 32;

/// Pairs of processes in a run, and connections of each kind of each pair.
const PAIRS: usize = 5;

pub(crate) fn run(plan: &Plan, samples: &mut Samples) -> Result<()> {
    let mut kinds = [Kind::new(FIRST, FIRST_CPU), Kind::new(BESIDE, BESIDE_CPU), Kind::new(LATER, LATER_CPU)];
    let mut rounds = Vec::new();
    let connections = plan.promotions();
    if let Some((ours, _)) = cpu::places() {
        cpu::pin(ours)?;
    }
    for _ in 0..PAIRS {
        let (promoting, plain) =
            (Peer::start(SMCD_EAGER, Job::Answer(MESSAGE))?, Peer::start(TCP, Job::Answer(MESSAGE))?);
        peer::runtime()?.block_on(async {
            let mut promoting = End::new(SMCD_EAGER, promoting).await?;
            let mut plain = End::new(TCP, plain).await?;
            for (number, kind) in kinds.iter_mut().enumerate() {
                // The first is the only one of its kind.
                for _ in 0..if number == 0 { 1 } else { connections } {
                    let keep = number < 2;
                    let promoted = promoting.connection(None, keep).await?;
                    let usual = plain.connection(Some(promoted.rounds.len()), keep).await?;
                    rounds.push(promoted.rounds.len() as f64);
                    kind.add(promoted, usual);
                }
                // The kept ones have to be gone, at both ends, before others can get their buffers.
                promoting.let_go().await?;
                plain.let_go().await?;
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
    }
    let mut add =
        |metric, value| samples.add(Key { bench: BENCH, bytes: 0, contender: SMCD_EAGER, metric }, value);
    for kind in kinds {
        add(kind.time, kind.excess());
        add(kind.cpu, kind.excess_cpu());
    }
    add(ROUNDS, median_of(&mut rounds));
    Ok(())
}

/// A connection, measured.
struct Measured {
    /// What each round trip took, and whether a part of it went by shared memory.
    rounds: Vec<(Duration, bool)>,
    cpu: Duration,
}

/// Connections that get the same kind of buffers, and as many plain ones.
struct Kind {
    time: &'static str,
    cpu: &'static str,
    promoted: Vec<Measured>,
    usual: Vec<Measured>,
}

impl Kind {
    fn new(time: &'static str, cpu: &'static str) -> Self {
        Self { time, cpu, promoted: Vec::new(), usual: Vec::new() }
    }

    fn add(&mut self, promoted: Measured, usual: Measured) {
        self.promoted.push(promoted);
        self.usual.push(usual);
    }

    /// The median over the connections, in microseconds.
    fn excess(&self) -> f64 {
        let usual: Vec<f64> = (0..AT_MOST).map_while(|at| self.usual(at)).collect();
        let excess_of = |one: &Measured| {
            one.rounds
                .iter()
                .zip(&usual)
                .map(|(&(took, moved), usual)| {
                    let excess = micros(took) - usual;
                    if moved { excess.max(0.0) } else { excess }
                })
                .sum::<f64>()
        };
        median_of(&mut self.promoted.iter().map(excess_of).collect::<Vec<_>>())
    }

    /// The median of the round trip with this number by TCP.
    fn usual(&self, at: usize) -> Option<f64> {
        let mut took: Vec<f64> =
            self.usual.iter().filter_map(|one| Some(micros(one.rounds.get(at)?.0))).collect();
        (!took.is_empty()).then(|| median_of(&mut took))
    }

    fn excess_cpu(&self) -> f64 {
        let cpu =
            |all: &[Measured]| median_of(&mut all.iter().map(|one| micros(one.cpu)).collect::<Vec<_>>());
        cpu(&self.promoted) - cpu(&self.usual)
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// This end of all connections with one process.
struct End {
    contender: Contender,
    peer: Peer,
    clock: Clock,
    kept: Vec<Stream>,
}

impl End {
    async fn new(contender: Contender, peer: Peer) -> Result<Self> {
        let clock = peer.clock().await?;
        Ok(Self { contender, peer, clock, kept: Vec::new() })
    }

    /// A connection with so many round trips, or until both directions have moved.
    async fn connection(&mut self, rounds: Option<usize>, keep: bool) -> Result<Measured> {
        let (contender, address) = (self.contender, self.peer.address());
        let (measured, batch) = self
            .clock
            .time(async || {
                let mut stream = Stream::connect(contender, address).await?;
                stream.set_nodelay(true)?;
                let took = round_trips(&mut stream, rounds).await?;
                Ok((took, keep.then_some(stream)))
            })
            .await?;
        let (rounds, stream) = measured;
        self.kept.extend(stream);
        Ok(Measured { rounds, cpu: batch.cpu })
    }

    async fn let_go(&mut self) -> Result<()> {
        self.kept.clear();
        // Two batches, so that the other end has been through its event loop.
        for _ in 0..2 {
            self.clock.time(async || Ok(())).await?;
        }
        Ok(())
    }
}

async fn round_trips(stream: &mut Stream, rounds: Option<usize>) -> Result<Vec<(Duration, bool)>> {
    let mut message = [0x5a; MESSAGE];
    let mut all = Vec::with_capacity(AT_MOST);
    while rounds.map_or(all.is_empty() || !stream.is_promoted(), |rounds| all.len() < rounds) {
        if all.len() == AT_MOST {
            stream.check()?;
        }
        let before = Instant::now();
        stream.send(&message).await?;
        stream.recv_exact(&mut message).await?;
        all.push((before.elapsed(), stream.has_moved()));
    }
    Ok(all)
}
