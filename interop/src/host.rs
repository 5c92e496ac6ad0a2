//! On the host, while the machine runs: plays the ends of cases that are endpoints.

use std::{
    io::{ErrorKind, Read, Write},
    path::Path,
    thread,
};

use anyhow::Context;
use smcd::tcp_fallback::stack::SynOption;

use crate::{
    case::{self, Case, Stack},
    control::{Answer, Control, Request},
    dialogue::{ask_all, serve_all},
    endpoints::Endpoints,
    network,
    party::{Client, Server},
    seen::Way,
};

/// What comes of a link at whose other end nobody is any more.
const ENDED: [ErrorKind; 3] = [ErrorKind::UnexpectedEof, ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];

/// Does what the machine asks for, until it ends.
pub(crate) fn run(sockets: &Path) -> anyhow::Result<()> {
    let endpoints = Endpoints::link(sockets)?;
    let listener = endpoints.listen(network::CONTROL, SynOption::Omit)?;
    loop {
        let stream = match endpoints.accept_plain(&listener) {
            Ok(stream) => stream,
            // QEMU has closed its end of the link.
            Err(error) if ENDED.contains(&error.kind()) => return Ok(()),
            Err(error) => return Err(error).context("the link to the machine"),
        };
        let endpoints = endpoints.clone();
        // By itself: a case that hangs does not take the others with it.
        thread::spawn(move || {
            if let Err(error) = follow(Control::new(stream), &endpoints) {
                eprintln!("on the host: {error:#}");
            }
        });
    }
}

/// Does one thing that is asked for.
fn follow(mut machine: Control<impl Read + Write>, endpoints: &Endpoints) -> anyhow::Result<()> {
    let Request::Play { case, port } = machine.hear()?;
    let ended = play(&case::named(&case)?, port, endpoints, || machine.say(&Answer::Begun));
    machine.say(&Answer::Ended(ended.map_err(|error| format!("{error:#}"))))
}

/// Plays the end that is here, and calls `begun` once the other one may begin.
fn play(
    case: &Case,
    port: u16,
    endpoints: &Endpoints,
    begun: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Way>> {
    let address = network::server_of(case, port);
    if case.server == Stack::Endpoint {
        let server = Server::new(case, address, Some(endpoints))?;
        begun()?;
        serve_all(&server)
    } else {
        let client = Client::new(case, Some(endpoints))?;
        begun()?;
        ask_all(&client, address)
    }
}
