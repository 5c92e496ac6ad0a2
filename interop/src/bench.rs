//! What is measured of a connection, and how.

use std::{fmt, time::Instant};

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use crate::{party::Party, seen::Way};

/// How often all is measured, interleaved. The medians count.
pub(crate) const ROUNDS: usize = 5;

/// Bytes each way, in pieces.
const BYTES: usize = 8 << 20;
const PIECE: usize = 64 << 10;

const ROUND_TRIPS: u32 = 500;
const MESSAGE: usize = 64;

/// What the client has seen.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Rates {
    /// Bytes a second to the server, and from it.
    pub(crate) to_server: f64,
    pub(crate) to_client: f64,
    /// Seconds of a round trip.
    pub(crate) round_trip: f64,
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to_server, to_client, round_trip } = self;
        write!(f, "{:.1} and {:.1} MB/s, {:.0} µs", to_server / 1e6, to_client / 1e6, round_trip * 1e6)
    }
}

type Stream = Box<dyn Party>;

/// The client's part. Nothing is compared, which would take longer than what is measured.
pub(crate) fn measure(mut stream: Stream) -> anyhow::Result<Rates> {
    // What happens only once is not measured.
    ping(&mut stream)?;
    let to_server = rate(|| {
        pour(&mut stream)?;
        stream.read_exact(&mut [0])
    })?;
    let to_client = rate(|| {
        stream.write_all(&[0])?;
        drain(&mut stream)
    })?;
    let began = Instant::now();
    (0..ROUND_TRIPS).try_for_each(|_| ping(&mut stream))?;
    let round_trip = began.elapsed().as_secs_f64() / f64::from(ROUND_TRIPS);
    Ok(Rates { to_server, to_client, round_trip })
}

/// The server's part.
pub(crate) fn serve(mut stream: Stream) -> anyhow::Result<Way> {
    pong(&mut stream)?;
    drain(&mut stream)?;
    stream.write_all(&[0])?;
    stream.read_exact(&mut [0])?;
    pour(&mut stream)?;
    (0..ROUND_TRIPS).try_for_each(|_| pong(&mut stream))?;
    ensure!(stream.read(&mut [0])? == 0, "bytes behind the last one");
    Ok(stream.way())
}

fn rate(work: impl FnOnce() -> std::io::Result<()>) -> anyhow::Result<f64> {
    let began = Instant::now();
    work()?;
    Ok(BYTES as f64 / began.elapsed().as_secs_f64())
}

fn pour(stream: &mut Stream) -> std::io::Result<()> {
    let piece = vec![0x5a; PIECE];
    (0..BYTES / PIECE).try_for_each(|_| stream.write_all(&piece))
}

fn drain(stream: &mut Stream) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    (0..BYTES / PIECE).try_for_each(|_| stream.read_exact(&mut piece))
}

fn ping(stream: &mut Stream) -> std::io::Result<()> {
    stream.write_all(&[1; MESSAGE])?;
    stream.read_exact(&mut [0; MESSAGE])
}

fn pong(stream: &mut Stream) -> std::io::Result<()> {
    let mut message = [0; MESSAGE];
    stream.read_exact(&mut message)?;
    stream.write_all(&message)
}
