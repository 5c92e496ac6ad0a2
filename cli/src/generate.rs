//! `smcdctl completions` and `smcdctl man`: what is made of the definition of the command line.

use std::{io, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;

/// Write completions for a shell to the standard output.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

/// Write man pages into a directory.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The directory; it is made if there is none.
    directory: PathBuf,
}

impl Completions {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "smcdctl", &mut text);
        io::Write::write_all(&mut io::stdout().lock(), &text)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Man {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let failed = || format!("cannot write to {}", self.directory.display());
        std::fs::create_dir_all(&self.directory).with_context(failed)?;
        clap_mangen::generate_to(Cli::command(), &self.directory).with_context(failed)?;
        Ok(ExitCode::SUCCESS)
    }
}
