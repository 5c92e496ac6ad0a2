//! `cargo bench -p smcd-preload --bench programs`: real programs on TCP, with the preload library, and on unix sockets.
//!
//! Prints a table of medians and writes it, as JSON and Markdown, to `target/bench-report`. The contenders take turns,
//! so that whatever else the machine does meets them all. Figures are reported, never judged: no run fails for being
//! slow. It fails if connections that are to be promoted are not.
//!
//! Arguments: `-- --quick` only proves that everything runs; `-- --only redis` leaves out all whose name does not begin
//! so; `-- --runs 3` takes so many samples of each.

mod contender;
mod figure;
mod plan;
mod table;
mod work;

// What the tests start programs with; each of these has more than is used here.
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/programs/command.rs"]
mod command;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../../benches/common/figures.rs"]
mod figures;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/programs/iperf3.rs"]
mod iperf3;
#[allow(dead_code, unused_macros, unused_imports, reason = "the tests use the rest")]
#[path = "../../tests/programs/mode.rs"]
mod mode;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/programs/nginx.rs"]
mod nginx;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/programs/postgres.rs"]
mod postgres;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/programs/redis.rs"]
mod redis;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/programs/scratch.rs"]
mod scratch;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/programs/shim.rs"]
mod shim;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/programs/ticks.rs"]
mod ticks;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/programs/trace.rs"]
mod trace;

use std::{fs, path::Path, time::Instant};

use figure::Samples;
use plan::Plan;
use work::BENCHES;

/// Failures end the bench; nobody takes them apart.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let plan = Plan::from_arguments()?;
    let mut samples = Samples::default();
    for run in 1..=plan.runs {
        for bench in BENCHES.iter().filter(|bench| plan.includes(bench.name)) {
            let start = Instant::now();
            for contender in plan.contenders(bench) {
                match bench.measure(contender, &plan)? {
                    Some(measured) => samples.add(bench.name, contender, measured),
                    // It has said why.
                    None => break,
                }
            }
            eprintln!("run {run} of {}: {}, {:.1} s", plan.runs, bench.name, start.elapsed().as_secs_f64());
        }
    }
    let rows = samples.into_rows();
    let text = format!("{}\n{}\n{}", table::table(&rows), table::notes(&plan), table::targets(&rows));
    println!("{text}");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-report");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("programs.json"), serde_json::to_string_pretty(&rows)? + "\n")?;
    fs::write(dir.join("programs.md"), text)?;
    println!("Written to {}: programs.json, programs.md", dir.display());
    Ok(())
}
