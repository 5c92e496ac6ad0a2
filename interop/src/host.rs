//! On the host, while the machine runs: plays the ends of cases that are endpoints, and has the region.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use smcd::{
    dibs::region::{FabricServer, FabricSettings},
    tcp_fallback::stack::SynOption,
};

use crate::{
    case::{self, Case, Stack},
    child::Child,
    control::{Answer, Control, Request},
    endpoints::{Endpoints, FABRIC},
    intruder::Intruder,
    network,
    party::{Client, Party, Server},
    seen::{Bereft, Way},
    talk::{self, Talk},
};

/// What comes of a link at whose other end nobody is any more.
const ENDED: [ErrorKind; 3] = [ErrorKind::UnexpectedEof, ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];

/// Files of the folder that is shared with the machine, and of that of the sockets.
pub(crate) const BEREFT: &str = "bereft.json";
const PID_OF_QEMU: &str = "qemu.pid";
const PID_OF_OTHER: &str = "other.pid";

/// In which the end of a machine is seen, or never.
const PATIENCE: Duration = Duration::from_secs(15);

type Stream = Box<dyn Party>;

/// What is common to all cases.
struct Host {
    sockets: PathBuf,
    share: PathBuf,
    endpoints: Endpoints,
    /// A connection that stays until the machine is killed.
    kept: Mutex<Option<Stream>>,
    /// Says when the machine has been killed.
    ended: Mutex<Option<mpsc::Receiver<()>>>,
}

/// Does what the machine asks for, until it ends.
pub(crate) fn run(sockets: &Path, share: &Path) -> anyhow::Result<()> {
    let mut fabric = FabricServer::bind(sockets.join(FABRIC), &settings())?;
    thread::spawn(move || fabric.run());
    let endpoints = Endpoints::link(sockets)?;
    let listener = endpoints.listen(network::CONTROL, SynOption::Omit)?;
    let (sockets, share) = (sockets.to_owned(), share.to_owned());
    let host = Arc::new(Host { sockets, share, endpoints, kept: Mutex::default(), ended: Mutex::default() });
    loop {
        let stream = match host.endpoints.accept_plain(&listener) {
            Ok(stream) => stream,
            // QEMU has closed its end of the link.
            Err(error) if ENDED.contains(&error.kind()) => return host.end(),
            Err(error) => return Err(error).context("the link to the machine"),
        };
        let host = host.clone();
        // By itself: a case that hangs does not take the others with it.
        thread::spawn(move || {
            if let Err(error) = host.follow(Control::new(stream)) {
                eprintln!("on the host: {error:#}");
            }
        });
    }
}

/// There is room for large buffers: nobody is to take smaller ones to leave some for others.
fn settings() -> FabricSettings {
    let mut settings = FabricSettings::default();
    (settings.bytes, settings.entries) = (1 << 30, 112);
    settings
}

impl Host {
    /// Does what is asked for on one connection.
    fn follow(&self, mut machine: Control<impl Read + Write>) -> anyhow::Result<()> {
        match machine.hear()? {
            Request::Play { case, port } => {
                let case = case::named(&case)?;
                if case.talk == Talk::NoPeer {
                    let ended = self.play_in_child(&case, port, &mut machine);
                    return machine.say(&Answer::Ended(ended.map_err(|error| format!("{error:#}"))));
                }
                let is_intruded = case.talk == Talk::Intruded;
                let intruder =
                    is_intruded.then(|| Intruder::enter(&self.sockets.join(FABRIC))).transpose()?;
                self.play(&case, port, machine, intruder)
            }
            Request::KillMachine => self.kill_machine(),
            Request::KillOther => self.kill(PID_OF_OTHER),
            other @ (Request::KillProcess | Request::PowerOff) => bail!("{other:?} is not for the host"),
        }
    }

