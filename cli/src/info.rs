//! `smcdctl info`: what there is on this machine for SMC-D.

use std::{
    io::{self, Read, Write},
    os::{linux::net::SocketAddrExt, unix::net},
    process::ExitCode,
};

use clap::Args;
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    net::{AddressFamily, SocketFlags, SocketType, netlink::SOCK_DIAG, socket_with},
    process::{Resource, getrlimit},
};
use serde::Serialize;
use smcd::{
    DebugOutput, Promotion, SmcConfig, Stack,
    blocking::{SmcListener, SmcStream},
    dibs::loopback::DmbLimits,
};

use crate::preload;

/// Messages after which a connection of our own has to be SMC-D.
const MESSAGES: usize = 200;

/// Show which version this is, which devices there are, and whether this machine has what SMC-D needs.
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Facts {
    version: &'static str,
    build: &'static str,
    architecture: &'static str,
    kernel: String,
    preload_library: Option<String>,
    settings: Option<String>,
    devices: Vec<DeviceFacts>,
    limits: Limits,
    support: Vec<Support>,
}

#[derive(Debug, Serialize)]
struct DeviceFacts {
    fabric: String,
    /// Of this process: each has one of its own.
    gid: String,
    max_dmbs: usize,
}

#[derive(Debug, Serialize)]
struct Limits {
    dmbs: usize,
    dmb_bytes: usize,
    dmb_bytes_per_user: usize,
    descriptors: Option<u64>,
}

/// Something that is needed.
#[derive(Debug, Serialize)]
struct Support {
    what: &'static str,
    /// What is wrong; `None` if nothing is.
    problem: Option<String>,
}

impl Info {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let facts = facts();
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&facts)?)?;
        } else {
            write!(out, "{}", text(&facts))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn facts() -> Facts {
    let stack = Stack::shared();
    let device = |device: &std::sync::Arc<dyn smcd::dibs::Device>| DeviceFacts {
        fabric: device.fabric_id().to_string(),
        gid: device.gid().to_string(),
        max_dmbs: device.max_dmbs(),
    };
    let limits = DmbLimits::default();
    Facts {
        version: env!("CARGO_PKG_VERSION"),
        build: if cfg!(debug_assertions) { "debug" } else { "release" },
        architecture: std::env::consts::ARCH,
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        preload_library: preload::find().ok().map(|path| path.display().to_string()),
        settings: SmcConfig::from_env().err().map(|error| error.to_string()),
        devices: stack.devices().iter().map(device).collect(),
        limits: Limits {
            dmbs: limits.dmbs,
            dmb_bytes: limits.bytes,
            dmb_bytes_per_user: limits.bytes_per_uid,
            descriptors: getrlimit(Resource::Nofile).current,
        },
        support: vec![
            support("sealed shared memory (memfd)", sealed_memory()),
            support("abstract unix sockets", abstract_sockets()),
            support("socket diagnosis (sock_diag)", socket_diagnosis()),
            support("promotion of a TCP connection", promotion()),
        ],
    }
}

fn support(what: &'static str, result: io::Result<()>) -> Support {
    Support { what, problem: result.err().map(|error| error.to_string()) }
}

fn sealed_memory() -> io::Result<()> {
    let memory = memfd_create("smcdctl-info", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    Ok(fcntl_add_seals(&memory, SealFlags::SHRINK)?)
}

fn abstract_sockets() -> io::Result<()> {
    let name = format!("smcd/info/{}", std::process::id());
    net::UnixListener::bind_addr(&net::SocketAddr::from_abstract_name(name)?).map(drop)
}

fn socket_diagnosis() -> io::Result<()> {
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG))
        .map(drop)?)
}

/// Has a connection to ourselves promoted.
fn promotion() -> io::Result<()> {
    let config = SmcConfig::new().promotion(Promotion::Eager);
    let listener = SmcListener::bind_with("127.0.0.1:0", config.clone())?;
    let mut client = SmcStream::connect_with(listener.local_addr()?, &config)?;
    let (mut server, _) = listener.accept()?;
    for _ in 0..MESSAGES {
        client.write_all(&[0])?;
        server.read_exact(&mut [0])?;
        server.write_all(&[0])?;
        client.read_exact(&mut [0])?;
        if client.transport().is_smcd() && server.transport().is_smcd() {
            return Ok(());
        }
    }
    Err(io::Error::other(client.transport().to_string()))
}

fn text(facts: &Facts) -> String {
    let mut lines = vec![
        format!("smcdctl {} ({} build, {})", facts.version, facts.build, facts.architecture),
        format!("Linux {}", facts.kernel),
        match &facts.preload_library {
            Some(path) => format!("library for programs: {path}"),
            None => format!("library for programs: {} not found", preload::LIBRARY),
        },
    ];
    match DebugOutput::from_env() {
        Some(DebugOutput::File(file)) => lines.push(format!("programs report to {}", file.display())),
        Some(_) => lines.push("programs report to the standard error stream".into()),
        None => {}
    }
    lines.extend(facts.settings.as_ref().map(|wrong| format!("settings of the environment: {wrong}")));
    for device in &facts.devices {
        lines.push(format!(
            "device: fabric {}, GID {} (this process), {} DMBs",
            device.fabric, device.gid, device.max_dmbs
        ));
    }
    let limits = &facts.limits;
    lines.push(format!(
        "limits of a process: {} DMBs, {} in all, {} for one user, {} descriptors",
        limits.dmbs,
        indicatif::BinaryBytes(limits.dmb_bytes as u64),
        indicatif::BinaryBytes(limits.dmb_bytes_per_user as u64),
        limits.descriptors.map_or_else(|| "any number of".into(), |n| n.to_string()),
    ));
    for support in &facts.support {
        let state = support.problem.as_deref().unwrap_or("works");
        lines.push(format!("{}: {state}", support.what));
    }
    lines.join("\n") + "\n"
}
