//! What the fuzz targets do with their bytes. `tests/fuzz_targets.rs` of the library does it too, with the seeds and some
//! thousand mutations of them, so that none of this needs libFuzzer.
//!
//! A target fails by a panic: of the code under test, or because something that must hold does not.

mod exchange;
mod message;
mod syn;

pub use exchange::exchange;
pub use message::{accept, confirm, decline, first_contact, proposal};
pub use syn::syn;

/// A fuzz target.
pub type Target = fn(&[u8]);

/// Every target, with its name, which is also that of its directory of seeds.
pub const TARGETS: &[(&str, Target)] = &[
    ("proposal", proposal),
    ("accept", accept),
    ("confirm", confirm),
    ("decline", decline),
    ("first_contact", first_contact),
    ("exchange", exchange),
    ("syn", syn),
];
