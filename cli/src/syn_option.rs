//! `smcdctl syn-option`: has the system send the SMC option of TCP for sockets that ask for it.

mod cgroup;
mod error;
mod programs;
mod sys;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};
use serde::Serialize;
use smcd::tcp_fallback::syn_option;

use self::{cgroup::Cgroup, error::SynOptionError, programs::Pins};

/// Send the SMC option of TCP for sockets that ask for it.
///
/// Peers on other hosts, and Linux' own SMC sockets, tell each other by an option of the first segments of a TCP connection
/// that they speak SMC. Programs cannot send it; three small eBPF programs, attached to a cgroup, do so for the
/// processes in it. Sockets that do not ask for it are left alone. It is for the settings of a program to say which peers
/// it asks it for [environment: SMCD_OPTION_PEERS].
#[derive(Debug, Args)]
pub(crate) struct SynOption {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Attach the eBPF programs to a cgroup; they stay until they are taken away or the system restarts. Needs root.
    Enable(Place),
    /// Take the eBPF programs away. Needs root.
    Disable(Place),
    /// Say whether they are attached to a cgroup, and whether they serve this very process. Ends with code 0 if they are
    /// attached, else with 1.
    Status(Status),
}

/// Where.
#[derive(Debug, Args)]
struct Place {
    /// The cgroup, a directory of the cgroup v2 file system; by default its root, and so all processes.
    #[arg(long, value_name = "DIRECTORY")]
    cgroup: Option<PathBuf>,
    /// Where the BPF file system is mounted, which keeps the programs.
    #[arg(long, value_name = "DIRECTORY", default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
}

#[derive(Debug, Args)]
struct Status {
    #[command(flatten)]
    place: Place,
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

/// What [`Status`] says.
#[derive(Debug, Serialize)]
struct Facts {
    cgroup: PathBuf,
    enabled: bool,
    /// Whether a socket of this process can ask for the option; programs of a cgroup above serve it too.
    serves_this_process: bool,
}

impl SynOption {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut out = io::stdout().lock();
        match self.what {
            What::Enable(place) => {
                let (cgroup, pins) = place.find()?;
                let state = if pins.are_there()? { "already enabled" } else { "enabled" };
                pins.put(&cgroup)?;
                writeln!(out, "the SMC option is {state} for {}", cgroup.path().display())?;
            }
            What::Disable(place) => {
                let (cgroup, pins) = place.find()?;
                let state = if pins.remove()? { "disabled" } else { "not enabled" };
                writeln!(out, "the SMC option is {state} for {}", cgroup.path().display())?;
            }
            What::Status(status) => return status.run(&mut out),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Place {
    fn find(self) -> Result<(Cgroup, Pins), SynOptionError> {
        let cgroup = match self.cgroup {
            Some(path) => Cgroup::open(path)?,
            None => Cgroup::root()?,
        };
        let pins = Pins::new(&self.bpffs, &cgroup)?;
        Ok((cgroup, pins))
    }
}

impl Status {
    fn run(self, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let (cgroup, pins) = self.place.find()?;
        let facts = Facts {
            cgroup: cgroup.path().to_owned(),
            enabled: pins.are_there()?,
            serves_this_process: syn_option::can_ask(),
        };
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&facts)?)?;
        } else {
            let enabled = if facts.enabled { "enabled" } else { "not enabled" };
            writeln!(out, "the SMC option is {enabled} for {}", facts.cgroup.display())?;
            let serves = if facts.serves_this_process { "can" } else { "cannot" };
            writeln!(out, "sockets of this process {serves} ask for it")?;
        }
        Ok(if facts.enabled { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
