//! The table of the README that says what works: made of the cases that prove it.

use std::{env, fs, path::Path};

use crate::{
    case::{Case, Outcome},
    cases::CASES,
};

const START: &str =
    "<!-- matrix: made by `SMCD_WRITE_MATRIX=1 cargo test -p smcd-preload --test programs matrix` -->\n";
const END: &str = "<!-- end of matrix -->";

fn row(case: &Case) -> String {
    let outcome = match case.outcome {
        Outcome::KeepsSmcd => "works over SMC-D",
        Outcome::GoesBack => "works, by TCP from then on",
        Outcome::StaysTcp => "stays TCP",
        Outcome::NotYet => "**not yet**: differs from TCP once promoted",
    };
    format!("| {} | {outcome} | `{}` |\n", case.about, case.name)
}

fn table() -> String {
    let rows: String = CASES.iter().map(row).collect();
    format!("| what a program does | accelerated | case |\n|---|---|---|\n{rows}")
}

#[test]
fn matrix() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(&readme).expect("there is a README");
    let (before, rest) = text.split_once(START).expect("the beginning of the matrix");
    let (old, after) = rest.split_once(END).expect("the end of the matrix");
    let new = table();
    if env::var_os("SMCD_WRITE_MATRIX").is_some() {
        fs::write(&readme, format!("{before}{START}{new}{END}{after}")).expect("written");
    } else {
        assert!(old == new, "preload/README.md is out of date; its first line says how to make it anew");
    }
}
