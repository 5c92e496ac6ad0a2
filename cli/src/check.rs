//! `smcdctl check`: whether a connection would be SMC-D, and why not.

mod server;

use std::{
    fmt,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;
use smcd::{
    Promotion, SmcConfig,
    blocking::SmcStream,
    observe::{Connection, Process, State},
};

use self::server::Server;

/// How long an attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How often the connection is looked at.
const TICK: Duration = Duration::from_millis(1);

/// Find out whether a connection to a server would be SMC-D, and if not, why.
///
/// Connects, looks at who is at the other end, and tries a promotion. Nothing is sent to the server. Ends with code 0 if
/// the connection would be SMC-D, else with 1.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The server.
    #[arg(value_name = "HOST:PORT")]
    address: String,
    /// How long to try, in milliseconds.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 300)]
    timeout: u64,
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

/// What a step has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Finding {
    Good,
    Bad,
    Unknown,
}

#[derive(Debug, Serialize)]
struct Step {
    finding: Finding,
    text: String,
}

#[derive(Debug, Serialize)]
struct Verdict {
    smcd: bool,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Report {
    steps: Vec<Step>,
    verdict: Verdict,
}

impl Report {
    fn note(&mut self, finding: Finding, text: impl fmt::Display) {
        self.steps.push(Step { finding, text: text.to_string() });
    }

    /// Comes to an end that no other can change.
    fn judge(mut self, smcd: bool, reason: impl fmt::Display) -> Self {
        self.verdict = Verdict { smcd, reason: reason.to_string() };
        self
    }
}

impl Check {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let report = self.examine();
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        } else {
            write!(out, "{}", text(&report))?;
        }
        Ok(if report.verdict.smcd { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn examine(&self) -> Report {
        let verdict = Verdict { smcd: false, reason: String::new() };
        let mut report = Report { steps: Vec::new(), verdict };
        let config = match SmcConfig::from_env() {
            Ok(config) => config,
            Err(error) => {
                report.note(Finding::Bad, error);
                return report.judge(false, format!("the settings of the environment are wrong: {error}"));
            }
        };
        if config.promotion == Promotion::Off {
            report.note(Finding::Bad, "SMCD_PROMOTION is off in this environment");
            return report.judge(false, "it is switched off here");
        }
        let tcp = match connect(&self.address, &mut report) {
            Ok(tcp) => tcp,
            Err(reason) => return report.judge(false, reason),
        };
        let mut stream = SmcStream::from_std_with(tcp, &config.promotion(Promotion::Eager));
        let tried = self.attempt(&mut stream);
        // While there is a connection: by it the process is found that serves it.
        let server = match (stream.local_addr(), stream.peer_addr()) {
            (Ok(local), Ok(peer)) => Server::of(local, peer),
            _ => Server::Unknown,
        };
        self.conclude(report, tried, &server)
    }

    /// Puts together what was found out.
    fn conclude(&self, mut report: Report, tried: io::Result<Option<Connection>>, server: &Server) -> Report {
        let connection = match tried {
            Ok(connection) => connection,
            Err(error) => {
                report.note(Finding::Bad, format!("the connection failed: {error}"));
                return report.judge(false, "the server closed the connection");
            }
        };
        match connection.and_then(|connection| connection.eligible) {
            Some(true) => report.note(Finding::Good, "the server is on this host"),
            Some(false) => {
                report.note(Finding::Bad, "the server is not on this host, nor in this network namespace");
                return report.judge(false, "shared memory does not reach the server");
            }
            None => report.note(Finding::Unknown, "it cannot be told whether the server is on this host"),
        }
        let (finding, text) = server.describe();
        report.note(finding, text);
        match connection {
            Some(connection) if connection.state == State::Agreed => {
                report.note(Finding::Good, "both ends have agreed on SMC-D");
                return report.judge(true, "it was tried, and both ends agreed");
            }
            Some(connection) if connection.state == State::Staying => {
                report.note(Finding::Bad, format!("the promotion has failed: {}", connection.reason));
                return report.judge(false, connection.reason);
            }
            _ => report.note(
                Finding::Unknown,
                format!("the server has not asked for a promotion within {} ms", self.timeout),
            ),
        }
        let (smcd, reason) = server.verdict();
        report.judge(smcd, reason)
    }

    /// Tries to have the connection promoted, without a byte of payload; says what has become of it.
    fn attempt(&self, stream: &mut SmcStream) -> io::Result<Option<Connection>> {
        let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
        stream.set_nonblocking(true)?;
        let end = Instant::now() + Duration::from_millis(self.timeout);
        let mut last = None;
        let mut greeting = [0; 4096];
        while Instant::now() < end {
            // Each attempt to read goes on with the promotion. A greeting is of no interest.
            match stream.read(&mut greeting) {
                Ok(0) => return if last.is_some() { Ok(last) } else { Err(ErrorKind::UnexpectedEof.into()) },
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(TICK),
                Err(error) => return Err(error),
            }
            last = Process::of(std::process::id()).and_then(|own| {
                let connections = own.snapshot().ok()?.connections;
                connections.into_iter().find(|found| (found.local, found.peer) == (local, peer))
            });
            if last.is_some_and(|connection| matches!(connection.state, State::Agreed | State::Staying)) {
                break;
            }
        }
        Ok(last)
    }
}

/// Resolves the address and connects to the first of its meanings that answers.
fn connect(address: &str, report: &mut Report) -> Result<TcpStream, String> {
    let resolved: Vec<SocketAddr> = match address.to_socket_addrs() {
        Ok(resolved) => resolved.collect(),
        Err(error) => {
            report.note(Finding::Bad, format!("{address} cannot be resolved: {error}"));
            return Err("there is no such server".into());
        }
    };
    for resolved in resolved {
        match TcpStream::connect_timeout(&resolved, CONNECT) {
            Ok(tcp) => {
                report.note(Finding::Good, format!("connected to {resolved}"));
                return Ok(tcp);
            }
            Err(error) => report.note(Finding::Bad, format!("{resolved} does not answer: {error}")),
        }
    }
    Err("the server does not answer".into())
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for step in &report.steps {
        let sign = match step.finding {
            Finding::Good => "yes",
            Finding::Bad => "no ",
            Finding::Unknown => "?  ",
        };
        text.push_str(&format!("{sign}  {}\n", step.text));
    }
    let transport = if report.verdict.smcd { "SMC-D" } else { "TCP" };
    text.push_str(&format!("The connection would be {transport}: {}.\n", report.verdict.reason));
    text
}
