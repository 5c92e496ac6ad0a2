//! Other crates on our streams: unmodified clients against our servers, our clients against unmodified servers, ours
//! against ours. What is ours is the code of the examples.
#![allow(dead_code, unreachable_pub)]

mod axum;
mod codec;
#[path = "../common/mod.rs"]
mod common;
mod hyper;
mod redis;
mod tonic;

use std::{fmt::Debug, future::Future, net::SocketAddr};

use smcd::{Handshake, SmcConfig, SmcListener, SmcStream};
use tokio::net::TcpListener;

/// Settings against a server that may be an unmodified one on TCP.
fn against_unmodified() -> SmcConfig {
    SmcConfig::new().handshake(Handshake::Off)
}

/// A listener of ours, and its address.
async fn our_listener() -> (SmcListener, SocketAddr) {
    let listener = SmcListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An unmodified listener, and its address.
async fn tcp_listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A client of ours, connected to a server of ours: by SMC-D.
async fn our_client(address: SocketAddr) -> SmcStream {
    let stream = SmcStream::connect(address).await.unwrap();
    assert!(stream.transport().is_smcd());
    stream
}

/// Runs a server until the client is through. Fails if either takes a wrong turn or too long.
async fn with_server<T>(server: impl Future<Output: Debug>, client: impl Future<Output = T>) -> T {
    tokio::select! {
        end = server => panic!("the server has ended: {end:?}"),
        result = common::in_time(client) => result,
    }
}
