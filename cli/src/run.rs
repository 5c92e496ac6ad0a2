//! `smcdctl run`: a program with SMC-D.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use clap::Args;
use smcd::observe::{Collector, Process, Totals};

use crate::{
    child::{end_as, run_to_the_end},
    counters, preload, program,
    settings::Settings,
    table::number,
};

/// Run a program whose TCP connections become SMC-D where both ends are on this host and want it.
///
/// The program and all that it starts get the library of this project by LD_PRELOAD. What cannot have it (static and Go
/// programs, those with other privileges) is told on the standard error stream, and stays on TCP. The exit code and the
/// signals are those of the program.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    settings: Settings,
    /// Report on the standard error stream what its connections carried, when it has ended.
    #[arg(long)]
    pub(crate) report: bool,
    /// The program and its arguments.
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

impl Run {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut command = prepare(&self.command)?;
        command.envs(self.settings.variables());
        if !self.report {
            let error = command.exec();
            return Ok(cannot_run(command.get_program(), &error));
        }
        let collector = Collector::new()?;
        command.env(Collector::VARIABLE, collector.name());
        let mut processes = Vec::new();
        let status = match run_to_the_end(&mut command, || processes.extend(collector.take_in())) {
            Ok(status) => status,
            Err(error) => return Ok(cannot_run(command.get_program(), &error)),
        };
        eprint!("{}", report(&processes));
        Ok(end_as(status))
    }
}

/// A command with the library before it; says so if that will not help.
pub(crate) fn prepare(words: &[OsString]) -> anyhow::Result<Command> {
    let (name, arguments) = words.split_first().ok_or_else(|| anyhow::anyhow!("there is no command"))?;
    let library = preload::find()?;
    let list = preload::list(&library, env::var_os("LD_PRELOAD").as_deref())?;
    if let Some((path, obstacle)) = program::obstacle(name) {
        eprintln!("smcdctl: {} stays on TCP because {obstacle}", path.display());
    }
    let mut command = Command::new(name);
    command.args(arguments).env("LD_PRELOAD", list);
    Ok(command)
}

/// As shells say it: 127 if there is no such program, 126 if it cannot be run.
pub(crate) fn cannot_run(name: &OsStr, error: &io::Error) -> ExitCode {
    eprintln!("smcdctl: cannot run {}: {error}", name.display());
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

/// What these processes have done together.
pub(crate) fn total(processes: &[Process]) -> Totals {
    let mut sum = Totals::default();
    for snapshot in processes.iter().filter_map(|process| process.snapshot().ok()) {
        sum.add(&snapshot.totals);
    }
    sum
}

fn report(processes: &[Process]) -> String {
    if processes.is_empty() {
        return "smcdctl: no connection was long enough to become SMC-D, or none could be watched\n".into();
    }
    let count = number(processes.len(), "process", "processes");
    let text = counters::text(&counters::flatten(&total(processes)));
    format!("smcdctl: {count} with TCP connections\n{text}")
}
