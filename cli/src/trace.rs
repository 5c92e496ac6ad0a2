//! `smcdctl trace`: the CDC messages of live connections, for Wireshark.

mod packet;

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufWriter, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use pcap_file::{
    DataLink,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::EnhancedPacketBlock,
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
        },
    },
};
use signal_hook::consts::{SIGINT, SIGTERM};
use smcd::observe::{BadRegistry, CdcEvent, Process, Tracer, processes};

use crate::{progress::spinner, table::number};

/// How often messages are fetched.
const TICK: Duration = Duration::from_millis(20);

/// How often is looked for processes that have come.
const SEARCH: Duration = Duration::from_millis(500);

/// Timestamps are in units of 10 to the minus this many seconds.
const NANOSECONDS: u8 = 9;

/// Write the CDC messages of connections that use SMC-D to a file for Wireshark.
///
/// Each message is written down by the process that sends it: to see both directions, both have to be traced, as they
/// are unless processes are chosen. The format is described in smcd.lua, which makes Wireshark understand it. Payload is
/// not recorded.
#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// Only this process; may be given more than once.
    #[arg(long, short)]
    pid: Vec<u32>,
    /// Only connections that have this port at either end.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Write to this file, in place of the standard output.
    #[arg(long, short, value_name = "FILE.pcapng")]
    output: Option<PathBuf>,
    /// End after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
}

impl Trace {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut out = Output::new(self.sink()?)?;
        let is_over = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, is_over.clone())?;
        }
        let end = self.duration.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let mut traced = Traced::default();
        traced.find(&self)?;
        let mut searched = Instant::now();
        let bar = spinner();
        while !is_over.load(Ordering::Relaxed) && end.is_none_or(|end| Instant::now() < end) {
            thread::sleep(TICK);
            if searched.elapsed() > SEARCH {
                traced.find(&self)?;
                searched = Instant::now();
            }
            traced.fetch(&mut out)?;
            let processes = number(traced.tracers.len(), "process", "processes");
            bar.set_message(format!("{} messages of {processes}", out.written));
            if traced.tracers.is_empty() && !self.pid.is_empty() {
                break;
            }
        }
        traced.fetch(&mut out)?;
        out.flush()?;
        bar.finish_and_clear();
        if traced.lost > 0 {
            eprintln!("smcdctl: {} messages came too fast and were lost", traced.lost);
        }
        Ok(ExitCode::SUCCESS)
    }

    fn sink(&self) -> anyhow::Result<Box<dyn Write>> {
        match &self.output {
            Some(path) => {
                let file =
                    File::create(path).with_context(|| format!("cannot write to {}", path.display()))?;
                Ok(Box::new(file))
            }
            None if io::stdout().is_terminal() => {
                bail!("a trace is no text: name a file with --output, or redirect the standard output")
            }
            None => Ok(Box::new(io::stdout())),
        }
    }
}

/// The processes that are traced.
#[derive(Default)]
struct Traced {
    tracers: HashMap<u32, Tracer>,
    lost: u64,
}

impl Traced {
    /// Looks for processes that are to be traced and are not.
    fn find(&mut self, wanted: &Trace) -> anyhow::Result<()> {
        let found = if wanted.pid.is_empty() {
            processes()?
        } else {
            wanted.pid.iter().copied().filter_map(Process::of).collect()
        };
        if found.is_empty() && self.tracers.is_empty() && !wanted.pid.is_empty() {
            bail!("no process with this number has connections that can be traced");
        }
        for process in found {
            let pid = process.pid();
            if self.tracers.contains_key(&pid) {
                continue;
            }
            match process.trace(wanted.port) {
                Ok(tracer) => _ = self.tracers.insert(pid, tracer),
                Err(error @ BadRegistry::Traced) => return Err(error).context(format!("process {pid}")),
                // It has ended, or does not let us.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn fetch(&mut self, out: &mut Output) -> anyhow::Result<()> {
        let mut events = Vec::new();
        let mut lost = 0;
        self.tracers.retain(|pid, tracer| {
            let before = tracer.lost();
            let fetched =
                tracer.poll().map(|found| events.extend(found.into_iter().map(|event| (*pid, event))));
            lost += tracer.lost() - before;
            fetched.is_ok() && std::fs::exists(format!("/proc/{pid}")).unwrap_or(false)
        });
        self.lost += lost;
        events.sort_by_key(|(_, event)| event.time);
        events.iter().try_for_each(|(pid, event)| out.write(*pid, event))
    }
}

/// A capture file that is being written.
struct Output {
    file: PcapNgWriter<BufWriter<Box<dyn Write>>>,
    written: u64,
}

impl Output {
    fn new(sink: Box<dyn Write>) -> anyhow::Result<Self> {
        let mut file = PcapNgWriter::new(BufWriter::new(sink))?;
        file.write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::USER0,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName("smcd".into()),
                InterfaceDescriptionOption::IfDescription("CDC messages of SMC-D connections".into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        })?;
        Ok(Self { file, written: 0 })
    }

    fn write(&mut self, pid: u32, event: &CdcEvent) -> anyhow::Result<()> {
        let packet = packet::packet(pid, event);
        self.file.write_pcapng_block(EnhancedPacketBlock {
            interface_id: 0,
            timestamp: event.time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default(),
            original_len: packet.len() as u32,
            data: packet.as_slice().into(),
            options: Vec::new(),
        })?;
        self.written += 1;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.get_mut().flush()
    }
}
