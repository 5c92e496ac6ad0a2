//! Very many connections that do nothing, all promoted: what each keeps of the system.
//!
//! Resident memory of a process is divided so:
//!
//! - *ring pages*: the pages of buffers, its own and the peer's, that have held messages and cursors. Each page counts
//!   in both processes, though it is there once.
//! - *overhead*: all the rest that was not there before. That is the page behind each buffer with the words by which
//!   the ends wake each other (again counted in both processes), the heap (with this program's tasks), and the page
//!   tables. Plain TCP connections, measured in the same way, tell which part has nothing to do with SMC-D.
//!
//! What the kernel keeps for sockets, mappings and memory files is not known by process, and in neither.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::{
    common::{
        Contender, Job, Peer, Result, Stream,
        contender::{SMCD_EAGER, TCP},
        cpu, peer,
        process::{Memory, PAGE, Process},
    },
    plan::Plan,
    rows::{Key, Samples},
};

pub(crate) const BENCH: &str = "many";
/// So many connections the limit of descriptors allowed.
pub(crate) const CONNECTIONS: &str = "connections";
/// For each connection, in the process that connects, and in the one that accepts.
pub(crate) const CLIENT: &str = "client_kib";
pub(crate) const SERVER: &str = "server_kib";
/// For each connection, in either process.
pub(crate) const RINGS: &str = "rings_kib";
pub(crate) const DESCRIPTORS: &str = "descriptors";
/// Connecting all and promoting them.
pub(crate) const SETUP: &str = "setup_s";
/// Processor time of both ends while all are idle.
pub(crate) const CPU: &str = "idle_cpu_s";

const MESSAGE: usize = 64;

/// Descriptors that a promoted connection keeps in each process.
const EACH: usize = 3;

/// Descriptors for everything else: those under way in a promotion, for one.
const SPARE: usize = 1000;

/// Connections that are set up at once.
const LANES: usize = 32;

/// Exchanges in which a connection has to be promoted.
const AT_MOST: usize = 400;

pub(crate) fn run(plan: &Plan, samples: &mut Samples) -> Result<()> {
    let limit = peer::raise_descriptor_limit()?;
    let connections = plan.many_connections().min(limit.saturating_sub(SPARE) / EACH);
    for contender in [SMCD_EAGER, TCP] {
        let measured = measure(contender, connections, plan.idle_time())?;
        let mut add = |metric, value| samples.add(Key { bench: BENCH, bytes: 0, contender, metric }, value);
        let each = |bytes: u64| bytes as f64 / 1024.0 / connections as f64;
        add(CONNECTIONS, connections as f64);
        if contender == SMCD_EAGER {
            // Those by TCP come second, and use what the others have left.
            add(CLIENT, each(measured.ours.overhead()));
        }
        add(SERVER, each(measured.theirs.overhead()));
        add(RINGS, each(measured.ours.rings().max(measured.theirs.rings())));
        add(DESCRIPTORS, measured.descriptors as f64 / connections as f64);
        add(SETUP, measured.setup.as_secs_f64());
        add(CPU, measured.cpu.as_secs_f64());
    }
    Ok(())
}

struct Measured {
    ours: Memory,
    theirs: Memory,
    /// In either process.
    descriptors: usize,
    setup: Duration,
    cpu: Duration,
}

impl Memory {
    /// What has come since.
    fn since(self, before: Self) -> Self {
        Self {
            dmb: self.dmb.saturating_sub(before.dmb),
            dmbs: self.dmbs.saturating_sub(before.dmbs),
            rest: self.rest.saturating_sub(before.rest),
            tables: self.tables.saturating_sub(before.tables),
        }
    }

    fn rings(self) -> u64 {
        self.dmb.saturating_sub(self.dmbs * PAGE)
    }

    fn overhead(self) -> u64 {
        self.dmb - self.rings() + self.rest + self.tables
    }
}

fn measure(contender: Contender, connections: usize, idle: Duration) -> Result<Measured> {
    let peer = Peer::start(contender, Job::Answer(MESSAGE))?;
    let (us, them) = (Process::own(), Process::of(peer.pid()));
    if let Some((ours, _)) = cpu::places() {
        cpu::pin(ours)?;
    }
    peer::runtime()?.block_on(async {
        let mut clock = peer.clock().await?;
        let before = (us.memory()?, them.memory()?, us.descriptors()?, them.descriptors()?);
        let (streams, setup) =
            clock.time(async || set_up(contender, peer.address(), connections).await).await?;
        let mut waiting = JoinSet::new();
        for mut stream in streams {
            // Waits for what never comes, as a server does.
            waiting.spawn(async move { stream.recv(&mut [0; MESSAGE]).await });
        }
        // Lets each of them fall asleep.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let cpu = clock.rest(idle).await?;
        let descriptors = (us.descriptors()? - before.2).max(them.descriptors()? - before.3);
        Ok(Measured {
            ours: us.memory()?.since(before.0),
            theirs: them.memory()?.since(before.1),
            descriptors,
            setup: setup.elapsed,
            cpu,
        })
    })
}

async fn set_up(contender: Contender, address: &str, connections: usize) -> Result<Vec<Stream>> {
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let address = address.to_owned();
        lanes.spawn(async move {
            let mut streams = Vec::new();
            for _ in (lane..connections).step_by(LANES) {
                streams.push(promoted(contender, &address).await.map_err(|error| error.to_string())?);
            }
            Ok::<_, String>(streams)
        });
    }
    let mut all = Vec::with_capacity(connections);
    while let Some(streams) = lanes.join_next().await {
        all.append(&mut streams??);
    }
    Ok(all)
}

async fn promoted(contender: Contender, address: &str) -> Result<Stream> {
    let mut stream = Stream::connect(contender, address).await?;
    let mut message = [0x5a; MESSAGE];
    for done in 0..AT_MOST {
        if done > 0 && stream.is_promoted() {
            break;
        }
        stream.send(&message).await?;
        stream.recv_exact(&mut message).await?;
    }
    stream.check()?;
    Ok(stream)
}
