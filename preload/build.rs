//! Compiles what Rust cannot do yet.

fn main() {
    println!("cargo::rerun-if-changed=c/variadic.c");
    cc::Build::new().file("c/variadic.c").compile("smcd_variadic");
}
