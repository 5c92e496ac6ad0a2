//! Programs, as the tests start them.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    mode::{End, Mode},
    scratch::Scratch,
    shim,
};

/// A command in this directory, with the library if the mode wants it, and without any settings from outside.
pub(crate) fn command(program: impl AsRef<OsStr>, scratch: &Scratch, mode: Mode, end: End) -> Command {
    let mut command = Command::new(program);
    command.current_dir(scratch.dir()).stdin(Stdio::null()).env("LC_ALL", "C").env("TZ", "UTC");
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if ["SMC", "LD_", "PG", "PYTHON"].iter().any(|prefix| name_text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    if mode.accelerates(end) {
        command.env("LD_PRELOAD", shim::path());
        command.env("SMCD_PROMOTION", mode.policy()).env(shim::TRACE, scratch.trace_file());
        if std::env::var_os(shim::OPTION).is_some() {
            command.env("SMCD_OPTION_PEERS", "127.0.0.0/8,::1");
        }
        command.envs(scratch.settings().iter().copied());
    }
    command
}

/// True if all these programs are here; says so otherwise.
pub(crate) fn are_here(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| find(program).is_none()).collect();
    if !missing.is_empty() {
        eprintln!("SKIPPED: not here: {missing:?}");
    }
    missing.is_empty()
}

/// Where the program is. Debian keeps some where only root looks.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// What a program wrote, and how it ended.
pub(crate) struct Done {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Done {
    /// What it wrote, if it succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> Vec<u8> {
        assert!(
            self.status.success(),
            "{}\n{}\n{}",
            self.status,
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        self.stdout
    }

    /// The same as text.
    #[track_caller]
    pub(crate) fn text(self) -> String {
        String::from_utf8(self.success()).expect("text")
    }
}

/// Runs a command to its end, which is to come within so many seconds. Its children may outlive it: what it writes goes
/// to files.
#[track_caller]
pub(crate) fn run(command: &mut Command, input: &[u8], seconds: u64) -> Done {
    let [stdin, stdout, stderr] = [(); 3].map(|()| tempfile());
    (&stdin).write_all(input).expect("input is written");
    rewind(&stdin);
    command.stdin(share(&stdin)).stdout(share(&stdout)).stderr(share(&stderr));
    let mut child = Running::start(command);
    let status = child.wait(Duration::from_secs(seconds));
    let (stdout, stderr) = (contents(stdout), contents(stderr));
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    match status {
        Some(status) => Done { status, stdout, stderr },
        None => panic!("{command:?} hangs\n{}\n{stderr}", String::from_utf8_lossy(&stdout)),
    }
}

/// A file without a name.
fn tempfile() -> File {
    use rustix::fs::{MemfdFlags, memfd_create};
    memfd_create("smcd-programs", MemfdFlags::CLOEXEC).expect("memory").into()
}

fn share(file: &File) -> File {
    file.try_clone().expect("a descriptor")
}

fn rewind(file: &File) {
    use std::io::Seek;
    (&*file).rewind().expect("a file");
}

fn contents(mut file: File) -> Vec<u8> {
    rewind(&file);
    let mut contents = Vec::new();
    file.read_to_end(&mut contents).expect("read");
    contents
}

/// A program that ends with the test.
pub(crate) struct Running(Child);

impl Running {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        match command.spawn() {
            Ok(child) => Self(child),
            Err(error) => panic!("{command:?}: {error}"),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended; `None` if it does not.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait().expect("own child") {
                return Some(status);
            }
            if Instant::now() > end {
                return None;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).expect("it is there");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the condition is met.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "does not happen: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A port of loopback that was free just now.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// Waits until somebody listens at this port.
#[track_caller]
pub(crate) fn until_listening(port: u16) {
    until("the server listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
}
