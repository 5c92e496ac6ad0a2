//! In the virtual machine: makes the connections, and writes down what the ends have to say.

use std::{fs, net::TcpStream, path::Path, sync::mpsc, thread, time::Duration};

use anyhow::{Context, bail};

use crate::{
    capture::Capture,
    case::{self, Case, Stack},
    control::{Answer, Control, Request},
    dialogue::{ask_all, serve_all},
    netlink::SmcNetlink,
    network,
    party::{Client, Server},
    seen::{Counted, Seen, Way},
};

/// A case that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(40);

/// The host is there, or will not be.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ports of the servers, one for each case: none has to wait for another's.
const FIRST_PORT: u16 = 20_000;

pub(crate) fn run(share: &Path, names: &[&str]) -> anyhow::Result<()> {
    network::set_up()?;
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
    let capture = Capture::start(network::interface_of(case), port)?;
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
    let address = network::server_of(case, port);
    if case.server == Stack::Endpoint {
        let host = OnHost::begin(case, port)?;
        let of_client = ask_all(&Client::new(case, None)?, address).context("client")?;
        return Ok([of_client, host.end().context("server")?]);
    }
    let server = Server::new(case, address, None).context("listening")?;
    let serving = thread::spawn(move || serve_all(&server));
    let of_client = if case.client == Stack::Endpoint {
        OnHost::begin(case, port)?.end()
    } else {
        ask_all(&Client::new(case, None)?, address)
    };
    let of_client = of_client.context("client")?;
    let of_server = serving.join().ok().context("the server panicked")?;
    Ok([of_client, of_server.context("server")?])
}

/// The end of a case that is on the host.
struct OnHost(Control<TcpStream>);

impl OnHost {
    /// Returns when it is ready.
    fn begin(case: &Case, port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&network::CONTROL, PATIENCE).context("to the host")?;
        let mut host = Control::new(stream);
        host.say(&Request::Play { case: case.name(), port })?;
        match host.hear()? {
            Answer::Begun => Ok(Self(host)),
            Answer::Ended(early) => bail!("the host ends before it begins: {early:?}"),
        }
    }

    fn end(mut self) -> anyhow::Result<Vec<Way>> {
        match self.0.hear()? {
            Answer::Ended(ended) => ended.map_err(anyhow::Error::msg),
            Answer::Begun => bail!("the host begins twice"),
        }
    }
}
