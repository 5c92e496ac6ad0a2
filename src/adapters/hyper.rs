//! A connector for the client of hyper-util, and for whatever else takes a `Service<Uri>`.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Uri, uri::Scheme};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tower_service::Service;

use crate::{SmcConfig, SmcStream};

/// Connects to the host of a URI by an [`SmcStream`], as `hyper_util`'s `HttpConnector` does by a `TcpStream`.
///
/// # Examples
///
/// ```no_run
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use smcd::adapters::hyper::SmcConnector;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder(TokioExecutor::new()).build(SmcConnector::new());
/// let request = hyper::Request::get("http://127.0.0.1:8080/").body(String::new())?;
/// let response = client.request(request).await?;
/// println!("{}", response.status());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SmcConnector {
    config: Arc<SmcConfig>,
    enforce_http: bool,
    nodelay: bool,
}

impl SmcConnector {
    /// A connector with the default settings.
    pub fn new() -> Self {
        Self::with_config(SmcConfig::default())
    }

    /// A connector with these settings.
    pub fn with_config(config: SmcConfig) -> Self {
        Self { config: config.into(), enforce_http: true, nodelay: false }
    }

    /// Sets whether URIs must have the scheme `http`, which is the default. A connector that adds TLS on top takes
    /// others.
    pub fn enforce_http(&mut self, is_enforced: bool) {
        self.enforce_http = is_enforced;
    }

    /// Sets whether the TCP connections have `TCP_NODELAY`. The default is no. Shared memory never delays.
    pub fn set_nodelay(&mut self, nodelay: bool) {
        self.nodelay = nodelay;
    }

    async fn connect(self, uri: Uri) -> io::Result<TokioIo<SmcStream>> {
        let target = Target::of(&uri, self.enforce_http)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = SmcStream::connect_with((target.host, target.port), &self.config).await?;
        stream.set_nodelay(self.nodelay)?;
        Ok(TokioIo::new(stream))
    }
}

impl Default for SmcConnector {
    fn default() -> Self {
        Self::new()
    }
}

impl Service<Uri> for SmcConnector {
    type Response = TokioIo<SmcStream>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        Connecting(Box::pin(self.clone().connect(uri)))
    }
}

/// A connection under way. Dropping it gives the connection up.
#[must_use = "futures do nothing unless polled"]
pub struct Connecting(Pin<Box<dyn Future<Output = io::Result<TokioIo<SmcStream>>> + Send>>);

impl Future for Connecting {
    type Output = io::Result<TokioIo<SmcStream>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connecting")
    }
}

/// For connectors of one's own that give a `TokioIo<SmcStream>`.
impl Connection for SmcStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// Where a URI leads.
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    host: &'a str,
    port: u16,
}

/// A URI that leads nowhere.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum BadUri {
    #[error("the URI has another scheme than http")]
    NotHttp,
    #[error("the URI names no host")]
    NoHost,
}

impl<'a> Target<'a> {
    fn of(uri: &'a Uri, enforce_http: bool) -> Result<Self, BadUri> {
        if enforce_http && uri.scheme() != Some(&Scheme::HTTP) {
            return Err(BadUri::NotHttp);
        }
        let host = uri.host().ok_or(BadUri::NoHost)?;
        // The brackets around an IPv6 address belong to the URI.
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let default_port = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        Ok(Self { host, port: uri.port_u16().unwrap_or(default_port) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_lead_to_hosts_and_ports() {
        for (uri, enforce_http, target) in [
            ("http://host:81/x", true, Ok(("host", 81))),
            ("http://host", true, Ok(("host", 80))),
            ("http://[::1]:82", true, Ok(("::1", 82))),
            ("http://127.0.0.1/", true, Ok(("127.0.0.1", 80))),
            ("https://host", true, Err(BadUri::NotHttp)),
            ("https://host", false, Ok(("host", 443))),
            ("/path", true, Err(BadUri::NotHttp)),
            ("/path", false, Err(BadUri::NoHost)),
        ] {
            let target = target.map(|(host, port)| Target { host, port });
            assert_eq!(Target::of(&uri.parse().unwrap(), enforce_http), target, "{uri}");
        }
    }
}
