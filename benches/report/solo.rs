//! A bench in a new process, where those before it have left nothing: no memory, no link groups, no warm code.

use std::{
    env,
    process::{Command, Stdio, exit},
};

use serde::{Deserialize, Serialize};

use crate::{
    Bench,
    common::{Result, cpu},
    plan::Plan,
    rows::{Key, Samples},
};

/// What the new process tells about one sample.
#[derive(Serialize, Deserialize)]
struct Told {
    bytes: usize,
    contender: String,
    metric: String,
    value: f64,
}

/// Has a new process run this bench once.
pub(crate) fn run(bench: &'static str, plan: &Plan, samples: &mut Samples) -> Result<()> {
    // It is to see all processors, to choose the same ones.
    cpu::unpin()?;
    let mut command = Command::new(env::current_exe()?);
    command.args(plan.arguments()).args(["--solo", bench]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{bench} failed in its process").into());
    }
    for told in serde_json::from_slice::<Vec<Told>>(&output.stdout)? {
        // There are few names, and they are wanted until the end.
        let metric = told.metric.leak();
        samples.add(Key { bench, bytes: told.bytes, contender: told.contender.parse()?, metric }, told.value);
    }
    Ok(())
}

/// In the new process: runs the bench, tells, and ends.
pub(crate) fn tell(bench: Bench, plan: &Plan) -> Result<()> {
    let mut samples = Samples::default();
    bench(plan, &mut samples)?;
    let told: Vec<Told> = samples
        .each()
        .map(|(key, value)| Told {
            bytes: key.bytes,
            contender: key.contender.to_string(),
            metric: key.metric.to_owned(),
            value,
        })
        .collect();
    println!("{}", serde_json::to_string(&told)?);
    exit(0)
}
