//! What can be asked for.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{
    applicability::Applicability,
    check::Check,
    fabric::Fabric,
    generate::{Completions, Man},
    info::Info,
    run::Run,
    soft_ism::SoftIsmArgs,
    ss::Ss,
    stats::Stats,
    syn_option::SynOption,
    trace::Trace,
};

/// Runs programs over SMC-D, and shows what happens.
///
/// SMC-D moves the bytes of TCP connections between processes of one host through shared memory. Programs need not be
/// changed, and nothing but `syn-option` needs privileges.
#[derive(Debug, Parser)]
#[command(name = "smcdctl", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Verb {
    Run(Run),
    Ss(Ss),
    Stats(Stats),
    Check(Check),
    Info(Info),
    Applicability(Applicability),
    Trace(Trace),
    SynOption(SynOption),
    Fabric(Fabric),
    SoftIsm(SoftIsmArgs),
    Completions(Completions),
    Man(Man),
}

impl Cli {
    /// Does what was asked for; says with which code to end.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.verb {
            Verb::Run(run) => run.run(),
            Verb::Ss(ss) => ss.run(),
            Verb::Stats(stats) => stats.run(),
            Verb::Check(check) => check.run(),
            Verb::Info(info) => info.run(),
            Verb::Applicability(applicability) => applicability.run(),
            Verb::Trace(trace) => trace.run(),
            Verb::SynOption(syn_option) => syn_option.run(),
            Verb::Fabric(fabric) => fabric.run(),
            Verb::SoftIsm(soft_ism) => soft_ism.run(),
            Verb::Completions(completions) => completions.run(),
            Verb::Man(man) => man.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_the_program_are_its_own() {
        let cli =
            Cli::try_parse_from(["smcdctl", "run", "--promotion", "eager", "ls", "--report", "-l"]).unwrap();
        let Verb::Run(run) = cli.verb else { panic!("another verb") };
        assert_eq!(run.command, ["ls", "--report", "-l"]);
        assert!(!run.report);
    }

    #[test]
    fn settings_that_mean_nothing_are_usage_errors() {
        for wrong in [["--promotion", "soon"], ["--receive-buffer", "0"], ["--busy-poll", "always"]] {
            let error = Cli::try_parse_from(["smcdctl", "run", wrong[0], wrong[1], "ls"]).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong:?}");
        }
    }
}
