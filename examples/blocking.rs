//! Threads instead of a runtime: an echo server after `std::net`, and a client that says what becomes of its
//! connection. Needs no tokio.
//!
//! Type in one terminal
//!
//! ```text
//! cargo run --release --no-default-features --example blocking -- server
//! ```
//!
//! and in another
//!
//! ```text
//! cargo run --release --no-default-features --example blocking -- client
//! ```
//!
//! The client sends small messages, each when the last one has come back, and counts in rounds. The connection begins
//! as TCP, and is promoted within the first of them. An address may follow, as in `server 127.0.0.1:6143` (the
//! default). Plain TCP programs work at either end.

use std::{
    env,
    io::{self, Read, Write},
    thread,
    time::Instant,
};

use smcd::blocking::{SmcListener, SmcStream};

const ROUNDS: usize = 5;
const MESSAGES: u32 = 10_000;

fn main() -> io::Result<()> {
    let role = env::args().nth(1);
    let address = env::args().nth(2).unwrap_or_else(|| "127.0.0.1:6143".into());
    match role.as_deref() {
        Some("server") => server(&address),
        Some("client") => client(&address),
        _ => Err(io::Error::other("usage: blocking server|client [ADDRESS]")),
    }
}

fn server(address: &str) -> io::Result<()> {
    let listener = SmcListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            let echoed = io::copy(&mut &stream, &mut &stream);
            println!("closed after {echoed:?} bytes, last by {}", stream.transport());
        });
    }
    Ok(())
}

fn client(address: &str) -> io::Result<()> {
    let mut stream = SmcStream::connect(address)?;
    println!("connected by {}", stream.transport());
    let mut message = [0; 64];
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for number in 0..MESSAGES {
            message[..4].copy_from_slice(&number.to_ne_bytes());
            stream.write_all(&message)?;
            stream.read_exact(&mut message)?;
        }
        println!("{:?} per round trip, now by {}", start.elapsed() / MESSAGES, stream.transport());
    }
    Ok(())
}
