//! Where the sources are.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The files of `tokio::net::tcp`.
pub(crate) fn tokio() -> Vec<syn::File> {
    files(&tokio_manifest().with_file_name("src/net/tcp"))
}

/// Our files with connections.
pub(crate) fn ours() -> Vec<syn::File> {
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/smc"))
}

/// The manifest of the tokio that cargo builds.
fn tokio_manifest() -> PathBuf {
    // Of other platforms not everything may be there.
    let verbose = output(Command::new(env::var_os("RUSTC").unwrap_or("rustc".into())).arg("-vV"));
    let host = verbose.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    let metadata = output(
        Command::new(env::var_os("CARGO").unwrap_or("cargo".into()))
            .args(["metadata", "--offline", "--format-version", "1", "--filter-platform", host])
            .current_dir(env!("CARGO_MANIFEST_DIR")),
    );
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("cargo answers in JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let found: Vec<_> = packages.iter().filter(|package| package["name"] == "tokio").collect();
    assert_eq!(found.len(), 1, "versions of tokio");
    found[0]["manifest_path"].as_str().expect("a path").into()
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The Rust files of a directory and of those below it.
fn files(directory: &Path) -> Vec<syn::File> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a text");
            let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            files.push(file);
        }
    }
    files
}
