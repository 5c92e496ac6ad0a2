//! Connections between the library and Linux' SMC sockets. `interop/run` starts this four times: in the virtual machine,
//! where it plays the cases; in another and on the host meanwhile, for the ends that are there; and on the host afterwards,
//! where it judges what was seen.

#![deny(unsafe_code)]

mod bench;
mod capture;
mod case;
mod child;
mod control;
mod endpoints;
mod guest;
mod host;
mod intruder;
mod linux;
mod machine;
mod netlink;
mod network;
mod other;
mod party;
mod payload;
mod report;
mod seen;
mod talk;
mod wire;

use std::{env, path::Path, process::ExitCode};

use anyhow::bail;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["guest", share, cases @ ..] => guest::run(Path::new(share), cases).map(|()| ExitCode::SUCCESS),
        ["other", share] => other::run(Path::new(share)).map(|()| ExitCode::SUCCESS),
        ["end-other"] => guest::end_other().map(|()| ExitCode::SUCCESS),
        ["host", sockets, share] => {
            host::run(Path::new(sockets), Path::new(share)).map(|()| ExitCode::SUCCESS)
        }
        ["child", sockets, case, port] => {
            child::run(Path::new(sockets), case, port.parse()?).map(|()| ExitCode::SUCCESS)
        }
        ["report", share, readme, cases @ ..] => report::run(Path::new(share), Path::new(readme), cases),
        ["list", cases @ ..] => {
            case::chosen(cases)?.iter().for_each(|case| println!("{}", case.name()));
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("started by interop/run"),
    }
}
