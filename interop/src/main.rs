//! Connections between the library and Linux' SMC sockets. `interop/run` starts this twice: in the virtual machine, where it
//! makes the connections, and on the host, where it judges what was seen.

#![deny(unsafe_code)]

mod capture;
mod case;
mod guest;
mod linux;
mod netlink;
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
        ["report", share, readme, cases @ ..] => report::run(Path::new(share), Path::new(readme), cases),
        ["list"] => {
            case::all().iter().for_each(|case| println!("{}", case.name()));
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("started by interop/run"),
    }
}
