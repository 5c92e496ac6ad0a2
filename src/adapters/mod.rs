//! What other crates ask of streams and listeners beyond the traits of tokio. Each adapter has a feature of its name.
//!
//! | crate | feature | server | client |
//! |---|---|---|---|
//! | axum | `axum` | `axum::serve` takes an [`SmcListener`](crate::SmcListener) | |
//! | hyper | `hyper` | `hyper_util::rt::TokioIo` around a stream | `hyper::SmcConnector` |
//! | tonic | `tonic` | `tonic::SmcIncoming` | `hyper::SmcConnector` |
//!
//! Crates that are content with `AsyncRead` and `AsyncWrite` need none. Among them are the codecs of tokio-util
//! (`Framed::new(stream, codec)`), and redis (`MultiplexedConnection::new(info, stream)`).
//!
//! `examples/` has a program for each of these crates.

#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(feature = "tonic")]
pub mod tonic;
