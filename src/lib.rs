//! SMC-D (Shared Memory Communications - Direct) in user space.

#![deny(unsafe_code)]

pub mod clc;
pub mod dibs;
pub mod smc;
mod sync;
