//! Waiting for the first bytes of a connection of tokio.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::{
    io::Interest,
    net::TcpStream,
    time::{timeout, timeout_at},
};

use super::{First, look};

/// Waits for the first bytes of `tcp`: for `patience` until the first, then until `deadline` for the rest of what
/// looks like an eyecatcher. Nothing is consumed.
///
/// # Errors
/// If the connection fails.
///
/// # Cancel safety
/// Nothing is lost.
pub(crate) async fn first_bytes(tcp: &TcpStream, patience: Duration, deadline: Instant) -> io::Result<First> {
    match timeout(patience, tcp.async_io(Interest::READABLE, || look(tcp))).await {
        Err(_) => return Ok(First::Silence),
        Ok(Err(error)) => return Err(error),
        Ok(Ok(Some(first))) => return Ok(first),
        Ok(Ok(None)) => {}
    }
    let rest = tcp.async_io(Interest::READABLE, || match look(tcp)? {
        None => Err(io::ErrorKind::WouldBlock.into()),
        Some(first) => Ok(first),
    });
    // Whoever sends a part of an eyecatcher and then nothing is no SMC endpoint.
    timeout_at(deadline.into(), rest).await.unwrap_or(Ok(First::Data))
}
