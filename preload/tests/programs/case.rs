//! A case: a small C program, run on plain TCP and accelerated. Its transcripts have to be the same.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use crate::{
    command::{Running, command, run},
    mode::{DEFAULT_POLICY, End, Mode},
    scratch::Scratch,
    shim,
};

/// What is to become of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It is promoted, and goes on in shared memory.
    KeepsSmcd,
    /// It is promoted, and given back to TCP when the program does this.
    GoesBack,
    /// It is not promoted.
    StaysTcp,
    /// Not done yet: what is promoted does not behave as TCP. Tested is that one end alone does no harm.
    NotYet,
}

/// One line of the table in `cases.rs`.
pub(crate) struct Case {
    /// That of its file, `c/NAME.c`.
    pub(crate) name: &'static str,
    /// What the README says of it.
    pub(crate) about: &'static str,
    pub(crate) outcome: Outcome,
}

/// How much was sent before the case begins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Start {
    /// Nothing; there is no promotion before the default policy has its reasons.
    Cold,
    /// Nothing; a promotion may come at any moment.
    Eager,
    /// The connection is promoted, if it ever is.
    Warm,
}

const STARTS: [Start; 3] = [Start::Cold, Start::Eager, Start::Warm];

/// Both ends' transcripts, and how they ended.
#[derive(PartialEq, Eq, Debug)]
struct Transcript(String);

/// Tests a case in this mode: as on plain TCP, and promoted where it is to be.
pub(crate) fn test(case: &Case, mode: Mode) {
    if let Some(missing) = missing(case) {
        eprintln!("SKIPPED: {}: {missing}", case.name);
        return;
    }
    if case.outcome == Outcome::NotYet && mode.promotes() {
        eprintln!("SKIPPED: {}: the library does not do it as TCP does, yet", case.name);
        return;
    }
    for start in STARTS {
        let expected = plain(case, start);
        let transcript = perform(case, mode, start);
        if transcript != *expected {
            panic!(
                "{} {mode:?} {start:?}: not as on TCP:\n{}",
                case.name,
                differences(&expected.0, &transcript.0)
            );
        }
    }
}

