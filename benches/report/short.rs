//! Short connections: connect, ask, be answered, close. They never carry enough to be promoted, so this is what
//! SMC-D costs where it is of no use.
//!
//! The client closes first, so its ports stay in TIME_WAIT for a minute. They are in nobody's way: each measurement has
//! a server of its own, and so another port at the far end.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::{
    common::{
        Clock, Contender, Job, Peer, Result, Stream,
        contender::{SMCD, TCP},
        cpu,
        figures::median_of,
        peer,
    },
    plan::Plan,
    rows::{Key, Samples},
};

pub(crate) const BENCH: &str = "short";
pub(crate) const SEQUENCE: Names =
    Names { rate: "sequence_per_s", ratio: "sequence_times_tcp", cpu: "sequence_cpu_us" };
pub(crate) const PARALLEL: Names =
    Names { rate: "parallel_per_s", ratio: "parallel_times_tcp", cpu: "parallel_cpu_us" };

/// Metrics of one way to make connections.
pub(crate) struct Names {
    pub(crate) rate: &'static str,
    /// The rate as a share of that of TCP, by the medians of the turns of a run: what disturbs a few turns, or changes
    /// from run to run, does not show in it.
    pub(crate) ratio: &'static str,
    /// Processor time of both ends for each connection.
    pub(crate) cpu: &'static str,
}

/// Bytes of a request, and of its answer.
const MESSAGE: usize = 100;

/// Connections at once in the second row.
const LANES: usize = 8;

/// Connections in a row of one contender, before it is the other's turn: what disturbs is to meet both.
const TURN: usize = 50;

pub(crate) fn run(plan: &Plan, samples: &mut Samples) -> Result<()> {
    for (lanes, names) in [(1, SEQUENCE), (LANES, PARALLEL)] {
        let [smcd, tcp] = measure(lanes, plan.short_connections())?;
        let mut add = |contender, metric, value| {
            samples.add(Key { bench: BENCH, bytes: 0, contender, metric }, value);
        };
        for (contender, spent) in [(SMCD, &smcd), (TCP, &tcp)] {
            add(contender, names.rate, spent.rate());
            add(contender, names.cpu, spent.cpu.as_secs_f64() * 1e6 / spent.connections as f64);
        }
        let [smcd, tcp] = [smcd, tcp].map(|mut spent| median_of(&mut spent.turns));
        add(SMCD, names.ratio, tcp / smcd);
    }
    Ok(())
}

#[derive(Default)]
struct Spent {
    connections: usize,
    elapsed: Duration,
    cpu: Duration,
    /// Seconds that each turn took.
    turns: Vec<f64>,
}

impl Spent {
    /// Connections per second.
    fn rate(&self) -> f64 {
        self.connections as f64 / self.elapsed.as_secs_f64()
    }
}

/// SMC-D and TCP by turns.
fn measure(lanes: usize, connections: usize) -> Result<[Spent; 2]> {
    let mut servers = [Server::start(SMCD)?, Server::start(TCP)?];
    if let Some((ours, _)) = cpu::places() {
        cpu::pin(ours)?;
    }
    peer::runtime()?.block_on(async {
        for server in &mut servers {
            server.open().await?;
            server.turn(lanes).await?;
            server.spent = Spent::default();
        }
        while servers.iter().any(|server| server.spent.connections < connections) {
            // Who goes first takes turns too.
            for at in [0, 1, 1, 0] {
                servers[at].turn(lanes).await?;
            }
        }
        Ok(servers.map(|server| server.spent))
    })
}

struct Server {
    contender: Contender,
    peer: Peer,
    clock: Option<Clock>,
    spent: Spent,
}

impl Server {
    fn start(contender: Contender) -> Result<Self> {
        let peer = Peer::start(contender, Job::Answer(MESSAGE))?;
        Ok(Self { contender, peer, clock: None, spent: Spent::default() })
    }

    async fn open(&mut self) -> Result<()> {
        self.clock = Some(self.peer.clock().await?);
        Ok(())
    }

    async fn turn(&mut self, lanes: usize) -> Result<()> {
        let (contender, address) = (self.contender, self.peer.address());
        let clock = self.clock.as_mut().ok_or("no clock")?;
        let each = TURN.div_ceil(lanes);
        let ((), batch) = clock
            .time(async || {
                let mut all = JoinSet::new();
                for _ in 0..lanes {
                    let address = address.to_owned();
                    all.spawn(async move {
                        for _ in 0..each {
                            ask(contender, &address).await.map_err(|error| error.to_string())?;
                        }
                        Ok::<_, String>(())
                    });
                }
                while let Some(lane) = all.join_next().await {
                    lane??;
                }
                Ok(())
            })
            .await?;
        self.spent.connections += lanes * each;
        self.spent.elapsed += batch.elapsed;
        self.spent.cpu += batch.cpu;
        self.spent.turns.push(batch.elapsed.as_secs_f64());
        Ok(())
    }
}

/// One connection, from beginning to end.
async fn ask(contender: Contender, address: &str) -> Result<()> {
    let mut stream = Stream::connect(contender, address).await?;
    let mut message = [0x5a; MESSAGE];
    stream.send(&message).await?;
    Ok(stream.recv_exact(&mut message).await?)
}
