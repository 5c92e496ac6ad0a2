//! `smcdctl`: runs programs over SMC-D, and shows what happens.

use clap::{Parser, Subcommand};

/// Runs programs over SMC-D, and shows what happens.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Says which version this is.
    Info,
}

fn main() {
    match Cli::parse().verb {
        Verb::Info => println!("smcdctl {}", env!("CARGO_PKG_VERSION")),
    }
}
