//! What goes over a network meanwhile, by tcpdump in the machine.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

/// Where the packets are put meanwhile: the file system of the host is slow.
const FILE: &str = "/tmp/capture.pcap";

/// Bytes of each packet: enough for each CLC message.
const LENGTH: &str = "1024";

pub(crate) struct Capture(Child);

impl Capture {
    /// Captures what goes to and from this port by this interface.
    pub(crate) fn start(interface: &str, port: u16) -> anyhow::Result<Self> {
        let mut tcpdump = Command::new("tcpdump")
            .args(["-i", interface, "-n", "-U", "--immediate-mode", "-Z", "root", "-s", LENGTH, "-w", FILE])
            .arg(format!("tcp port {port}"))
            .stderr(Stdio::piped())
            .spawn()
            .context("tcpdump")?;
        let said = tcpdump.stderr.take().context("tcpdump")?;
        let mut lines = BufReader::new(said).lines();
        lines
            .find(|line| line.as_ref().is_ok_and(|line| line.contains("listening")))
            .context("tcpdump ended")??;
        // What it says from now on nobody needs, but it must be able to say it.
        thread::spawn(move || lines.for_each(drop));
        Ok(Self(tcpdump))
    }

    /// Puts what was captured into this file.
    pub(crate) fn stop(mut self, file: &Path) -> anyhow::Result<()> {
        // The kernel hands packets over after a moment.
        thread::sleep(Duration::from_millis(300));
        kill_process(Pid::from_child(&self.0), Signal::INT)?;
        self.0.wait()?;
        fs::copy(FILE, file).context("copying the capture")?;
        Ok(())
    }
}
