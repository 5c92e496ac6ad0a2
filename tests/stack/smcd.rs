//! The whole stack: option, handshake, streams.

use smcd::tcp_fallback::stack::memory::Direct;
use smcd::{FallbackReason, Handshake};

use crate::{
    harness::{Net, is_smcd, is_tcp, simulated},
    settings::config,
    weather::Weather,
};

#[test]
fn both_ends_become_smcd() {
    simulated(async {
        let net = Net::new(Direct);
        let (client, server) = (config(), config());
        // First contact, then the same link group again.
        for _ in 0..3 {
            is_smcd(net.connect(&client, &server).await).await;
        }
    });
}

#[test]
fn bad_weather_delays_the_handshake_at_most() {
    for seed in 0..20 {
        simulated(async {
            let weather = Weather { loss: 10, doubled: 10, late: 20, ..Weather::fair(seed) };
            let net = Net::new(weather);
            is_smcd(net.connect(&config(), &config()).await).await;
        });
    }
}

#[test]
fn who_switches_it_off_gets_plain_tcp() {
    simulated(async {
        let off = || config().handshake(Handshake::Off);
        let net = Net::new(Direct);
        let pair = net.connect(&off(), &config()).await;
        is_tcp(pair, FallbackReason::Disabled, FallbackReason::PeerNotSmc).await;
    });
}
