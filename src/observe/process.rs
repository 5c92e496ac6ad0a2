//! The processes of this user that have a registry.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, process::geteuid};

use super::{
    layout::NAME,
    snapshot::Snapshot,
    source::{BadRegistry, Source},
};

/// A process that has a registry.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    command: String,
    source: Source,
    /// Where it was found; it can be opened for writing there.
    path: Option<PathBuf>,
}

/// The processes of this user that have a registry, in the order of their numbers. Those that end meanwhile, or whose
/// registry cannot be read, are left out.
///
/// # Errors
/// If there is no `/proc`.
pub fn processes() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        found.extend(Process::of(pid));
    }
    found.sort_by_key(|process| process.pid);
    Ok(found)
}

impl Process {
    /// The process of this number, if it is of this user and has a registry.
    pub fn of(pid: u32) -> Option<Self> {
        let home = PathBuf::from(format!("/proc/{pid}"));
        if fs::metadata(&home).ok()?.uid() != geteuid().as_raw() {
            return None;
        }
        let name = format!("/memfd:{NAME} (deleted)");
        for entry in fs::read_dir(home.join("fd")).ok()?.flatten() {
            let path = entry.path();
            if !fs::read_link(&path).is_ok_and(|target| target.as_os_str() == name.as_str()) {
                continue;
            }
            match open(&path, false).and_then(|source| checked(source, &home)) {
                Ok(source) => {
                    return Some(Self { pid, command: command(pid), source, path: Some(path) });
                }
                Err(error) => tracing::debug!(pid, %error, "not its registry"),
            }
        }
        None
    }

    /// A process that has handed its registry over.
    pub(super) fn of_file(file: File) -> Result<Self, BadRegistry> {
        let source = Source::new(file)?;
        let pid = u32::try_from(source.pid()?).map_err(|_| BadRegistry::Layout)?;
        Ok(Self { pid, command: command(pid), source, path: None })
    }

    /// Its number, as this process sees it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The name of its program, as far as the kernel keeps it; empty if it has ended.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Its connections and counters at present, or when it ended.
    ///
    /// # Errors
    /// If its registry cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, BadRegistry> {
        Snapshot::read(&self.source)
    }

    /// The registry, to be written to as well.
    pub(super) fn writable(&self) -> Result<Source, BadRegistry> {
        let path = self.path.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        let source = open(path, true)?;
        // The descriptor may be another one by now.
        let is_same = source.pid()? == self.source.pid()?;
        if is_same { Ok(source) } else { Err(BadRegistry::Inherited(source.pid()?)) }
    }
}

fn open(path: &Path, writable: bool) -> Result<Source, BadRegistry> {
    // Whatever it is that has taken its name, it must not make us wait, nor become our terminal.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = OpenOptions::new().read(true).write(writable).custom_flags(flags.bits() as i32).open(path)?;
    Source::new(file)
}

/// A child that has not yet begun a registry of its own still holds its parent's.
fn checked(source: Source, home: &Path) -> Result<Source, BadRegistry> {
    let pid = source.pid()?;
    if own_number(home) == Some(pid) { Ok(source) } else { Err(BadRegistry::Inherited(pid)) }
}

/// What a process takes for its number: the last of those that it has, one for each pid namespace.
fn own_number(home: &Path) -> Option<u64> {
    let status = fs::read_to_string(home.join("status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().last()?.parse().ok()
}

fn command(pid: u32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end().to_owned()
}
