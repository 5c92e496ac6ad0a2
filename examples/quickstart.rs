//! Two processes, one port, two connections: one through shared memory, one through TCP.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```
//!
//! This process is the client. It starts itself once more as the server, connects to it with SMC-D and then without,
//! and moves the same data over both. Each block is checksummed at both ends, outside the time that is measured.
//! The exit status is zero if all checksums matched and the first connection was SMC-D.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use smcd::{Handshake, SmcConfig, SmcListener, SmcStream, Transport};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::Command,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const PING: usize = 64;
const PINGS: usize = 20_000;
const BLOCK: usize = 8 << 20;
const BLOCKS: usize = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("server") { server().await } else { client().await }
}

/// Serves two connections. The listener takes SMC-D and TCP clients alike.
async fn server() -> Result<()> {
    let listener = SmcListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let mut block = vec![0; BLOCK];
    for _ in 0..2 {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut ping = [0; PING];
        for _ in 0..PINGS {
            stream.read_exact(&mut ping).await?;
            stream.write_all(&ping).await?;
        }
        for _ in 0..BLOCKS {
            stream.read_exact(&mut block).await?;
            stream.write_u8(1).await?; // It is all there: stops the client's clock.
            stream.write_u32(crc32fast::hash(&block)).await?;
        }
        for round in 0..BLOCKS {
            fill(&mut block, !round as u64);
            stream.read_u8().await?; // The client's clock is running.
            stream.write_all(&block).await?;
            stream.write_u32(crc32fast::hash(&block)).await?;
        }
    }
    Ok(())
}

async fn client() -> Result<()> {
    let program = std::env::current_exe()?;
    let mut server = Command::new(program).arg("server").stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut address = String::new();
    BufReader::new(server.stdout.take().ok_or("no output")?).read_line(&mut address).await?;
    println!("server: process {} on {}", server.id().unwrap_or(0), address.trim());
    println!("client: process {}\n", std::process::id());

    // All that differs between the two: one setting.
    let smcd = measure(address.trim(), SmcConfig::new()).await?;
    let tcp = measure(address.trim(), SmcConfig::new().handshake(Handshake::Off)).await?;

    println!("What transport() says (for SMC-D with the GIDs of the client's and the server's device):");
    println!("  first connection:   {}", smcd.transport);
    println!("  second connection:  {}", tcp.transport);
    println!("\n{:<28}{:>14}{:>14}{:>9}", "", "SMC-D", "TCP", "ratio");
    for (name, time) in [
        ("64 B round trip, median", [smcd.round_trip, tcp.round_trip]),
        ("64 B round trip, mean", [smcd.mean_round_trip, tcp.mean_round_trip]),
    ] {
        let micros = time.map(|time| time.as_secs_f64() * 1e6);
        print_row(name, micros, "µs", micros[1] / micros[0]);
    }
    for (name, time) in [
        ("client to server, median", [smcd.upload, tcp.upload]),
        ("server to client, median", [smcd.download, tcp.download]),
    ] {
        let speed = time.map(|time| BLOCK as f64 / time.as_secs_f64() / 1e9);
        print_row(name, speed, "GB/s", speed[0] / speed[1]);
    }
    println!("\nchecksums: {} blocks of {} MiB went over, all equal at both ends", 4 * BLOCKS, BLOCK >> 20);

    if !server.wait().await?.success() {
        return Err("the server failed".into());
    }
    match smcd.transport.fallback_reason() {
        None => Ok(()),
        Some(reason) => Err(format!("SMC-D was not reached: {reason}").into()),
    }
}

fn print_row(name: &str, [smcd, tcp]: [f64; 2], unit: &str, ratio: f64) {
    println!("{name:<28}{:>14}{:>14}{ratio:>7.1} x", format!("{smcd:.2} {unit}"), format!("{tcp:.2} {unit}"));
}

struct Measured {
    transport: Transport,
    round_trip: Duration,
    mean_round_trip: Duration,
    upload: Duration,
    download: Duration,
}

async fn measure(address: &str, config: SmcConfig) -> Result<Measured> {
    let mut stream = SmcStream::connect_with(address, &config).await?;
    stream.set_nodelay(true)?;
    let (mut trips, mut uploads, mut downloads) = (Vec::new(), Vec::new(), Vec::new());
    let mut ping = [7; PING];
    for _ in 0..PINGS {
        let start = Instant::now();
        stream.write_all(&ping).await?;
        stream.read_exact(&mut ping).await?;
        trips.push(start.elapsed());
    }
    let mut block = vec![0; BLOCK];
    for round in 0..BLOCKS {
        fill(&mut block, round as u64);
        let start = Instant::now();
        stream.write_all(&block).await?;
        stream.read_u8().await?;
        uploads.push(start.elapsed());
        compare(stream.read_u32().await?, crc32fast::hash(&block))?;
    }
    for _ in 0..BLOCKS {
        let start = Instant::now();
        stream.write_u8(1).await?;
        stream.read_exact(&mut block).await?;
        downloads.push(start.elapsed());
        compare(stream.read_u32().await?, crc32fast::hash(&block))?;
    }
    Ok(Measured {
        transport: stream.transport(),
        mean_round_trip: trips.iter().sum::<Duration>() / trips.len() as u32,
        round_trip: median(trips),
        upload: median(uploads),
        download: median(downloads),
    })
}

fn compare(peer: u32, ours: u32) -> Result<()> {
    if peer == ours { Ok(()) } else { Err(format!("checksum {peer:08x} there, {ours:08x} here").into()) }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Fills `block` with numbers that differ from place to place and from seed to seed.
fn fill(block: &mut [u8], seed: u64) {
    for (at, word) in (0u64..).zip(block.chunks_exact_mut(8)) {
        word.copy_from_slice(&(at ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
}
