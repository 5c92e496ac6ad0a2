//! An echo server and its client.
//!
//! Type in one terminal
//!
//! ```text
//! cargo run --example echo -- server
//! ```
//!
//! and in another
//!
//! ```text
//! cargo run --example echo -- client
//! ```
//!
//! Lines that you type at the client come back. Both sides say how they are connected: by TCP at first, and after a few
//! lines by SMC-D. An address may follow, as in `server 127.0.0.1:6142` (the default). With `RUST_LOG=smcd=debug` in
//! front, the library says what it does.
//!
//! A plain TCP client works against this server: try `nc 127.0.0.1 6142`. So does this client against a plain TCP
//! server.

use std::{env, net::SocketAddr};

use smcd::{Promotion, SmcConfig, SmcListener, SmcStream};
use tokio::io::{self, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

#[tokio::main]
async fn main() -> io::Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let role = env::args().nth(1);
    let address = env::args().nth(2).unwrap_or_else(|| "127.0.0.1:6142".into());
    match role.as_deref() {
        Some("server") => server(&address).await,
        Some("client") => client(&address).await,
        _ => Err(io::Error::other("usage: echo server|client [ADDRESS]")),
    }
}

/// By default a connection must carry more than a few lines before it is promoted.
fn config() -> SmcConfig {
    SmcConfig::new().promotion(Promotion::Eager)
}

async fn server(address: &str) -> io::Result<()> {
    let listener = SmcListener::bind_with(address, config()).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept().await?;
        tokio::spawn(async move {
            match echo(stream, peer).await {
                Ok(bytes) => println!("{peer}: closed after {bytes} bytes"),
                Err(error) => println!("{peer}: {error}"),
            }
        });
    }
}

async fn echo(mut stream: SmcStream, peer: SocketAddr) -> io::Result<usize> {
    let mut transport = stream.transport();
    println!("{peer}: connected by {transport}");
    let mut buf = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        let n = stream.read(&mut buf).await?;
        if n == 0 {
            return Ok(total);
        }
        stream.write_all(&buf[..n]).await?;
        total += n;
        if stream.transport() != transport {
            transport = stream.transport();
            println!("{peer}: now by {transport}");
        }
    }
}

async fn client(address: &str) -> io::Result<()> {
    let stream = SmcStream::connect_with(address, &config()).await?;
    let mut transport = stream.transport();
    println!("connected by {transport}");
    let (mut from_server, mut to_server) = stream.into_split();
    let printer = tokio::spawn(async move { io::copy(&mut from_server, &mut io::stdout()).await });
    let mut lines = BufReader::new(io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        to_server.write_all(format!("{line}\n").as_bytes()).await?;
        let stream: &SmcStream = to_server.as_ref();
        if stream.transport() != transport {
            transport = stream.transport();
            println!("now by {transport}");
        }
    }
    // The server reads to the end, answers what is left, and closes.
    to_server.shutdown().await?;
    printer.await??;
    Ok(())
}
