//! Settings for streams over ISM functions.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::sync::Arc;

use smcd::{
    PnetInterface, SmcConfig, Stack,
    dibs::{
        PnetId,
        ism::{
            Ism,
            soft::{SoftIsm, SoftIsmSettings},
        },
    },
};

use super::in_band;

/// The physical network of the loopback interface, and of the functions.
pub fn pnetid() -> PnetId {
    "NET1".parse().unwrap()
}

/// A fabric with so many functions, on the physical network.
pub fn fabric(functions: usize) -> SoftIsm {
    SoftIsm::new(&settings(functions)).unwrap()
}

pub fn settings(functions: usize) -> SoftIsmSettings {
    let mut settings = SoftIsmSettings::default();
    (settings.functions, settings.pnetid) = (functions, Some(pnetid()));
    settings
}

pub fn open(fabric: &SoftIsm, function: usize) -> Ism {
    Ism::open(Arc::new(fabric.open(function).unwrap())).unwrap()
}

/// Settings for handshakes in band over this function alone, by version 1 or 2 of SMC-D.
pub fn over_ism(device: Ism, version: u8) -> SmcConfig {
    let config =
        in_band().stack(Stack::new(vec![Arc::new(device)])).interfaces([PnetInterface::new("lo", pnetid())]);
    // Without an id in common there is no version 2.
    if version == 1 { config.ueids([]) } else { config }
}

/// Settings of two ends that have a function each.
pub fn both_over_ism(version: u8) -> [SmcConfig; 2] {
    let fabric = fabric(2);
    [0, 1].map(|function| over_ism(open(&fabric, function), version))
}
