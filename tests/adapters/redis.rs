//! The async client of redis-rs, against a real server.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use smcd::SmcStream;
use tokio::net::TcpStream;

use crate::{common::in_time, eager, our_client, our_listener, tcp_listener, with_server};

#[path = "../../examples/redis.rs"]
mod example;

/// A server that ends with the test.
struct Redis {
    process: Child,
    address: SocketAddr,
}

impl Redis {
    /// `None`, and a word about it, if there is no `redis-server` here.
    async fn start() -> Option<Self> {
        // Free again when the server takes it, unless somebody is faster.
        let address = tcp_listener().await.1;
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let process = match process {
            Ok(process) => process,
            Err(error) => {
                eprintln!("SKIPPED: redis-server cannot be started: {error}");
                return None;
            }
        };
        let redis = Self { process, address };
        in_time(async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        Some(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn our_client_at_an_unmodified_server() {
    let Some(redis) = Redis::start().await else { return };
    for expected in 1..=3 {
        let stream = SmcStream::connect_with(redis.address, &eager()).await.unwrap();
        assert_eq!(in_time(example::count(stream, "key")).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn our_client_at_our_gateway() {
    let Some(redis) = Redis::start().await else { return };
    let (listener, address) = our_listener().await;
    with_server(example::gateway(listener, redis.address.to_string()), async {
        for expected in 1..=3 {
            assert_eq!(example::count(our_client(address).await, "key").await.unwrap(), expected);
        }
    })
    .await;
}