/// What happens on plain TCP; found out once.
fn plain(case: &Case, start: Start) -> Arc<Transcript> {
    type Known = HashMap<(&'static str, Start), Arc<OnceLock<Arc<Transcript>>>>;
    static KNOWN: Mutex<Option<Known>> = Mutex::new(None);
    let cell = {
        // A test that fails leaves the table as it is.
        let mut known = KNOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        known.get_or_insert_default().entry((case.name, start)).or_default().clone()
    };
    cell.get_or_init(|| Arc::new(perform(case, Mode::Tcp, start))).clone()
}

/// Bytes of the head of the control file, and of each transcript with its length; see `c/case.c`.
const HEAD: usize = 20;
const TRANSCRIPT: usize = 60_004;

fn perform(case: &Case, mode: Mode, start: Start) -> Transcript {
    let program = compiled(case);
    let scratch = Scratch::new(case.name);
    let control = scratch.write("control", vec![0; HEAD + 2 * TRANSCRIPT]);
    let promotes = mode.promotes() && case.outcome != Outcome::StaysTcp && shim::is_there();
    let begin = |end, role: &str| {
        let mut command = command(&program, &scratch, mode, end);
        command.env("CASE_ROLE", role).env("CASE_CONTROL", &control).env("CASE_TRACE", scratch.trace_file());
        command.env("CASE_WARM", if start == Start::Warm { "yes" } else { "no" });
        // With the option there is nothing to wait for; and who says so may be the parent of who goes on.
        let waits = promotes && std::env::var_os(shim::OPTION).is_none();
        command.env("CASE_PROMOTES", if waits { "yes" } else { "no" });
        if mode.accelerates(end) {
            command.env("SMCD_PROMOTION", if start == Start::Cold { DEFAULT_POLICY } else { "eager" });
        }
        for stream in ["stdout", "stderr"] {
            let file = fs::File::create(scratch.path(&format!("{role}.{stream}"))).expect("created");
            if stream == "stdout" {
                command.stdout(file)
            } else {
                command.stderr(file)
            };
        }
        Running::start(&mut command)
    };
    let mut ends =
        [(End::Server, "server"), (End::Client, "client")].map(|(end, role)| (role, begin(end, role)));
    let statuses = ends.each_mut().map(|(_, process)| process.wait(PATIENCE));
    let all_ended = scratch.becomes_empty(PATIENCE);

    let texts = transcripts(&control);
    let context = format!(
        "{} {mode:?} {start:?}\n{}\nserver and client: {statuses:?}\ntrace:\n{}",
        case.name,
        texts.concat(),
        scratch.trace().text()
    );
    assert!(all_ended && statuses.iter().all(Option::is_some), "hangs: {context}");
    for file in ["server.stdout", "server.stderr", "client.stdout", "client.stderr"] {
        assert_eq!(scratch.read(file), "", "{file}: {context}");
    }
    let mut whole = String::new();
    for ((role, _), (status, text)) in ends.iter().zip(statuses.iter().zip(&texts)) {
        let status = status.expect("ended");
        assert!(!text.contains("FAILED"), "{context}");
        assert!(!status.success() || text.ends_with("end\n"), "{role} does not come to its end: {context}");
        assert!(!text.is_empty() && text != "end\n", "{role} says nothing: {context}");
        whole += &format!("{role}:\n{text}{status}\n");
    }
    check_promotion(case, mode, start, &scratch, &context);
    Transcript(whole)
}

/// So long a case may take, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(20);

fn transcripts(control: &Path) -> [String; 2] {
    let bytes = fs::read(control).expect("the control file");
    // The client's comes first there, the server's here.
    [1, 0].map(|at| {
        let part = &bytes[HEAD + at * TRANSCRIPT..][..TRANSCRIPT];
        let used = u32::from_ne_bytes(part[..4].try_into().expect("four bytes")) as usize;
        assert!(used + 4 <= TRANSCRIPT, "the transcript is too long");
        String::from_utf8_lossy(&part[4..4 + used]).into_owned()
    })
}

fn check_promotion(case: &Case, mode: Mode, start: Start, scratch: &Scratch, context: &str) {
    let promotions = scratch.trace().promotions();
    if !mode.promotes() || case.outcome == Outcome::StaysTcp {
        assert_eq!(promotions, 0, "promoted: {context}");
    } else if start == Start::Warm && shim::is_there() {
        assert!(promotions >= 2, "not promoted at both ends: {context}");
        let given_back = scratch.trace().given_back();
        assert!(case.outcome != Outcome::GoesBack || given_back > 0, "not given back: {context}");
    }
}

/// The lines that are not the same.
fn differences(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let same = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(8);
    let part = |lines: &[&str]| lines[from.min(lines.len())..(from + 16).min(lines.len())].join("\n  ");
    format!("TCP:\n  {}\naccelerated:\n  {}", part(&expected), part(&found))
}

/// Where the C sources lie.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/c")
}

/// What has to be there for this case, and is not.
fn missing(case: &Case) -> Option<&'static str> {
    let source =
        fs::read_to_string(sources().join(case.name).with_extension("c")).expect("the case has a file");
    if source.contains("<liburing.h>") && !Path::new("/usr/include/liburing.h").exists() {
        return Some("liburing is not here");
    }
    None
}

/// The program of a case; compiled once.
pub(crate) fn compiled(case: &Case) -> PathBuf {
    type Compiled = HashMap<&'static str, Arc<OnceLock<PathBuf>>>;
    static COMPILED: Mutex<Option<Compiled>> = Mutex::new(None);
    let cell = {
        let mut compiled = COMPILED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        compiled.get_or_insert_default().entry(case.name).or_default().clone()
    };
    cell.get_or_init(|| compile(case.name)).clone()
}

fn compile(name: &str) -> PathBuf {
    let source = sources().join(name).with_extension("c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("case-{name}"));
    let mut command = Command::new("cc");
    // As distributions compile: optimised and fortified, so that the checking variants of the calls are used.
    command.args(["-std=gnu17", "-O2", "-D_GNU_SOURCE", "-D_FORTIFY_SOURCE=2", "-pthread"]);
    command.args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-o"]).arg(&program);
    command.arg(&source).arg(sources().join("case.c"));
    // Options of its own stand in the first line.
    let text = fs::read_to_string(&source).expect("the case has a file");
    if let Some((_, options)) = text.lines().next().and_then(|line| line.split_once("cc: ")) {
        command.args(options.trim_end_matches("*/").split_whitespace());
    }
    run(&mut command, b"", 120).success();
    program
}
