//! An HTTP client and a server of hyper.
//!
//! Type in one terminal
//!
//! ```text
//! cargo run --features hyper --example hyper -- server
//! ```
//!
//! and in another
//!
//! ```text
//! cargo run --features hyper --example hyper -- client http://127.0.0.1:8080/hello
//! ```
//!
//! The server answers with the path that it was asked for. `curl` works against it too. An address to listen on may
//! follow `server`.

use std::{convert::Infallible, env, error::Error};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use smcd::{SmcListener, adapters::hyper::SmcConnector};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let argument = env::args().nth(2);
    match env::args().nth(1).as_deref() {
        Some("server") => {
            let listener = SmcListener::bind(argument.unwrap_or_else(|| "127.0.0.1:8080".into())).await?;
            println!("listening on {}", listener.local_addr()?);
            serve(listener).await
        }
        Some("client") => {
            let url = argument.unwrap_or_else(|| "http://127.0.0.1:8080/hello".into());
            print!("{}", get(SmcConnector::new(), &url).await?);
            Ok(())
        }
        _ => Err("usage: hyper server [ADDRESS] | client [URL]".into()),
    }
}

/// Serves the clients of a listener.
pub async fn serve(listener: SmcListener) -> Result<(), Box<dyn Error>> {
    loop {
        let (stream, peer) = listener.accept().await?;
        println!("{peer}: connected");
        tokio::spawn(async move {
            let connection = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = connection.serve_connection(TokioIo::new(stream), service_fn(answer)).await {
                println!("{peer}: {error}");
            }
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    Ok(Response::new(format!("you asked for {}\n", request.uri().path())))
}

/// The body at a URL.
pub async fn get(connector: SmcConnector, url: &str) -> Result<String, Box<dyn Error>> {
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let response = client.request(Request::get(url).body(Empty::<Bytes>::new())?).await?;
    Ok(String::from_utf8(response.into_body().collect().await?.to_bytes().into())?)
}
