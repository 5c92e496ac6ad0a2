//! The library under test.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// Where to find a library that is to be tested in place of the one that is built here.
const OTHER: &str = "SMCD_TEST_PRELOAD";

/// Has the library ask for the SMC option. Whoever sets it has attached the eBPF programs to a cgroup of the tests.
pub(crate) const OPTION: &str = "SMCD_TEST_OPTION";

/// The library, built of the present sources.
pub(crate) fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| env::var_os(OTHER).map_or_else(build, PathBuf::from))
}

/// Cargo makes no `cdylib` for the tests of its package: they do not link with it. So it is asked for it.
fn build() -> PathBuf {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--lib", "--profile", profile, "--message-format=json-render-diagnostics"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .arg("--target-dir")
        .arg(target)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "the library is built");
    let messages = String::from_utf8(output.stdout).expect("JSON");
    library_of(&messages).expect("cargo says where the library is")
}

/// The file that cargo's messages name.
fn library_of(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["filenames"][0].as_str().map(PathBuf::from))
        .find(|file| file.ends_with("libsmcd_preload.so"))
}

/// False while the library is empty: then it accelerates nothing, and nothing is said of promotions.
pub(crate) fn is_there() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    *THERE.get_or_init(|| {
        let library = fs::read(path()).expect("the library can be read");
        let there = library.windows(TRACE.len()).any(|bytes| bytes == TRACE.as_bytes());
        if !there {
            eprintln!("SKIPPED: whether connections are promoted: the library knows no {TRACE}");
        }
        there
    })
}

/// Names the file that the library is to append its trace to.
pub(crate) const TRACE: &str = "SMCD_DEBUG";
