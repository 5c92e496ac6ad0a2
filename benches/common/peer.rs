//! The process at the other end: this program again, with hidden arguments.
//!
//! Over each connection come batches. A batch begins with its size (8 bytes); then come the messages; the other end
//! answers with a [`Report`]. So nothing but the connection itself is needed to start and stop the clocks. Where that
//! would disturb, the messages come as they are, and a connection of its own is the [`Clock`].

use std::{
    env,
    hint::black_box,
    io::{self, BufRead, BufReader, Write},
    process::{Child, Command, Stdio, exit},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use tokio::runtime::{Builder, Runtime};

use super::{
    Clock, Contender, READ_BUFFER, Result, Transport,
    contender::TCP,
    cpu,
    ring::RingEnd,
    stream::{Listener, Stream},
};

const ARGUMENT: &str = "--peer";

/// Enough descriptors for all that is measured.
const DESCRIPTORS: u64 = 65_536;

/// What the other end does with each batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Job {
    /// Reads as many bytes as the batch says, in messages of this many bytes.
    Sink(usize),
    /// Sends back as many messages of this many bytes as the batch says.
    Echo(usize),
    /// Sends back every message of this many bytes, without batches. The first connection is a [`Clock`].
    Answer(usize),
}

impl Job {
    /// Bytes of a message.
    pub(crate) fn bytes(self) -> usize {
        let (Self::Sink(bytes) | Self::Echo(bytes) | Self::Answer(bytes)) = self;
        bytes
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Sink(_) => "sink",
            Self::Echo(_) => "echo",
            Self::Answer(_) => "answer",
        }
    }

    fn of(name: &str, bytes: usize) -> Result<Self> {
        match name {
            "sink" => Ok(Self::Sink(bytes)),
            "echo" => Ok(Self::Echo(bytes)),
            "answer" => Ok(Self::Answer(bytes)),
            other => Err(format!("no such job: {other}").into()),
        }
    }
}

/// What the other end answers to a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    /// Processor time that it used.
    pub(crate) cpu: Duration,
}

impl Report {
    pub(crate) const LEN: usize = 8;

    pub(crate) fn parse(bytes: [u8; Self::LEN]) -> Self {
        Self { cpu: Duration::from_nanos(u64::from_le_bytes(bytes)) }
    }

    fn emit(self) -> [u8; Self::LEN] {
        (self.cpu.as_nanos() as u64).to_le_bytes()
    }
}

/// The other process, from this side. It ends when this is dropped, or when this process ends.
pub(crate) struct Peer {
    contender: Contender,
    child: Child,
    address: String,
    ring: Option<RingEnd>,
}

impl Peer {
    pub(crate) fn start(contender: Contender, job: Job) -> Result<Self> {
        let (ring, stdin) = match contender.transport {
            Transport::Ring => {
                let (ring, memory) = RingEnd::create(cpu::pair().is_none())?;
                (Some(ring), Stdio::from(memory))
            }
            _ => (None, Stdio::null()),
        };
        let mut command = Command::new(env::current_exe()?);
        command.args([ARGUMENT, &contender.to_string(), job.name(), &job.bytes().to_string()]);
        command.args(cpu::places().map(|(_, theirs)| theirs.to_string()));
        let mut child = command.stdin(stdin).stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().ok_or("no pipe")?).read_line(&mut address)?;
        let peer = Self { contender, child, address: address.trim().to_owned(), ring };
        if peer.address.is_empty() {
            return Err(format!("{contender}: the other end did not start").into());
        }
        Ok(peer)
    }

    /// Another connection, without Nagle's algorithm. A ring has only one.
    pub(crate) async fn connect(&mut self) -> Result<Stream> {
        match self.ring.take() {
            Some(ring) => Ok(Stream::Ring(ring)),
            None => {
                let stream = Stream::connect(self.contender, &self.address).await?;
                stream.set_nodelay(true)?;
                Ok(stream)
            }
        }
    }

    /// A clock, by TCP. Comes before all other connections to a peer that is to [`Job::Answer`].
    pub(crate) async fn clock(&self) -> Result<Clock> {
        let stream = Stream::connect(TCP, &self.address).await?;
        stream.set_nodelay(true)?;
        Ok(Clock::new(stream))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A runtime of one thread, as both ends have it.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Has this process use as many descriptors as it may, and says how many these are.
pub(crate) fn raise_descriptor_limit() -> Result<usize> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Who is privileged may set a higher limit.
    let wanted = Some(maximum.unwrap_or(u64::MAX).max(DESCRIPTORS));
    if setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: wanted }).is_err() {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(usize::try_from(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)).unwrap_or(usize::MAX))
}

