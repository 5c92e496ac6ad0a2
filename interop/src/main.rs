//! Connections between the library and Linux' SMC sockets. `interop/run` starts this three times: in the virtual machine,
//! where it plays the cases; on the host meanwhile, for the ends that are there; and on the host afterwards, where it judges
//! what was seen.

#![deny(unsafe_code)]

mod capture;
mod case;
mod control;
mod dialogue;
mod endpoints;
mod guest;
mod host;
mod linux;
mod netlink;
mod network;
mod party;
mod report;
mod seen;
mod wire;

use std::{env, path::Path, process::ExitCode};

use anyhow::bail;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["guest", share, cases @ ..] => guest::run(Path::new(share), cases).map(|()| ExitCode::SUCCESS),
        ["host", sockets] => host::run(Path::new(sockets)).map(|()| ExitCode::SUCCESS),
        ["report", share, readme, cases @ ..] => report::run(Path::new(share), Path::new(readme), cases),
        ["list"] => {
            case::all().iter().for_each(|case| println!("{}", case.name()));
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("started by interop/run"),
    }
}
