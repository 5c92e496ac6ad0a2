//! What the two ends of a case's connections say to each other.

use std::{io::Read, net::SocketAddr};

use anyhow::{Context, ensure};

use crate::{
    party::{Client, Party, Server},
    seen::Way,
};

/// Connections of a case, one after the other: where they are SMC-D, the second one has a link group.
pub(crate) const CONNECTIONS: usize = 2;

/// Bytes that go each way.
const PAYLOAD: usize = 200_000;

/// The client's part of a case.
pub(crate) fn ask_all(client: &Client, server: SocketAddr) -> anyhow::Result<Vec<Way>> {
    (0..CONNECTIONS).map(|_| ask(client.connect(server).context("connecting")?)).collect()
}

/// The server's part.
pub(crate) fn serve_all(server: &Server) -> anyhow::Result<Vec<Way>> {
    (0..CONNECTIONS).map(|_| serve(server.accept().context("accepting")?)).collect()
}

/// Sends, and gets other bytes back, till the end.
fn ask(mut party: Box<dyn Party>) -> anyhow::Result<Way> {
    party.write_all(&pattern(1))?;
    expect(&mut party, &pattern(2))?;
    Ok(party.way())
}

fn serve(mut party: Box<dyn Party>) -> anyhow::Result<Way> {
    expect(&mut party, &pattern(1))?;
    party.write_all(&pattern(2))?;
    let way = party.way();
    ensure!(party.read(&mut [0])? == 0, "bytes behind the last one");
    Ok(way)
}

fn expect(party: &mut impl Read, expected: &[u8]) -> anyhow::Result<()> {
    let mut got = vec![0; expected.len()];
    party.read_exact(&mut got)?;
    let wrong = got.iter().zip(expected).position(|(got, expected)| got != expected);
    ensure!(wrong.is_none(), "byte {wrong:?} is not what was sent");
    Ok(())
}

/// Bytes without a short period: what is lost, doubled or moved shows.
fn pattern(seed: u64) -> Vec<u8> {
    let byte = |i: u64| ((i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    (0..PAYLOAD as u64).map(byte).collect()
}
