//! In the virtual machine: makes the connections, and writes down what the ends have to say.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use crate::{
    bench,
    capture::Capture,
    case::{self, Case, Stack, Ueids},
    control::{Answer, Control, Request},
    machine,
    netlink::SmcNetlink,
    network,
    party::{Client, Server},
    seen::{Counted, Measured, Seen, Way},
    talk::{self, Talk},
};

/// The host is there, or will not be. The other machine may still be starting.
const PATIENCE: Duration = Duration::from_secs(5);
const START: Duration = Duration::from_secs(60);

/// In which the machine is killed.
const LAST_MOMENTS: Duration = Duration::from_secs(20);

/// What the kernel has said.
const LOG: &str = "dmesg";

/// What was measured.
pub(crate) const MEASURED: &str = "measured.json";

/// Ports of the servers, one for each case: none has to wait for another's.
const FIRST_PORT: u16 = 20_000;

pub(crate) fn run(share: &Path, names: &[&str]) -> anyhow::Result<()> {
    network::set_up()?;
    let netlink = SmcNetlink::open()?;
    if names == [case::BENCH] {
        return measure_all(share, &netlink);
    }
    let mut seen = Vec::new();
    // What the start had to say.
    machine::complaints(&share.join(LOG))?;
    for (case, port) in case::chosen(names)?.into_iter().zip(FIRST_PORT..) {
        println!("{}", case.name());
        if case.has_region {
            machine::insert_driver()?;
        }
        seen.push(play(&case, port, &netlink, share)?);
        // At once: a case that stops the machine does not take the others with it.
        fs::write(share.join("seen.json"), serde_json::to_vec_pretty(&seen)?)?;
        if case.talk == Talk::Killed {
            tell_host(&Request::KillMachine)?;
            thread::sleep(LAST_MOMENTS);
            bail!("the host does not kill this machine");
        }
    }
    Ok(())
}

/// Measures, one after the other and then all again, and writes down what came out.
fn measure_all(share: &Path, netlink: &SmcNetlink) -> anyhow::Result<()> {
    machine::insert_driver()?;
    Ueids::One.of_linux().iter().try_for_each(|ueid| netlink.add_ueid(ueid))?;
    machine::complaints(&share.join(LOG))?;
    let mut measured = Vec::new();
    let mut ports = FIRST_PORT..;
    for _ in 0..bench::ROUNDS {
        for (case, port) in case::benches().into_iter().zip(&mut ports) {
            let before = netlink.smcd()?;
            let rates = bench_once(&case, port).with_context(|| case.name())?;
            let after = netlink.smcd()?;
            println!("{}: {rates}", case.name());
            let smcd = [after[0] - before[0], after[1] - before[1]];
            measured.push(Measured { case: case.name(), rates, smcd });
        }
    }
    let complaints = machine::complaints(&share.join(LOG))?;
    ensure!(complaints.is_empty(), "the kernel says {complaints:?}");
    Ok(fs::write(share.join(MEASURED), serde_json::to_vec_pretty(&measured)?)?)
}

fn bench_once(case: &Case, port: u16) -> anyhow::Result<bench::Rates> {
    let mut elsewhere = Elsewhere::begin(case, port)?;
    let stream = Client::new(case, None)?.connect(network::server_of(case, port), None)?;
    let rates = bench::measure(stream)?;
    elsewhere.end()?;
    Ok(rates)
}

/// Tells the other machine, if it is there, that this was all.
pub(crate) fn end_other() -> anyhow::Result<()> {
    Control::new(TcpStream::connect_timeout(&network::CONTROL_OF_OTHER, PATIENCE)?).say(&Request::PowerOff)
}

fn play(case: &Case, port: u16, netlink: &SmcNetlink, share: &Path) -> anyhow::Result<Seen> {
    let ueids = case.ueids.of_linux();
    ueids.iter().try_for_each(|ueid| netlink.add_ueid(ueid)).context("adding a UEID")?;
    let (before, smcd_before) = (netlink.fallbacks()?, netlink.smcd()?);
    let capture = Capture::start(network::interface_of(case), port)?;
    let began = Instant::now();
    let played = in_time(*case, port);
    let milliseconds = u64::try_from(began.elapsed().as_millis())?;
    capture.stop(&share.join(format!("{}.pcap", case.name())))?;
    let counted = since(&before, netlink.fallbacks()?);
    let smcd = netlink.smcd()?;
    let smcd = [smcd[0] - smcd_before[0], smcd[1] - smcd_before[1]];
    let complaints = machine::complaints(&share.join(LOG))?;
    ueids.iter().try_for_each(|ueid| netlink.remove_ueid(ueid)).context("removing a UEID")?;
    let (failure, [client, server]) = match played {
        Ok(ways) => (None, ways),
        Err(error) => (Some(format!("{error:#}")), [Vec::new(), Vec::new()]),
    };
    Ok(Seen { case: case.name(), failure, client, server, counted, smcd, complaints, milliseconds })
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
    result.recv_timeout(case.talk.limit()).context("the case hangs")?
}

