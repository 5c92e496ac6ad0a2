//! A directory for one test, and all that runs in it.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{mode::Mode, shim, trace::Trace};

/// Programs are started in the directory and stay in it, daemons too: so all that a test started is found again by its
/// working directory, whoever its parent is. At the end nothing is left of either, also if the test failed.
pub(crate) struct Scratch {
    dir: PathBuf,
    /// What else the library is told here, by environment variables.
    settings: Vec<(&'static str, &'static str)>,
}

impl From<&str> for Scratch {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl Scratch {
    /// Not in the target directory: programs under another user have to get there.
    pub(crate) fn new(name: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = env::temp_dir().join(format!("smcd-programs-{name}-{}-{number}", process::id()));
        fs::create_dir(&dir).expect("a new directory");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("own directory");
        // As /proc has it, without symbolic links.
        let scratch = Self { dir: dir.canonicalize().expect("just made"), settings: Vec::new() };
        let trace = scratch.write("trace", "");
        // For those too who become another user.
        fs::set_permissions(trace, fs::Permissions::from_mode(0o666)).expect("own file");
        scratch
    }

    pub(crate) fn set(mut self, settings: &[(&'static str, &'static str)]) -> Self {
        self.settings.extend(settings);
        self
    }

    pub(crate) fn settings(&self) -> &[(&'static str, &'static str)] {
        &self.settings
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What a file in it contains; nothing if it is not there.
    pub(crate) fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.path(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).expect("written");
        path
    }

    /// What the library said in the programs of this test.
    pub(crate) fn trace(&self) -> Trace {
        Trace::read(&self.trace_file())
    }

    /// Fails the test unless connections were promoted, and by both ends' processes; or not, where they cannot be.
    #[track_caller]
    pub(crate) fn check_promotions(&self, mode: Mode, at_least: usize) {
        let trace = self.trace();
        let (promotions, processes) = (trace.promotions(), trace.processes().len());
        if !mode.promotes() {
            assert_eq!(promotions, 0, "promoted: {}", trace.text());
        } else if at_least > 0 && shim::is_there() {
            assert!(promotions >= at_least, "{promotions} of {at_least} promoted: {}", trace.text());
            assert!(processes >= 2, "promoted at one end only: {}", trace.text());
        }
    }

    pub(crate) fn trace_file(&self) -> PathBuf {
        self.path("trace")
    }

    /// A copy of the library that other users can read.
    pub(crate) fn copy_of_library(&self) -> PathBuf {
        let copy = self.path("libsmcd_preload.so");
        if !copy.exists() {
            fs::copy(shim::path(), &copy).expect("copied");
        }
        copy
    }

    /// Processes that run in it.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        entries
            .filter(|entry| {
                fs::read_link(entry.path().join("cwd")).is_ok_and(|dir| dir.starts_with(&self.dir))
            })
            .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
            .collect()
    }

    /// Waits until all that was started has ended; false if it does not.
    #[must_use]
    pub(crate) fn becomes_empty(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while !self.processes().is_empty() {
            if Instant::now() > end {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // More than once, for they may start others meanwhile.
        for _ in 0..100 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _ = kill_process(pid, Signal::KILL);
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
