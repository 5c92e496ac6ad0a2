//! Where the library is that programs are run with, and how they get it.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

/// Environment variable that says where the library is.
pub(crate) const VARIABLE: &str = "SMCD_PRELOAD";

/// File name of the library.
pub(crate) const LIBRARY: &str = "libsmcd_preload.so";

/// Finds the library: where SMCD_PRELOAD says, else next to this program, or in the directory for libraries beside that.
pub(crate) fn find() -> anyhow::Result<PathBuf> {
    if let Some(named) = env::var_os(VARIABLE).filter(|name| !name.is_empty()) {
        let named = PathBuf::from(named);
        return named
            .canonicalize()
            .with_context(|| format!("there is no {}, as {VARIABLE} says", named.display()));
    }
    let own = env::current_exe().context("this program does not know where it is")?;
    let home = own.parent().unwrap_or(Path::new("/"));
    let places = [home.to_owned(), home.join("../lib"), home.join("../lib/smcd"), home.join("..")];
    for place in &places {
        if let Ok(library) = place.join(LIBRARY).canonicalize() {
            return Ok(library);
        }
    }
    bail!("{LIBRARY} is neither next to this program nor in ../lib; {VARIABLE} can say where it is")
}

/// The value of LD_PRELOAD with this library in front of what is there.
pub(crate) fn list(library: &Path, existing: Option<&OsStr>) -> anyhow::Result<OsString> {
    if library.as_os_str().as_bytes().iter().any(|byte| b": \t\n".contains(byte)) {
        bail!(
            "the system's loader cannot be told of {}: its name contains a blank or a colon",
            library.display()
        );
    }
    let mut list = library.as_os_str().to_owned();
    if let Some(existing) = existing.filter(|existing| !existing.is_empty()) {
        let is_there = existing.as_bytes().split(|byte| b": ".contains(byte));
        if is_there.into_iter().any(|other| other == library.as_os_str().as_bytes()) {
            return Ok(existing.to_owned());
        }
        list.push(":");
        list.push(existing);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_preloaded_already_stays() {
        let list = |existing: Option<&str>| list(Path::new("/lib/a.so"), existing.map(OsStr::new));
        assert_eq!(list(None).unwrap(), "/lib/a.so");
        assert_eq!(list(Some("")).unwrap(), "/lib/a.so");
        assert_eq!(list(Some("/x.so /y.so")).unwrap(), "/lib/a.so:/x.so /y.so");
        assert_eq!(list(Some("/x.so:/lib/a.so")).unwrap(), "/x.so:/lib/a.so", "once is enough");
    }

    #[test]
    fn a_name_that_the_loader_would_split_is_refused() {
        assert!(list(Path::new("/my lib/a.so"), None).is_err());
        assert!(list(Path::new("/a:b/a.so"), None).is_err());
    }
}
