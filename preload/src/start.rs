//! What is done when the library is loaded.

use smcd::raw;

use crate::{process, settings};

/// Called by the dynamic linker before the program starts.
extern "C" fn start() {
    process::begin();
    raw::move_aside();
    raw::at_start();
    settings::load();
}

/// Where the dynamic linker looks for what to call.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;
