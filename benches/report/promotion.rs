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
//! What promotion has to do depends on what there is already:
//!
//! - *first*: the first connection of two processes. Besides first contact, all its code and data is touched for the
//!   first time.
//! - *contact*: first contact, of processes that have promoted others before: a new link group, new buffers.
//! - *beside*: a connection beside others between the same processes: new buffers.
//! - *later*: a connection after another one: it gets the buffers of that.

use std::time::{Duration, Instant};

use smcd::{SmcConfig, SmcStream, Stack, dibs::loopback::DmbLimits};

use crate::{
    common::{
        Clock, Job, Peer, Result, Stream,
        contender::{SMCD_EAGER, TCP},
        cpu,
        figures::median_of,
        peer,
    },
    plan::Plan,
    rows::{Key, Samples},
};

pub(crate) const BENCH: &str = "promotion";
/// Time and processor time of both ends, by which buffers the connection gets.
pub(crate) const FIRST: &str = "first_us";
pub(crate) const FIRST_CPU: &str = "first_cpu_us";
pub(crate) const CONTACT: &str = "contact_us";
pub(crate) const CONTACT_CPU: &str = "contact_cpu_us";
pub(crate) const BESIDE: &str = "beside_us";
pub(crate) const BESIDE_CPU: &str = "beside_cpu_us";
pub(crate) const LATER: &str = "later_us";
pub(crate) const LATER_CPU: &str = "later_cpu_us";
/// Round trips until both directions have moved.
pub(crate) const ROUNDS: &str = "round_trips";

const MESSAGE: usize = 64;

/// Round trips in which promotion has to be over.
const AT_MOST: usize = 32;

pub(crate) fn run(plan: &Plan, samples: &mut Samples) -> Result<()> {
    let promoting = Peer::start(SMCD_EAGER, Job::Answer(MESSAGE))?;
    let plain = Peer::start(TCP, Job::Answer(MESSAGE))?;
    if let Some((ours, _)) = cpu::places() {
        cpu::pin(ours)?;
    }
    let mut add =
        |metric, value| samples.add(Key { bench: BENCH, bytes: 0, contender: SMCD_EAGER, metric }, value);
    peer::runtime()?.block_on(async {
        let mut ends = Ends { promoting: End::new(promoting).await?, plain: End::new(plain).await? };
        let mut all_rounds = Vec::new();
        for (buffers, time, cpu) in [
            (Buffers::First, FIRST, FIRST_CPU),
            (Buffers::Contact, CONTACT, CONTACT_CPU),
            (Buffers::Beside, BESIDE, BESIDE_CPU),
            (Buffers::Later, LATER, LATER_CPU),
        ] {
            let connections = if buffers == Buffers::First { 1 } else { plan.promotions() };
            let kind = ends.measure(buffers, connections).await?;
            all_rounds.extend(kind.promoted.iter().map(|one| one.rounds.len() as f64));
            add(time, kind.excess());
            add(cpu, kind.excess_cpu());
        }
        add(ROUNDS, median_of(&mut all_rounds));
        Ok(())
    })
}

/// What there is already when a connection is promoted; see the module.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Buffers {
    First,
    Contact,
    Beside,
    Later,
}

/// A connection, measured.
struct Measured {
    /// What each round trip took, and whether a part of it went by shared memory.
    rounds: Vec<(Duration, bool)>,
    cpu: Duration,
}

/// Connections that get their buffers in the same way, and as many plain ones.
#[derive(Default)]
struct Kind {
    promoted: Vec<Measured>,
    usual: Vec<Measured>,
}

impl Kind {
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

struct Ends {
    promoting: End,
    plain: End,
}

impl Ends {
    /// Promoted connections and plain ones by turns.
    async fn measure(&mut self, buffers: Buffers, connections: usize) -> Result<Kind> {
        let mut kind = Kind::default();
        let keep = buffers != Buffers::Later;
        for _ in 0..connections {
            let config = match buffers {
                // Another device of ours is another peer for the other end.
                Buffers::Contact => {
                    SMCD_EAGER.smc_config().stack(Stack::with_loopback(DmbLimits::default())?)
                }
                _ => SMCD_EAGER.smc_config(),
            };
            let promoted = self.promoting.connection(Some(config), AT_MOST, keep).await?;
            let usual = self.plain.connection(None, promoted.rounds.len(), keep).await?;
            kind.promoted.push(promoted);
            kind.usual.push(usual);
        }
        // The kept ones have to be gone, at both ends, before others can get their buffers.
        self.promoting.let_go().await?;
        self.plain.let_go().await?;
        Ok(kind)
    }
}

/// This end of all connections with one process.
struct End {
    peer: Peer,
    clock: Clock,
    kept: Vec<Stream>,
}

impl End {
    async fn new(peer: Peer) -> Result<Self> {
        let clock = peer.clock().await?;
        Ok(Self { peer, clock, kept: Vec::new() })
    }

    /// A connection by SMC-D with these settings, until both directions have moved; or by TCP, with so many round trips.
    async fn connection(
        &mut self,
        config: Option<SmcConfig>,
        at_most: usize,
        keep: bool,
    ) -> Result<Measured> {
        let address = self.peer.address();
        let ((rounds, stream), batch) = self
            .clock
            .time(async || {
                let mut stream = match &config {
                    Some(config) => Stream::Smcd(SmcStream::connect_with(address, config).await?),
                    None => Stream::connect(TCP, address).await?,
                };
                stream.set_nodelay(true)?;
                let until_moved = config.is_some();
                let rounds = round_trips(&mut stream, at_most, until_moved).await?;
                Ok((rounds, keep.then_some(stream)))
            })
            .await?;
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

async fn round_trips(
    stream: &mut Stream,
    at_most: usize,
    until_moved: bool,
) -> Result<Vec<(Duration, bool)>> {
    let mut message = [0x5a; MESSAGE];
    let mut all = Vec::with_capacity(at_most);
    while all.len() < at_most && !(until_moved && stream.is_promoted()) {
        let before = Instant::now();
        stream.send(&message).await?;
        stream.recv_exact(&mut message).await?;
        all.push((before.elapsed(), stream.has_moved()));
    }
    stream.check()?;
    Ok(all)
}
