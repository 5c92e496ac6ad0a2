//! Where the two ends of a connection meet.

use std::{path::Path, sync::OnceLock};

use super::four_tuple::FourTuple;
use crate::unix::name::{Name, sweep};

/// Connections that wait to be accepted: the other end of ours, and strangers.
pub(super) const BACKLOG: i32 = 16;

/// The name of a connection.
pub(super) fn name_of(tuple: &FourTuple, runtime_dir: Option<&Path>) -> Name {
    match runtime_dir {
        None => Name::Abstract(format!("smcd/tcp/{}", tuple.text())),
        Some(dir) => {
            sweep_once(dir);
            Name::File(dir.join(tuple.text()))
        }
    }
}

/// Removes the files of processes that have died, when this process first uses the directory.
fn sweep_once(dir: &Path) {
    static SWEPT: OnceLock<()> = OnceLock::new();
    SWEPT.get_or_init(|| {
        if let Err(error) = sweep(dir, FourTuple::is_text) {
            tracing::warn!(dir = %dir.display(), %error, "the runtime directory cannot be read");
        }
    });
}
