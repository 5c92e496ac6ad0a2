//! A process of the host that has the end of a case, and is killed.

use std::{
    env,
    io::{BufRead, BufReader, Lines, Write},
    path::Path,
    process::{ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};

use crate::{case, case::Case, endpoints::Endpoints, network, party::Server, seen::Way, talk};

/// What it says when it listens.
const READY: &str = "ready";

/// What the machine's network needs to see that it has gone, and to take in another.
const PAUSE: Duration = Duration::from_millis(200);

/// That process, as its parent has it.
pub(crate) struct Child {
    process: std::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Returns when it listens.
    pub(crate) fn start(sockets: &Path, case: &Case, port: u16) -> anyhow::Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .arg("child")
            .arg(sockets)
            .args([case.name(), port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(process.stdout.take().context("no output")?).lines();
        let mut child = Self { process, lines };
        ensure!(child.line()? == READY, "the child is not ready");
        Ok(child)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        Ok(self.lines.next().context("the child has ended")??)
    }

    /// What its next connection has become.
    pub(crate) fn way(&mut self) -> anyhow::Result<Way> {
        Ok(serde_json::from_str(&self.line()?)?)
    }

    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        thread::sleep(PAUSE);
        Ok(())
    }

    /// Waits until its peer has closed, and it with it.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        ensure!(self.process.wait()?.success(), "the child fails");
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What it does: answers, and waits for its end.
pub(crate) fn run(sockets: &Path, case: &str, port: u16) -> anyhow::Result<()> {
    let case = case::named(case)?;
    let endpoints = Endpoints::link_child(sockets)?;
    let server = Server::new(&case, network::server_of(&case, port), Some(&endpoints))?;
    say(READY)?;
    let mut stream = server.accept()?;
    let way = talk::answer(&mut stream)?;
    say(&serde_json::to_string(&way)?)?;
    ensure!(stream.read(&mut [0])? == 0, "bytes behind the last one");
    Ok(())
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}
