//! Whole stacks in memory: the endpoint in user space, the SMC option, the handshake and the streams, with a clock that
//! stands still. What is random comes from a seed, so every run is the same.

#[path = "../common/settings.rs"]
mod settings;

#[path = "../common/process.rs"]
mod process;

#[path = "../common/random.rs"]
mod random;

mod declines;
mod harness;
mod middlebox;
mod obligation;
mod peers;
mod qemu;
mod relay;
mod smcd;
mod tap;
mod tcp;
mod weather;