fn connect_all(case: &Case, port: u16) -> anyhow::Result<[Vec<Way>; 2]> {
    let address = network::server_of(case, port);
    match case.talk {
        Talk::NoPeer => return lose_peer(case, port, address),
        Talk::NoMachine => return lose_machine(case, port, address),
        Talk::Killed => return stay_connected(case, port, address),
        _ => {}
    }
    if case.server.is_elsewhere() {
        let mut elsewhere = Elsewhere::begin(case, port)?;
        let client = Client::new(case, None)?;
        let of_client = talk::ask_all(case.talk, &client, address);
        return both(of_client, elsewhere.end());
    }
    let mut server = Server::new(case, address, None).context("listening")?;
    let talk = case.talk;
    let serving = thread::spawn(move || (talk::serve_all(talk, &mut server), server));
    // All stay until both ends are done: with an endpoint of the region goes what it has written there.
    let (mut elsewhere, mut client) = (None, None);
    let of_client = if case.client.is_elsewhere() {
        elsewhere.insert(Elsewhere::begin(case, port)?).end()
    } else {
        talk::ask_all(case.talk, client.insert(Client::new(case, None)?), address)
    };
    // A server that waits for a client that has failed would wait for ever.
    if of_client.is_err() && !serving.is_finished() {
        return both(of_client, Ok(Vec::new()));
    }
    let (of_server, _server) = serving.join().ok().context("the server panicked")?;
    both(of_client, of_server)
}

/// What both ends have to say, if both went well; else why not.
fn both(client: anyhow::Result<Vec<Way>>, server: anyhow::Result<Vec<Way>>) -> anyhow::Result<[Vec<Way>; 2]> {
    match (client, server) {
        (Ok(client), Ok(server)) => Ok([client, server]),
        (Err(error), Ok(_)) => Err(error).context("client"),
        (Ok(_), Err(error)) => Err(error).context("server"),
        (Err(client), Err(server)) => bail!("client: {client:#}; server: {server:#}"),
    }
}

/// The process at the other end is killed, and another comes in its place.
fn lose_peer(case: &Case, port: u16, address: SocketAddr) -> anyhow::Result<[Vec<Way>; 2]> {
    let mut host = Elsewhere::begin(case, port)?;
    let client = Client::new(case, None)?;
    let mut stream = client.connect(address, None)?;
    let first = talk::ask(&mut stream)?;
    host.0.say(&Request::KillProcess)?;
    talk::see_end(stream).context("the process was killed")?;
    host.expect_begun()?;
    let second = talk::ask_once(client.connect(address, None).context("to the other process")?)?;
    both(Ok(vec![first, second]), host.end())
}

/// The machine at the other end is killed, and started again.
fn lose_machine(case: &Case, port: u16, address: SocketAddr) -> anyhow::Result<[Vec<Way>; 2]> {
    let first_life = Elsewhere::begin(case, port)?;
    let client = Client::new(case, None)?;
    let mut stream = client.connect(address, None)?;
    let first = talk::ask(&mut stream)?;
    tell_host(&Request::KillOther)?;
    talk::see_end(stream).context("the other machine was killed")?;
    drop(first_life);
    let mut second_life = Elsewhere::begin(case, port)?;
    let second = talk::ask_once(client.connect(address, None).context("to the machine again")?)?;
    // What it counted in its first life is gone; the client's statistics know of that connection.
    let of_server = second_life.end().map(|second| [vec![Way::Smcd], second].concat());
    both(Ok(vec![first, second]), of_server)
}

fn tell_host(request: &Request) -> anyhow::Result<()> {
    Control::new(TcpStream::connect_timeout(&network::CONTROL, PATIENCE)?).say(request)
}

/// The connection stays, until the machine is killed.
fn stay_connected(case: &Case, port: u16, address: SocketAddr) -> anyhow::Result<[Vec<Way>; 2]> {
    let mut host = Elsewhere::begin(case, port)?;
    let mut stream = Client::new(case, None)?.connect(address, None)?;
    let way = talk::ask(&mut stream)?;
    std::mem::forget(stream);
    both(Ok(vec![way]), host.end())
}

/// The end of a case that is on the host, or in the other machine.
struct Elsewhere(Control<TcpStream>);

impl Elsewhere {
    /// Returns when it is ready.
    fn begin(case: &Case, port: u16) -> anyhow::Result<Self> {
        let stream = if case.has(Stack::Guest) {
            connect_once_there(&network::CONTROL_OF_OTHER).context("to the other machine")?
        } else {
            TcpStream::connect_timeout(&network::CONTROL, PATIENCE).context("to the host")?
        };
        let mut elsewhere = Self(Control::new(stream));
        elsewhere.0.say(&Request::Play { case: case.name(), port })?;
        elsewhere.expect_begun()?;
        Ok(elsewhere)
    }

    fn expect_begun(&mut self) -> anyhow::Result<()> {
        match self.0.hear()? {
            Answer::Begun => Ok(()),
            Answer::Ended(early) => bail!("the other end ends before it begins: {early:?}"),
        }
    }

    fn end(&mut self) -> anyhow::Result<Vec<Way>> {
        match self.0.hear()? {
            Answer::Ended(ended) => ended.map_err(anyhow::Error::msg),
            Answer::Begun => bail!("the other end begins twice"),
        }
    }
}

fn connect_once_there(address: &SocketAddr) -> std::io::Result<TcpStream> {
    let until = Instant::now() + START;
    loop {
        match TcpStream::connect_timeout(address, PATIENCE) {
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(200)),
            connected => return connected,
        }
    }
}
