//! `smcdctl soft-ism`: ISM functions in software.

use std::{
    fmt::Write as _,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    thread,
};

use anyhow::Context;
use clap::Args;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use smcd::dibs::{
    Chid, PnetId,
    ism::soft::{Counters, End, Fault, SoftIsm, SoftIsmServer, SoftIsmSettings},
};

use crate::fabric::fabric_id;

/// Serve ISM functions in software, all on one fabric, until stopped (SIGINT, SIGTERM).
///
/// Each function is at a socket of its own and speaks vfio-user, for one process at a time; a program takes one by
/// SMCD_ISM=PATH. They do what IBM's ISM functions do, and refuse what these would refuse. At the end it is told what each
/// has done.
#[derive(Debug, Args)]
pub(crate) struct SoftIsmArgs {
    /// How many functions there are, 1 to 64.
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    functions: u8,
    /// Where to make the sockets function0, function1 and so on. Who may write to one can have the function.
    #[arg(long, value_name = "DIR")]
    socket_dir: PathBuf,
    /// The fabric, a PCHID.
    #[arg(long, value_name = "ID", default_value = "0x07c0", value_parser = fabric_id)]
    fabric: Chid,
    /// The physical network that they belong to.
    #[arg(long, value_name = "NAME")]
    pnetid: Option<PnetId>,
    /// Bytes of the longest store block.
    #[arg(long, value_name = "BYTES", default_value_t = 4096, value_parser = clap::value_parser!(u16).range(1..=4096))]
    max_store: u16,
    /// Makes something go wrong at a function: FUNCTION:answer:COMMAND:CODE has its next such command refused by this code;
    /// FUNCTION:failure:STORES, FUNCTION:disabled:STORES and FUNCTION:lost:STORES end it after so many store blocks. Several
    /// can be given.
    #[arg(long, value_name = "FAULT", value_parser = fault)]
    fault: Vec<(usize, Fault)>,
}

impl SoftIsmArgs {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut settings = SoftIsmSettings::default();
        settings.functions = self.functions.into();
        (settings.fabric, settings.max_store) = (self.fabric, self.max_store.into());
        settings.pnetid = self.pnetid;
        if let Some((function, _)) = self.fault.iter().find(|(function, _)| *function >= settings.functions) {
            anyhow::bail!("there is no function {function}");
        }
        let fabric = SoftIsm::new(&settings)?;
        self.fault.iter().for_each(|(function, fault)| fabric.inject(*function, *fault));
        // Before the sockets are there: whoever finds them may also stop us.
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let server = SoftIsmServer::bind(fabric.clone(), &self.socket_dir)?;
        let stop = server.stop_handle();
        thread::spawn(move || {
            if signals.forever().next().is_some() {
                stop.stop();
            }
        });
        describe(&fabric, &server, self.fabric)?;
        server.run().context("the server cannot go on")?;
        summarize(&fabric, settings.functions)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn describe(fabric: &SoftIsm, server: &SoftIsmServer, chid: Chid) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{} ISM functions on fabric {chid}", server.sockets().len())?;
    for (function, socket) in server.sockets().iter().enumerate() {
        let gid = fabric.gid(function).map_or(0, |gid| gid.high());
        writeln!(out, "    {function}: GID {gid:#018x}, SMCD_ISM={}", socket.display())?;
    }
    out.flush()
}

fn summarize(fabric: &SoftIsm, functions: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for function in 0..functions {
        writeln!(out, "function {function}: {}", summary(&fabric.counters(function)))?;
    }
    out.flush()
}

/// What a function has done.
fn summary(counters: &Counters) -> String {
    let (stores, bytes) = (counters.store_count(), counters.stored_bytes());
    let mut text = format!("{stores} store blocks of {bytes} bytes, {} with a signal", counters.signals);
    let commands: u64 = counters.commands.values().sum();
    let refused: u64 = counters.refused_commands.values().sum();
    let _ =
        write!(text, "; {commands} commands, {} interrupts, {} events", counters.interrupts, counters.events);
    if refused + counters.refused_stores > 0 {
        let _ = write!(text, "; refused {refused} commands, {} store blocks", counters.refused_stores);
    }
    text
}

/// A fault: `0:answer:0x0a:0x77`, `1:lost:100`.
fn fault(text: &str) -> Result<(usize, Fault), String> {
    let expected = "FUNCTION:answer:COMMAND:CODE, or FUNCTION:failure:STORES, such as 1:lost:100";
    let parts: Vec<_> = text.split(':').collect();
    let parsed = match *parts.as_slice() {
        [function, "answer", command, code] => function.parse().ok().zip(answer(command, code)),
        [function, end, stores] => function.parse().ok().zip(end_after(end, stores)),
        _ => None,
    };
    parsed.ok_or_else(|| format!("a fault is {expected}"))
}

fn answer(command: &str, code: &str) -> Option<Fault> {
    let code = u16::try_from(number(code)?).ok()?;
    Some(Fault::Answer { command: u32::try_from(number(command)?).ok()?, code })
}

fn end_after(end: &str, stores: &str) -> Option<Fault> {
    let end = match end {
        "failure" => End::Failure,
        "disabled" => End::Disabled,
        "lost" => End::Lost,
        _ => return None,
    };
    Some(Fault::EndAfter { stores: number(stores)?, end })
}

fn number(text: &str) -> Option<u64> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_a_form() {
        assert_eq!(fault("0:answer:0x0a:0x77"), Ok((0, Fault::Answer { command: 10, code: 0x77 })));
        assert_eq!(fault("3:lost:100"), Ok((3, Fault::EndAfter { stores: 100, end: End::Lost })));
        for wrong in
            ["", "0", "0:lost", "x:lost:1", "0:gone:1", "0:answer:1", "0:answer:1:65536", "0:lost:-1"]
        {
            assert!(fault(wrong).is_err(), "{wrong}");
        }
    }
}
