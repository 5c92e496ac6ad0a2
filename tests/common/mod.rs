//! What the tests share: pairs of streams, and other processes.
#![allow(dead_code, missing_docs, unreachable_pub, unused_imports)]

#[cfg(feature = "vfio-user")]
pub mod ism;
pub mod namespace;
mod process;
pub mod random;
pub mod region;
mod settings;
pub mod soft_ism;

use std::{future::Future, time::Duration};

pub use process::*;
pub use settings::*;
use smcd::{Promotion, SmcConfig, SmcListener, SmcStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A connected pair that is promoted, in both directions.
pub async fn promoted_pair() -> (SmcStream, SmcStream) {
    let (mut client, mut server) =
        pair_with(&promoting(Promotion::Eager), &promoting(Promotion::Eager)).await;
    promote(&mut client, &mut server).await;
    (client, server)
}

/// Sends messages to and fro until both directions have been switched.
pub async fn promote(client: &mut SmcStream, server: &mut SmcStream) {
    let switched = |stream: &SmcStream| {
        let counts = stream.byte_counts();
        counts.received > 0 && counts.sent > 0
    };
    for i in 0..200u8 {
        if switched(client) && switched(server) {
            return;
        }
        exchange(client, server, i).await;
        exchange(server, client, i).await;
    }
    panic!("not promoted: {} and {}", client.transport(), server.transport());
}

/// Sends a byte one way.
pub async fn exchange(from: &mut SmcStream, to: &mut SmcStream, byte: u8) {
    let (sending, mut got) = ([byte], [0]);
    let (sent, received) = tokio::join!(from.write_all(&sending), to.read_exact(&mut got));
    sent.unwrap();
    received.unwrap();
    assert_eq!(got, [byte]);
}

/// A connected pair: the client with the first settings, the server with the second.
pub async fn pair_with(client: &SmcConfig, server: &SmcConfig) -> (SmcStream, SmcStream) {
    let listener = SmcListener::bind_with("127.0.0.1:0", server.clone()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(SmcStream::connect_with(addr, client), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

/// A connected pair by SMC-D.
pub async fn pair() -> (SmcStream, SmcStream) {
    let (client, server) = pair_with(&config(), &config()).await;
    assert!(client.transport().is_smcd() && server.transport().is_smcd());
    (client, server)
}

/// Fails a test that hangs.
pub async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("hangs")
}

/// A runtime with a single thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
