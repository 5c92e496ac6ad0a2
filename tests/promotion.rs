//! Connections that are TCP at once and become SMC-D while they run.
#![allow(missing_docs)]

mod common;

use common::{block_on, exchange, in_time, promoted_pair};

#[test]
fn both_ends_in_one_thread() {
    block_on(in_time(async {
        let (mut client, mut server) = promoted_pair().await;
        assert!(client.transport().is_smcd() && server.transport().is_smcd());
        exchange(&mut client, &mut server, 1).await;
    }));
}
