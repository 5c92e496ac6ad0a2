//! The async client of redis-rs by an `SmcStream`, and a gateway that brings SMC-D to a Redis server that knows
//! nothing of it.
//!
//! With a Redis server on 127.0.0.1:6379, type in one terminal
//!
//! ```text
//! cargo run --example redis -- gateway
//! ```
//!
//! and in another
//!
//! ```text
//! cargo run --example redis -- client
//! ```
//!
//! The client counts, on the server, how often it ran. The addresses may follow, as in
//! `gateway 127.0.0.1:6380 127.0.0.1:6379` and `client 127.0.0.1:6380` (the defaults).

use std::{env, error::Error};

use redis::{AsyncCommands, AsyncConnectionConfig, RedisConnectionInfo, aio::MultiplexedConnection};
use smcd::{SmcListener, SmcStream};
use tokio::{io, net::TcpStream};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = |i, default: &str| env::args().nth(i).unwrap_or_else(|| default.into());
    let gateway_at = address(2, "127.0.0.1:6380");
    match env::args().nth(1).as_deref() {
        Some("gateway") => gateway(SmcListener::bind(gateway_at).await?, address(3, "127.0.0.1:6379")).await,
        Some("client") => {
            let stream = SmcStream::connect(gateway_at).await?;
            println!("run {} times", count(stream, "smcd:runs").await?);
            Ok(())
        }
        _ => Err("usage: redis gateway|client [ADDRESS] [REDIS]".into()),
    }
}

/// Connects each client of a listener to the Redis server.
pub async fn gateway(listener: SmcListener, redis: String) -> Result<(), Box<dyn Error>> {
    loop {
        let (mut from_client, peer) = listener.accept().await?;
        println!("{peer}: connected");
        let redis = redis.clone();
        tokio::spawn(async move {
            let mut to_redis = TcpStream::connect(redis).await?;
            io::copy_bidirectional(&mut from_client, &mut to_redis).await
        });
    }
}

/// Adds one to a counter of the server, and says what it is then.
pub async fn count(stream: SmcStream, key: &str) -> Result<u64, Box<dyn Error>> {
    let (info, config) = (RedisConnectionInfo::default(), AsyncConnectionConfig::default());
    let (mut redis, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
    tokio::spawn(driver);
    Ok(redis.incr(key, 1).await?)
}
