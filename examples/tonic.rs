//! A gRPC server and its client: the health service, which comes with tonic.
//!
//! Type in one terminal
//!
//! ```text
//! cargo run --features tonic --example tonic -- server
//! ```
//!
//! and in another
//!
//! ```text
//! cargo run --features tonic --example tonic -- client
//! ```
//!
//! The client asks whether the server is well. An address may follow, as in `server 127.0.0.1:50051` (the default).

use std::{env, error::Error};

use smcd::{
    SmcListener,
    adapters::{hyper::SmcConnector, tonic::SmcIncoming},
};
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(2).unwrap_or_else(|| "127.0.0.1:50051".into());
    match env::args().nth(1).as_deref() {
        Some("server") => {
            let listener = SmcListener::bind(address).await?;
            println!("listening on {}", listener.local_addr()?);
            serve(listener).await
        }
        Some("client") => {
            let channel = connect(SmcConnector::new(), format!("http://{address}")).await?;
            println!("the server is {}", status(channel).await?.as_str_name());
            Ok(())
        }
        _ => Err("usage: tonic server|client [ADDRESS]".into()),
    }
}

/// Serves the clients of a listener.
pub async fn serve(listener: SmcListener) -> Result<(), Box<dyn Error>> {
    let (_, health) = tonic_health::server::health_reporter();
    Ok(Server::builder().add_service(health).serve_with_incoming(SmcIncoming::from(listener)).await?)
}

/// A channel to a server.
pub async fn connect(connector: SmcConnector, url: String) -> Result<Channel, Box<dyn Error>> {
    Ok(Endpoint::from_shared(url)?.connect_with_connector(connector).await?)
}

/// What the server says of itself.
pub async fn status(channel: Channel) -> Result<ServingStatus, Box<dyn Error>> {
    let response = HealthClient::new(channel).check(HealthCheckRequest::default()).await?;
    Ok(response.into_inner().status())
}
