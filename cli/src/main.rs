//! `smcdctl`: runs programs over SMC-D, and shows what happens.

#![deny(unsafe_code)]

mod applicability;
mod check;
mod child;
mod cli;
mod counters;
mod fabric;
mod generate;
mod info;
mod preload;
mod program;
mod progress;
mod run;
mod settings;
mod soft_ism;
mod ss;
mod stats;
mod syn_option;
mod table;
mod trace;
mod view;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        // Whoever read our output has gone: that is no failure of ours.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smcdctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
