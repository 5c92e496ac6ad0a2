//! `smcdctl ss`: the connections of all processes of this user.

use std::{
    io::{self, Write},
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::Args;
use smcd::observe::{State, processes};

use crate::{table::table, view::ConnectionView};

/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Show the connections of all processes of this user that use SMC-D, or have tried to.
///
/// Connections that are too short to be promoted are not listed. For those that are TCP the reason is given by name, and
/// by the code that the tools for Linux' SMC sockets show.
#[derive(Debug, Args)]
pub(crate) struct Ss {
    /// Also show connections that are closed at this end only.
    #[arg(long, short)]
    all: bool,
    /// Write JSON: an array, or one in each line with --watch.
    #[arg(long)]
    json: bool,
    /// Show them again every so many seconds.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "1",
          value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
    /// Only those of this process.
    #[arg(long)]
    pid: Option<u32>,
}

impl Ss {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut out = io::stdout().lock();
        loop {
            let connections = self.connections()?;
            let text = self.text(&connections)?;
            let clear = if self.watch.is_some() && !self.json { CLEAR } else { "" };
            write!(out, "{clear}{text}")?;
            out.flush()?;
            match self.watch {
                Some(seconds) => thread::sleep(Duration::from_secs(seconds)),
                None => return Ok(ExitCode::SUCCESS),
            }
        }
    }

    fn connections(&self) -> anyhow::Result<Vec<ConnectionView>> {
        let mut found = Vec::new();
        for process in processes()?.iter().filter(|process| self.pid.is_none_or(|pid| pid == process.pid())) {
            // One that ends meanwhile has no connections any more.
            let Ok(snapshot) = process.snapshot() else { continue };
            let shown = snapshot
                .connections
                .iter()
                .filter(|connection| self.all || connection.state != State::Closing);
            found.extend(shown.map(|connection| ConnectionView::new(process, connection)));
        }
        Ok(found)
    }

    fn text(&self, connections: &[ConnectionView]) -> anyhow::Result<String> {
        if !self.json {
            return Ok(table(&rows(connections)));
        }
        let json = match self.watch {
            Some(_) => serde_json::to_string(connections)?,
            None => serde_json::to_string_pretty(connections)?,
        };
        Ok(json + "\n")
    }
}

fn rows(connections: &[ConnectionView]) -> Vec<Vec<String>> {
    let heading = [
        "State", "Local", "Peer", "Mode", "Reason", " RcvRing", " SndRing", " RingIn", " RingOut", " TcpIn",
        " TcpOut", " PID", "Command",
    ];
    let mut rows = vec![heading.map(String::from).to_vec()];
    for connection in connections {
        let reason = connection.reason.as_ref().map_or("-", |reason| reason.text.as_str());
        rows.push(vec![
            connection.state.to_owned(),
            connection.local.to_string(),
            connection.peer.to_string(),
            connection.mode.to_owned(),
            reason.to_owned(),
            connection.receive_buffer.to_string(),
            connection.send_buffer.to_string(),
            connection.received.ring.bytes.to_string(),
            connection.sent.ring.bytes.to_string(),
            connection.received.tcp.bytes.to_string(),
            connection.sent.tcp.bytes.to_string(),
            connection.pid.to_string(),
            printable(&connection.command),
        ]);
    }
    rows
}

/// A process may call itself anything: nothing of that may reach the terminal as more than text.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
