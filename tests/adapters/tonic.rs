//! tonic, by its health service: a call, and a stream of answers.

use std::{net::SocketAddr, time::Duration};

use ::tonic::{
    Request, Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use futures_util::Stream;
use smcd::{
    SmcConfig,
    adapters::{hyper::SmcConnector, tonic::SmcIncoming},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic_health::{
    ServingStatus,
    pb::{
        HealthCheckRequest, health_check_response, health_client::HealthClient, health_server::HealthServer,
    },
    server::HealthService,
};

use crate::{assert_promoted, eager, our_listener, tcp_listener, with_server};

#[path = "../../examples/tonic.rs"]
mod example;

/// Serves health that changes every few milliseconds, to clients whose address is known.
async fn serve<S>(incoming: impl Stream<Item = std::io::Result<S>>)
where
    S: AsyncRead + AsyncWrite + ::tonic::transport::server::Connected + Unpin + Send + 'static,
{
    let (reporter, _) = tonic_health::server::health_reporter();
    let service = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
    let checked = InterceptedService::new(service, |request: Request<()>| match request.remote_addr() {
        Some(_) => Ok(request),
        None => Err(Status::internal("no address")),
    });
    let server = Server::builder().add_service(checked).serve_with_incoming(incoming);
    let changes = async {
        for status in [ServingStatus::NotServing, ServingStatus::Serving].iter().cycle() {
            reporter.set_service_status("changing", *status).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        end = server => panic!("{end:?}"),
        () = changes => {}
    }
}

async fn ask(channel: Channel) {
    let calls = (0..100).map(|_| example::status(channel.clone()));
    for status in futures_util::future::join_all(calls).await {
        assert_eq!(status.unwrap(), health_check_response::ServingStatus::Serving);
    }
    let request = HealthCheckRequest { service: "changing".into() };
    let mut news = HealthClient::new(channel).watch(request).await.unwrap().into_inner();
    for _ in 0..5 {
        news.message().await.unwrap().expect("more news");
    }
}

/// A channel as tonic makes it by itself.
async fn unmodified(address: SocketAddr) {
    ask(Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()).await;
}

/// A channel by our connector.
async fn ours(config: SmcConfig, address: SocketAddr) {
    let connector = SmcConnector::with_config(config);
    ask(example::connect(connector, format!("http://{address}")).await.unwrap()).await;
}

#[tokio::test]
async fn an_unmodified_client_at_our_server() {
    let (listener, address) = our_listener().await;
    let incoming = SmcIncoming::from(listener).with_nodelay(Some(true));
    assert_eq!(incoming.local_addr().unwrap(), address);
    with_server(serve(incoming), unmodified(address)).await;
}

#[tokio::test]
async fn our_client_at_an_unmodified_server() {
    let (listener, address) = tcp_listener().await;
    with_server(serve(TcpIncoming::from(listener)), ours(eager(), address)).await;
}

#[tokio::test]
async fn our_client_at_our_server() {
    let (listener, address) = our_listener().await;
    let config = eager();
    with_server(serve(SmcIncoming::from(listener)), ours(config.clone(), address)).await;
    assert_promoted(&config);
}

#[tokio::test]
async fn the_example() {
    let (listener, address) = our_listener().await;
    let server = example::serve(listener);
    let status = with_server(server, async {
        let channel = example::connect(SmcConnector::new(), format!("http://{address}")).await.unwrap();
        example::status(channel).await.unwrap()
    });
    assert_eq!(status.await, health_check_response::ServingStatus::Serving);
}
