//! SYN segments and the SMC option.

use smcd::tcp_fallback::stack::syn::{Syn, is_among, with_option, without_option};
use smoltcp::phy::Medium;

/// A frame, on Ethernet if the first byte is even, and options on their own.
pub fn syn(data: &[u8]) {
    let Some((kind, frame)) = data.split_first() else { return };
    let medium = if kind % 2 == 0 { Medium::Ethernet } else { Medium::Ip };
    let _ = is_among(frame);
    let before = Syn::read(frame, medium);
    if let Some(marked) = with_option(frame, medium, 1514) {
        let after = Syn::read(&marked, medium).expect("what was written can be read");
        assert!(after.has_option && marked.len() <= 1514);
        if let Some(before) = before {
            assert!(!before.has_option);
            assert_eq!(Syn { has_option: false, ..after }, before);
        }
        let stripped = without_option(&marked, medium).expect("what was written can be taken out");
        assert!(Syn::read(&stripped, medium).is_some_and(|syn| !syn.has_option));
    }
}
