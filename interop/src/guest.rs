//! In the virtual machine: makes the connections, and writes down what the ends have to say.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};

use crate::{
    capture::Capture,
    case::{self, Case},
    netlink::SmcNetlink,
    party::{Client, Party, Server},
    seen::{Counted, Seen, Way},
};

/// Connections of a case, one after the other: where they are SMC-D, the second one has a link group.
pub(crate) const CONNECTIONS: usize = 2;

/// Bytes that go each way.
const PAYLOAD: usize = 200_000;

/// A case that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(40);

/// Ports of the servers, one for each case: none has to wait for another's.
const FIRST_PORT: u16 = 20_000;

pub(crate) fn run(share: &Path, names: &[&str]) -> anyhow::Result<()> {
    let netlink = SmcNetlink::open()?;
    let mut seen = Vec::new();
    for (case, port) in case::chosen(names)?.into_iter().zip(FIRST_PORT..) {
        println!("{}", case.name());
        seen.push(play(&case, port, &netlink, share)?);
        // At once: a case that stops the machine does not take the others with it.
        fs::write(share.join("seen.json"), serde_json::to_vec_pretty(&seen)?)?;
    }
    Ok(())
}

fn play(case: &Case, port: u16, netlink: &SmcNetlink, share: &Path) -> anyhow::Result<Seen> {
    let ueids = case.ueids.of_linux();
    ueids.iter().try_for_each(|ueid| netlink.add_ueid(ueid)).context("adding a UEID")?;
    let before = netlink.fallbacks()?;
    let capture = Capture::start(port)?;
    let played = in_time(*case, port);
    capture.stop(&share.join(format!("{}.pcap", case.name())))?;
    let counted = since(&before, netlink.fallbacks()?);
    ueids.iter().try_for_each(|ueid| netlink.remove_ueid(ueid)).context("removing a UEID")?;
    let (failure, [client, server]) = match played {
        Ok(ways) => (None, ways),
        Err(error) => (Some(format!("{error:#}")), [Vec::new(), Vec::new()]),
    };
    Ok(Seen { case: case.name(), failure, client, server, counted })
}

/// What was counted since then.
fn since(before: &[Counted], after: Vec<Counted>) -> Vec<Counted> {
    let earlier = |counted: &Counted| {
        let same = |other: &&Counted| (other.by_server, other.code) == (counted.by_server, counted.code);
        before.iter().find(same).map_or(0, |other| other.times)
    };
    after
        .into_iter()
        .map(|counted| Counted { times: counted.times.saturating_sub(earlier(&counted)), ..counted })
        .filter(|counted| counted.times > 0)
        .collect()
}

/// The ways of the client's ends, and of the server's; an error if they hang.
fn in_time(case: Case, port: u16) -> anyhow::Result<[Vec<Way>; 2]> {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(connect_all(&case, port)));
    result.recv_timeout(LIMIT).context("the case hangs")?
}

fn connect_all(case: &Case, port: u16) -> anyhow::Result<[Vec<Way>; 2]> {
    let ip: IpAddr = if case.is_ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    let address = SocketAddr::new(ip, port);
    let server = Server::new(case, address).context("listening")?;
    let serving = thread::spawn(move || -> anyhow::Result<_> {
        (0..CONNECTIONS).map(|_| serve(server.accept().context("accepting")?)).collect()
    });
    let client = Client::new(case)?;
    let of_client: anyhow::Result<Vec<Way>> =
        (0..CONNECTIONS).map(|_| ask(client.connect(address).context("connecting")?)).collect();
    let of_client = of_client.context("client")?;
    let of_server: anyhow::Result<Vec<Way>> = serving.join().ok().context("the server panicked")?;
    Ok([of_client, of_server.context("server")?])
}

/// The client's part: sends, and gets other bytes back, till the end.
fn ask(mut party: Box<dyn Party>) -> anyhow::Result<Way> {
    party.write_all(&pattern(1))?;
    expect(&mut party, &pattern(2))?;
    Ok(party.way())
}

/// The server's part.
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
