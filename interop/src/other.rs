//! In the other machine: plays the ends of cases that are there.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
};

use anyhow::{bail, ensure};

use crate::{
    case::{self, Case, Outcome, Stack, Ueids},
    control::{Answer, Control, Request},
    machine,
    netlink::SmcNetlink,
    network,
    party::{Client, Server},
    seen::Way,
    talk,
};

/// What its kernel has said.
const LOG: &str = "dmesg-of-other";

/// Does what the machine that plays the cases asks for, until it says that this is all.
pub(crate) fn run(share: &Path) -> anyhow::Result<()> {
    network::set_up_other()?;
    let netlink = SmcNetlink::open()?;
    Ueids::One.of_linux().iter().try_for_each(|ueid| netlink.add_ueid(ueid))?;
    machine::insert_driver()?;
    let listener = TcpListener::bind(network::CONTROL_OF_OTHER)?;
    loop {
        let mut control = Control::new(listener.accept()?.0);
        match control.hear()? {
            Request::Play { case, port } => {
                let log = share.join(LOG);
                // By itself: a case that hangs does not take the others with it.
                thread::spawn(move || {
                    let ended = follow(&mut control, &case, port, &log).map_err(|error| format!("{error:#}"));
                    let _ = control.say(&Answer::Ended(ended));
                });
            }
            Request::PowerOff => return Ok(()),
            other => bail!("{other:?} is not for this machine"),
        }
    }
}

/// Plays an end; what it has become is what Linux has counted.
fn follow(control: &mut Control<TcpStream>, case: &str, port: u16, log: &Path) -> anyhow::Result<Vec<Way>> {
    let case = case::named(case)?;
    let netlink = SmcNetlink::open()?;
    let before = netlink.smcd()?;
    let ways = play(&case, port, control)?;
    let after = netlink.smcd()?;
    let counted = [after[0] - before[0], after[1] - before[1]];
    let connections = case.outcomes().iter().filter(|outcome| **outcome == Outcome::Smcd).count() as u64;
    // Before it was killed it has counted some that it knows nothing of.
    let connections = connections.min(ways.len() as u64);
    let wanted = if case.server == Stack::Guest { [0, connections] } else { [connections, 0] };
    ensure!(counted == wanted, "the other machine has counted {counted:?} connections of SMC-D");
    let complaints = machine::complaints(log)?;
    ensure!(complaints.is_empty(), "the other machine's kernel says {complaints:?}");
    Ok(vec![Way::Smcd; ways.len()])
}

fn play(case: &Case, port: u16, control: &mut Control<TcpStream>) -> anyhow::Result<Vec<Way>> {
    let address = network::server_of(case, port);
    if case.server == Stack::Guest {
        let mut server = Server::new(case, address, None)?;
        control.say(&Answer::Begun)?;
        talk::serve_all(case.talk, &mut server)
    } else {
        let client = Client::new(case, None)?;
        control.say(&Answer::Begun)?;
        talk::ask_all(case.talk, &client, address)
    }
}