    /// Plays the end that is here, perhaps beside a hostile endpoint, and has its devices until the other one is done too: with
    /// an endpoint of the region goes what it has written there.
    fn play(
        &self,
        case: &Case,
        port: u16,
        mut machine: Control<impl Read + Write>,
        intruder: Option<Intruder>,
    ) -> anyhow::Result<()> {
        let address = network::server_of(case, port);
        if case.server == Stack::Endpoint {
            let mut server = Server::new(case, address, Some(&self.endpoints))?;
            machine.say(&Answer::Begun)?;
            let ended = self.serve(case, &mut server);
            finish(&mut machine, beside(intruder, ended))
        } else {
            let client = Client::new(case, Some(&self.endpoints))?;
            machine.say(&Answer::Begun)?;
            let ended = talk::ask_all(case.talk, &client, address);
            let _client = (case.talk != Talk::LastWords).then_some(client);
            finish(&mut machine, beside(intruder, ended))
        }
    }

    fn serve(&self, case: &Case, server: &mut Server) -> anyhow::Result<Vec<Way>> {
        if case.talk != Talk::Killed {
            return talk::serve_all(case.talk, server);
        }
        let mut stream = server.accept()?;
        let way = talk::answer(&mut stream)?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        Ok(vec![way])
    }

    /// Plays it in a process of its own, which is killed when the machine says so.
    fn play_in_child(
        &self,
        case: &Case,
        port: u16,
        machine: &mut Control<impl Read + Write>,
    ) -> anyhow::Result<Vec<Way>> {
        let mut first = Child::start(&self.sockets, case, port)?;
        machine.say(&Answer::Begun)?;
        let way = first.way()?;
        let Request::KillProcess = machine.hear()? else { bail!("another request") };
        first.kill()?;
        let mut second = Child::start(&self.sockets, case, port)?;
        machine.say(&Answer::Begun)?;
        let ways = vec![way, second.way()?];
        second.end()?;
        Ok(ways)
    }

    /// Kills QEMU, and lets [`Host::end`] wait until what became of the connection is written down.
    fn kill_machine(&self) -> anyhow::Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stream = kept.take().context("no connection is left")?;
        let (done, ended) = mpsc::channel();
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        self.kill(PID_OF_QEMU)?;
        let began = Instant::now();
        let read = stream.read(&mut [0]).map_err(|error| error.to_string());
        let milliseconds = u64::try_from(began.elapsed().as_millis())?;
        let written = stream.write(&[0]).map_err(|error| error.to_string());
        let bereft = Bereft { milliseconds, read, written };
        fs::write(self.share.join(BEREFT), serde_json::to_vec_pretty(&bereft)?)?;
        let _ = done.send(());
        Ok(())
    }

    fn kill(&self, pid: &str) -> anyhow::Result<()> {
        let pid = fs::read_to_string(self.sockets.join(pid))?;
        let pid = Pid::from_raw(pid.trim().parse()?).context("no process")?;
        Ok(kill_process(pid, Signal::KILL)?)
    }

    /// The machine has gone.
    fn end(&self) -> anyhow::Result<()> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        ended
            .map_or(Ok(()), |ended| ended.recv_timeout(PATIENCE))
            .context("a connection does not end with its machine")
    }
}

/// How it went, where the hostile endpoint has to have done its part.
fn beside(intruder: Option<Intruder>, ended: anyhow::Result<Vec<Way>>) -> anyhow::Result<Vec<Way>> {
    let ways = ended?;
    if let Some(intruder) = intruder {
        let words = intruder.leave().context("the hostile endpoint")?;
        println!("on the host: the hostile endpoint has written {words} words");
    }
    Ok(ways)
}

/// Says how it went, and waits until the machine needs this end no longer.
fn finish(machine: &mut Control<impl Read + Write>, ended: anyhow::Result<Vec<Way>>) -> anyhow::Result<()> {
    machine.say(&Answer::Ended(ended.map_err(|error| format!("{error:#}"))))?;
    // It says nothing more.
    let _ = machine.hear::<Request>();
    Ok(())
}
