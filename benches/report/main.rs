//! `cargo bench --bench report`: SMC-D against `TcpStream`, `UnixStream` and the raw ring.
//!
//! Prints a table of medians and writes it, as JSON, Markdown and a plot, to `target/bench-report`. The transports
//! take turns, so that whatever else the machine does meets them all. Figures are reported, never judged: no run
//! fails for being slow.
//!
//! Arguments: `-- --quick` takes a few seconds and only proves that everything runs; `-- --only throughput` (or
//! `round_trip`, `short`, `promotion`, `idle`, `many`) leaves out the others; `-- --unpinned` lets the scheduler place the two ends, which then often
//! share a processor.

#[path = "../common/mod.rs"]
mod common;

mod idle;
mod many;
mod plan;
mod plot;
mod promotion;
mod round_trip;
mod rows;
mod short;
mod solo;
mod table;
mod targets;
mod throughput;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use common::{Result, contender::SMCD_EAGER, cpu, peer};
use plan::Plan;
use rows::{Row, Samples};

/// Takes one sample of everything that it measures.
type Bench = fn(&Plan, &mut Samples) -> Result<()>;

/// All benches by name; and in how many processes of its own one is repeated in each run, if not done in this one.
/// A later one gets a line here, and in `table.rs` if its rows belong in the table.
const BENCHES: [(&str, Bench, usize); 6] = [
    (throughput::BENCH, throughput::run, 0),
    (round_trip::BENCH, round_trip::run, 0),
    (short::BENCH, short::run, 0),
    (promotion::BENCH, promotion::run, 5),
    (idle::BENCH, idle::run, 0),
    (many::BENCH, many::run, 1),
];

fn main() -> Result<()> {
    peer::be_a_peer_if_asked();
    let start = Instant::now();
    let plan = Plan::from_arguments()?;
    if let Some(solo) = &plan.solo {
        let (_, bench, _) = BENCHES.into_iter().find(|(name, ..)| name == solo).ok_or("no such bench")?;
        return solo::tell(bench, &plan);
    }
    let rows = measure(&plan)?;
    let text =
        format!("{}\n{}\n{}", table::table(&rows), notes(&plan, &rows, start), targets::targets(&rows));
    println!("{text}");
    let dir = report_dir()?;
    fs::write(dir.join("report.json"), serde_json::to_string_pretty(&rows)? + "\n")?;
    fs::write(dir.join("report.md"), text)?;
    fs::write(dir.join("report.svg"), plot::svg(&rows)?)?;
    println!("Written to {}: report.json, report.md, report.svg", dir.display());
    Ok(())
}

fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let mut samples = Samples::default();
    for run in 1..=plan.runs {
        for (name, bench, processes) in BENCHES {
            if plan.includes(name) {
                let start = Instant::now();
                if processes == 0 {
                    bench(plan, &mut samples)?;
                }
                for _ in 0..processes {
                    solo::run(name, plan, &mut samples)?;
                }
                eprintln!("run {run} of {}: {name}, {:.1} s", plan.runs, start.elapsed().as_secs_f64());
            }
        }
    }
    Ok(samples.into_rows())
}

/// What a reader has to know about the figures.
fn notes(plan: &Plan, rows: &[Row], start: Instant) -> String {
    let very_many = rows::median(rows, many::BENCH, many::CONNECTIONS, 0, SMCD_EAGER).unwrap_or_default();
    format!(
        "Medians of {} interleaved runs, {} s in all. {}. The ends are two processes with a runtime of one thread \
         each. All settings are the defaults, except `TCP_NODELAY`, which is set in round trips, and one way where it \
         says \"nodelay\"; SMC-D also with `busy_poll` of 50 µs, and without any spinning (\"sleep\"). Receivers read \
         into 64 KiB, or as much as a message has. The raw ring only busy-waits. Ratios say how many times better the \
         first is than the second. \"Very many\" are {very_many} connections at once. Promotion and very many connections \
         are of connections that are promoted at once (`Promotion::Eager`).\n",
        plan.runs,
        start.elapsed().as_secs(),
        cpu::machine()
    )
}

/// `bench-report` in the target directory, in which this program lies.
fn report_dir() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    let dir = target.unwrap_or(Path::new("target")).join("bench-report");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}
