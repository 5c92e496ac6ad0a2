//! `smcdctl run`: what the program gets, and what becomes of it. Any library serves where only that counts.

mod common;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use common::smcdctl;

/// A library that does nothing of what ours does: one that this process has.
fn any_library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let path =
        maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("/libc"));
    fs::canonicalize(path.unwrap()).unwrap()
}

fn run(arguments: &[&str]) -> Command {
    let mut command = smcdctl();
    command.env("SMCD_PRELOAD", any_library()).arg("run").args(arguments);
    command
}

fn text(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_program_gets_library_and_settings() {
    let options = [
        "--receive-buffer=64K",
        "--promotion=eager",
        "--busy-poll=off",
        "--runtime-dir=/run/x",
        "--debug=log",
        "env",
    ];
    let variables = text(&mut run(&options));
    let library = any_library();
    for wanted in [
        format!("LD_PRELOAD={}", library.display()),
        "SMCD_RCVBUF=64K".into(),
        "SMCD_PROMOTION=eager".into(),
        "SMCD_BUSY_POLL=off".into(),
        "SMCD_RUNTIME_DIR=/run/x".into(),
        "SMCD_DEBUG=log".into(),
    ] {
        assert!(variables.lines().any(|line| line == wanted), "{wanted} is not in {variables}");
    }
    assert!(text(&mut run(&["--debug", "env"])).contains("SMCD_DEBUG=1"));
    let untouched = text(run(&["env"]).env("SMC_RCVBUF", "32K").env("LD_PRELOAD", "libm.so.6"));
    assert!(untouched.contains("SMC_RCVBUF=32K") && !untouched.contains("SMCD_PROMOTION"));
    assert!(untouched.contains(&format!("LD_PRELOAD={}:libm.so.6", library.display())));
}

#[test]
fn arguments_are_the_programs_own() {
    assert_eq!(text(&mut run(&["echo", "--report", "-x", "--"])), "--report -x --\n");
    assert_eq!(text(&mut run(&["--", "echo", "a  b"])), "a  b\n");
}

#[test]
fn code_and_signal_are_those_of_the_program() {
    for how in [&[][..], &["--report"]] {
        let with = |script| {
            let arguments: Vec<_> = how.iter().copied().chain(["sh", "-c", script]).collect();
            run(&arguments).stderr(Stdio::null()).status().unwrap()
        };
        assert_eq!(with("exit 7").code(), Some(7), "{how:?}");
        assert_eq!(with("kill -TERM $$").signal(), Some(libc::SIGTERM), "{how:?}");
        assert_eq!(with("kill -KILL $$").signal(), Some(libc::SIGKILL), "{how:?}");
    }
}

#[test]
fn a_signal_for_us_is_one_for_the_program() {
    let script = "trap 'exit 5' USR1; echo ready; while :; do sleep 0.01; done";
    let mut child =
        run(&["--report", "sh", "-c", script]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    // SAFETY: a signal for our own child.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGUSR1) }, 0);
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn a_program_that_is_not_there() {
    let output = run(&["/nowhere/at/all"]).output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot run /nowhere/at/all"));
    assert_eq!(run(&["/"]).output().unwrap().status.code(), Some(126));
    let output = run(&["--report", "/nowhere/at/all"]).output().unwrap();
    assert_eq!(output.status.code(), Some(127));
}

#[test]
fn a_library_that_is_not_there() {
    let output = smcdctl().env("SMCD_PRELOAD", "/nowhere.so").args(["run", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/nowhere.so"));
}

#[test]
fn a_static_program_is_reported_and_run() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    if !compile_static(dir.path(), &program) {
        eprintln!("SKIPPED without a compiler for static programs");
        return;
    }
    let output = run(&[program.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        said,
        format!("smcdctl: {} stays on TCP because it is linked statically\n", program.display())
    );
    let script = dir.path().join("script");
    fs::write(&script, format!("#!{}\n", program.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let output = run(&[script.to_str().unwrap()]).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), said);
}

fn compile_static(dir: &Path, program: &Path) -> bool {
    let source = dir.join("program.c");
    fs::write(&source, "int main(void) { return 3; }\n").unwrap();
    let compiled = Command::new("cc").arg("-static").arg("-o").arg(program).arg(&source).status();
    compiled.is_ok_and(|status| status.success())
}

#[test]
fn a_report_of_a_program_without_connections() {
    let output = run(&["--report", "true"]).output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("no connection was long enough"));
}

#[test]
fn a_program_that_uses_the_library_itself_is_reported() {
    let own = std::env::current_exe().unwrap();
    let arguments = ["--report", own.to_str().unwrap(), "--exact", "talker", "--nocapture"];
    let output = run(&arguments).env("SMCD_TEST_ROLE", "talker").output().unwrap();
    assert!(output.status.success());
    let report = String::from_utf8(output.stderr).unwrap();
    assert!(report.contains("smcdctl: 1 process with"), "{report}");
    assert!(report.lines().any(|line| line.starts_with("promoted") && line.ends_with(" 2")), "{report}");
}

#[test]
fn applicability_of_a_program_that_uses_the_library_itself() {
    let own = std::env::current_exe().unwrap();
    let mut command = smcdctl();
    command.env("SMCD_PRELOAD", any_library()).env("SMCD_TEST_ROLE", "observed");
    command.args(["applicability", "--json", own.to_str().unwrap(), "--exact", "talker", "--nocapture"]);
    command.stderr(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success());
    // Before it stands what the test program writes.
    let text = String::from_utf8(output.stdout).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text[text.find("\n{").unwrap()..]).unwrap();
    assert_eq!(report["all"]["connections"], 2);
    assert_eq!(report["eligible"]["bytes"], report["all"]["bytes"]);
    assert_eq!(report["well_suited"]["connections"], 2);
    assert_eq!(report["well_suited"]["bytes"], 2 * 100 * 1010);
    assert_eq!(report["sizes"]["<=1K"].as_u64().unwrap(), 200);
    assert!(report["gain"]["times"].as_f64().unwrap() > 1.0);
}

/// Has both ends of a connection that carries something.
#[test]
fn talker() {
    let config = match common::role().as_deref() {
        Some("talker") => smcd::SmcConfig::new().promotion(smcd::Promotion::Eager),
        Some("observed") => smcd::SmcConfig::from_env().unwrap(),
        _ => return,
    };
    common::talk(&config, 100);
}