/// To be called first in `main`: never returns in a process that [`Peer::start`] started.
pub(crate) fn be_a_peer_if_asked() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == ARGUMENT) {
        if let Err(error) = be_a_peer(&arguments[1..]) {
            eprintln!("the other end: {error}");
            exit(1);
        }
        exit(0);
    }
}

fn be_a_peer(arguments: &[String]) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    raise_descriptor_limit()?;
    let [contender, job, bytes, cpu @ ..] = arguments else { return Err("arguments are missing".into()) };
    let contender: Contender = contender.parse()?;
    let job = Job::of(job, bytes.parse()?)?;
    // A parent that is pinned itself has left us only its own processor to see.
    let alone = cpu.is_empty() && cpu::pair().is_none();
    if let Some(cpu) = cpu.first() {
        cpu::pin(cpu.parse()?)?;
    }
    runtime()?.block_on(async {
        if contender.transport == Transport::Ring {
            let ring = RingEnd::join(io::stdin(), alone)?;
            announce("joined")?;
            return Ok(serve(Stream::Ring(ring), job).await?);
        }
        let (listener, address) = Listener::bind(contender).await?;
        announce(&address)?;
        if let Job::Answer(_) = job {
            tokio::spawn(serve(listener.accept().await?, Clock::JOB));
        }
        loop {
            let stream = listener.accept().await?;
            tokio::spawn(async move {
                let served = match job {
                    Job::Answer(bytes) => answer(stream, bytes).await,
                    Job::Sink(_) | Job::Echo(_) => serve(stream, job).await,
                };
                match served {
                    Err(error) if !is_end(&error) => eprintln!("the other end: {error}"),
                    _ => {}
                }
            });
        }
    })
}

fn announce(address: &str) -> io::Result<()> {
    println!("{address}");
    io::stdout().flush()
}

/// True if the connection ended as connections do here: between two batches.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

/// Does the job for every batch that comes.
async fn serve(mut stream: Stream, job: Job) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let bytes = job.bytes();
    let mut buf = vec![0; bytes.max(READ_BUFFER)];
    loop {
        let mut size = [0; 8];
        stream.recv_exact(&mut size).await?;
        let before = cpu::time();
        match job {
            Job::Sink(_) => sink(&mut stream, &mut buf, u64::from_le_bytes(size)).await?,
            Job::Echo(_) | Job::Answer(_) => {
                echo(&mut stream, &mut buf[..bytes], u64::from_le_bytes(size)).await?
            }
        }
        stream.send(&Report { cpu: cpu::time() - before }.emit()).await?;
    }
}

async fn sink(stream: &mut Stream, buf: &mut [u8], bytes: u64) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        match stream.recv(buf).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => left -= n as u64,
        }
        black_box(&buf);
    }
    Ok(())
}

/// Sends back what comes until the end.
async fn answer(mut stream: Stream, bytes: usize) -> io::Result<()> {
    let mut message = vec![0; bytes];
    loop {
        stream.recv_exact(&mut message).await?;
        stream.send(black_box(&message)).await?;
    }
}

async fn echo(stream: &mut Stream, message: &mut [u8], messages: u64) -> io::Result<()> {
    for _ in 0..messages {
        stream.recv_exact(message).await?;
        stream.send(black_box(message)).await?;
    }
    Ok(())
}
