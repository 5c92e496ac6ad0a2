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

use smcd::{Promotion, SmcConfig, SmcListener, SmcStream};
use tokio::net::TcpListener;

/// Settings by which connections are promoted as soon as the other end wants it too, with a stack of their own.
fn eager() -> SmcConfig {
    common::promoting(Promotion::Eager)
}

/// Makes sure that both ends of a connection with these settings have agreed on SMC-D.
fn assert_promoted(config: &SmcConfig) {
    let totals = config.stack.as_ref().unwrap().totals();
    assert!(totals.connections > 0, "{totals:?}");
}

/// A listener of ours, and its address.
async fn our_listener() -> (SmcListener, SocketAddr) {
    let listener = SmcListener::bind_with("127.0.0.1:0", eager()).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An unmodified listener, and its address.
async fn tcp_listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A client of ours, connected to a server of ours.
async fn our_client(address: SocketAddr) -> SmcStream {
    SmcStream::connect_with(address, &eager()).await.unwrap()
}

/// Runs a server until the client is through. Fails if either takes a wrong turn or too long.
async fn with_server<T>(server: impl Future<Output: Debug>, client: impl Future<Output = T>) -> T {
    tokio::select! {
        end = server => panic!("the server has ended: {end:?}"),
        result = common::in_time(client) => result,
    }
}
