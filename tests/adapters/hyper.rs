//! hyper, by HTTP/1 and HTTP/2.

use ::hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    service::service_fn,
};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, HttpConnector},
    },
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use smcd::{SmcConfig, adapters::hyper::SmcConnector};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{assert_promoted, common::pattern, eager, our_listener, tcp_listener, with_server};

#[path = "../../examples/hyper.rs"]
mod example;

/// More than the buffers on the way hold.
const LARGE: usize = 5 << 20;

/// Serves connections with a service that gives back the body of each request.
async fn echo<S>(accept: impl AsyncFn() -> S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    loop {
        let stream = accept().await;
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| async {
                Ok::<_, std::convert::Infallible>(Response::new(request.into_body()))
            });
            // What goes wrong here, the client finds out.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// A client of hyper-util.
pub fn client<C: Connect + Clone>(connector: C, http2: bool) -> Client<C, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).http2_only(http2).build(connector)
}

/// The body at a URL.
pub async fn get(
    client: &Client<impl Connect + Clone + Send + Sync + 'static, Full<Bytes>>,
    url: &str,
) -> Bytes {
    let response = client.get(url.parse().unwrap()).await.unwrap();
    response.into_body().collect().await.unwrap().to_bytes()
}

/// Sends so many bytes to a server that sends them back.
pub async fn post(
    client: &Client<impl Connect + Clone + Send + Sync + 'static, Full<Bytes>>,
    url: &str,
    len: usize,
) {
    let sent = Bytes::from(pattern(1, len));
    let request = Request::post(url).body(Full::from(sent.clone())).unwrap();
    let response = client.request(request).await.unwrap();
    assert!(response.into_body().collect().await.unwrap().to_bytes() == sent, "{len} bytes");
}

/// Requests of several sizes, one after the other and at once, by HTTP/1 and HTTP/2.
async fn ask(connector: impl Connect + Clone + Send + Sync + 'static, url: &str) {
    for http2 in [false, true] {
        let client = client(connector.clone(), http2);
        for len in [0, 1, 1000, LARGE] {
            post(&client, url, len).await;
        }
        tokio::join!(
            post(&client, url, 1),
            post(&client, url, 100_000),
            post(&client, url, LARGE),
            post(&client, url, 10)
        );
    }
}

#[tokio::test]
async fn an_unmodified_client_at_our_server() {
    let (listener, address) = our_listener().await;
    let server = echo(async || listener.accept().await.unwrap().0);
    with_server(server, ask(HttpConnector::new(), &format!("http://{address}/"))).await;
}

#[tokio::test]
async fn our_client_at_an_unmodified_server() {
    let (listener, address) = tcp_listener().await;
    let connector = SmcConnector::with_config(eager());
    let server = echo(async || listener.accept().await.unwrap().0);
    with_server(server, ask(connector, &format!("http://{address}/"))).await;
}

#[tokio::test]
async fn our_client_at_our_server() {
    let (listener, address) = our_listener().await;
    let server = echo(async || listener.accept().await.unwrap().0);
    let config = eager();
    with_server(server, ask(SmcConnector::with_config(config.clone()), &format!("http://{address}/"))).await;
    assert_promoted(&config);
}

#[tokio::test]
async fn the_example() {
    for config in [SmcConfig::new(), eager()] {
        let (listener, address) = our_listener().await;
        let url = format!("http://localhost:{}/hello", address.port());
        let client = example::get(SmcConnector::with_config(config), &url);
        let body = with_server(example::serve(listener), client).await.unwrap();
        assert_eq!(body, "you asked for /hello\n");
    }
}

#[tokio::test]
async fn a_connector_refuses_what_it_cannot_do() {
    for url in ["https://127.0.0.1:1/", "http://127.0.0.1:1/"] {
        assert!(example::get(SmcConnector::new(), url).await.is_err(), "{url}");
    }
}
