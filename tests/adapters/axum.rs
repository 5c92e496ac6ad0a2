//! axum.

use std::net::SocketAddr;

use ::axum::{Router, body::Bytes, extract::ConnectInfo, routing, serve::ListenerExt};
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use smcd::{SmcConfig, adapters::hyper::SmcConnector};

use crate::{
    assert_promoted, eager,
    hyper::{client, get, post},
    our_listener, tcp_listener, with_server,
};

#[path = "../../examples/axum.rs"]
mod example;

/// Below axum's limit for bodies.
const LARGE: usize = 1_900_000;

fn app() -> Router {
    Router::new().route("/echo", routing::post(async |body: Bytes| body)).route(
        "/who",
        routing::get(async |ConnectInfo(client): ConnectInfo<SocketAddr>| client.ip().to_string()),
    )
}

async fn ask(connector: impl Connect + Clone + Send + Sync + 'static, address: SocketAddr) {
    let client = client(connector, false);
    for len in [0, 1, LARGE] {
        post(&client, &format!("http://{address}/echo"), len).await;
    }
    assert_eq!(get(&client, &format!("http://{address}/who")).await, "127.0.0.1");
}

#[tokio::test]
async fn an_unmodified_client_at_our_server() {
    let (listener, address) = our_listener().await;
    let app = app().into_make_service_with_connect_info::<SocketAddr>();
    let server = async { ::axum::serve(listener.tap_io(|_| {}), app).await };
    with_server(server, ask(HttpConnector::new(), address)).await;
}

#[tokio::test]
async fn our_client_at_an_unmodified_server() {
    let (listener, address) = tcp_listener().await;
    let app = app().into_make_service_with_connect_info::<SocketAddr>();
    let server = async { ::axum::serve(listener, app).await };
    with_server(server, ask(SmcConnector::with_config(eager()), address)).await;
}

#[tokio::test]
async fn our_client_at_our_server() {
    let (listener, address) = our_listener().await;
    let app = app().into_make_service_with_connect_info::<SocketAddr>();
    let server = async { ::axum::serve(listener.tap_io(|_| {}), app).await };
    let config = eager();
    with_server(server, ask(SmcConnector::with_config(config.clone()), address)).await;
    assert_promoted(&config);
}

#[tokio::test]
async fn a_listener_serves_without_wrapping() {
    let (listener, address) = our_listener().await;
    let app = Router::new().route("/", routing::get(async || "here"));
    let server = async { ::axum::serve(listener, app).await };
    let client = client(SmcConnector::new(), false);
    assert_eq!(with_server(server, get(&client, &format!("http://{address}/"))).await, "here");
}

#[tokio::test]
async fn the_example() {
    for config in [SmcConfig::new(), eager()] {
        let (listener, address) = our_listener().await;
        let client = client(SmcConnector::with_config(config), false);
        let url = format!("http://{address}/");
        let body = with_server(example::serve(listener), get(&client, &url)).await;
        assert!(body.starts_with(b"hello, 127.0.0.1:"), "{body:?}");
    }
}
