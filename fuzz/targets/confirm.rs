#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| smcd_fuzz::confirm(data));
