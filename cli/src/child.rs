//! A program that is run to its end.

use std::{
    io::{self, IsTerminal},
    os::unix::process::ExitStatusExt,
    process::{Command, ExitCode, ExitStatus},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2},
    iterator::Signals,
    low_level::emulate_default_handler,
};

/// How often is looked whether the program has ended.
const TICK: Duration = Duration::from_millis(10);

/// Runs a program to its end, and does something now and then meanwhile. Signals for us go to the program.
///
/// # Errors
/// If it cannot be run.
pub(crate) fn run_to_the_end(command: &mut Command, mut meanwhile: impl FnMut()) -> io::Result<ExitStatus> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2])?;
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // What is typed at a terminal goes to the program as well as to us.
    let is_typed = |signal: i32| [SIGINT, SIGQUIT].contains(&signal) && io::stdin().is_terminal();
    loop {
        for signal in signals.pending().filter(|signal| !is_typed(*signal)) {
            if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(signal)) {
                // If it has just ended there is nobody to tell.
                let _ = kill_process(pid, signal);
            }
        }
        meanwhile();
        if let Some(status) = child.try_wait()? {
            meanwhile();
            return Ok(status);
        }
        thread::sleep(TICK);
    }
}

/// Ends as the program did: with its code, or by its signal.
pub(crate) fn end_as(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal() {
        // Does not come back, unless that signal does not end anything; then it is as shells say it.
        let _ = emulate_default_handler(signal);
        return ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX));
    }
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
