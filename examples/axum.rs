//! An axum server for SMC-D and TCP clients.
//!
//! Type in one terminal
//!
//! ```text
//! cargo run --features axum --example axum
//! ```
//!
//! and in another one or both of
//!
//! ```text
//! curl http://127.0.0.1:3000/
//! cargo run --features hyper --example hyper -- client http://127.0.0.1:3000/
//! ```
//!
//! The server greets each client by its address. An address to listen on may follow `axum`.

use std::{env, io, net::SocketAddr};

use axum::{Router, extract::ConnectInfo, routing::get, serve::ListenerExt};
use smcd::SmcListener;

#[tokio::main]
async fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = SmcListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    serve(listener).await
}

/// Serves the clients of a listener.
pub async fn serve(listener: SmcListener) -> io::Result<()> {
    // So that handlers learn the address of the client.
    let listener = listener.tap_io(|_| {});
    let app = Router::new().route("/", get(greet));
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
}

async fn greet(ConnectInfo(client): ConnectInfo<SocketAddr>) -> String {
    format!("hello, {client}\n")
}
