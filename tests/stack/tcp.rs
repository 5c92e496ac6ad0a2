//! The endpoint as a TCP host, in any weather.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use smcd::tcp_fallback::stack::{Endpoint, StackStream, SynOption, memory::Direct};
use smoltcp::phy::Medium;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep},
};

use crate::{
    harness::{Net, exchange, host, simulated, v4, v6},
    random::Random,
    weather::Weather,
};

async fn pair(net: &Net, remote: SocketAddr) -> (StackStream, StackStream) {
    let listener = net.listen();
    let (client, server) = tokio::join!(net.client.connect(remote, SynOption::Offer), listener.accept());
    (client.unwrap(), server.unwrap())
}

#[test]
fn bytes_and_the_option_go_both_ways() {
    for medium in [Medium::Ip, Medium::Ethernet] {
        for remote in [v4(2), v6(2)] {
            simulated(async {
                let net = Net::of(medium, Direct);
                let (client, server) = pair(&net, remote).await;
                assert!(client.smc_signalled() && server.smc_signalled());
                assert_eq!((client.peer_addr(), server.local_addr()), (remote, remote));
                assert_eq!(client.local_addr(), server.peer_addr());
                exchange(client, server, 1_000_000).await;
            });
        }
    }
}

#[test]
fn no_byte_is_lost_in_bad_weather() {
    for seed in 0..12 {
        simulated(async {
            let weather = Weather { loss: 5, doubled: 5, late: 10, ..Weather::fair(seed) };
            let net = Net::of(Medium::Ip, weather);
            let (client, server) = pair(&net, v4(2)).await;
            assert!(client.smc_signalled() && server.smc_signalled());
            exchange(client, server, 200_000).await;
        });
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        simulated(async move {
            let start = tokio::time::Instant::now();
            let weather = Weather { loss: 10, doubled: 5, late: 10, ..Weather::fair(seed) };
            let net = Net::new(weather);
            let (client, server) = pair(&net, v4(2)).await;
            exchange(client, server, 100_000).await;
            start.elapsed()
        })
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn written_bytes_arrive_after_everybody_has_gone() {
    simulated(async {
        let net = Net::new(Weather { loss: 10, ..Weather::fair(3) });
        let (mut client, mut server) = pair(&net, v4(2)).await;
        client.write_all(&[7; 50_000]).await.unwrap();
        drop((client, net));
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, [7; 50_000]);
    });
}

#[test]
fn unread_data_makes_closing_a_reset() {
    simulated(async {
        let net = Net::new(Direct);
        let (mut client, server) = pair(&net, v4(2)).await;
        client.write_all(b"never read").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(server);
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(client.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn half_close_leaves_the_other_half() {
    simulated(async {
        let net = Net::new(Direct);
        let (mut client, mut server) = pair(&net, v4(2)).await;
        client.shutdown().await.unwrap();
        assert_eq!(client.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        server.write_all(b"still here").await.unwrap();
        drop(server);
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "still here");
    });
}

#[test]
fn closed_port_refuses_and_silence_times_out() {
    simulated(async {
        let net = Net::new(Direct);
        let refused = net.client.connect(v4(2), SynOption::Offer).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let nobody = net.client.connect(v4(77), SynOption::Offer).await.unwrap_err();
        assert_eq!(nobody.kind(), ErrorKind::TimedOut);
        let unspecified =
            net.client.connect("0.0.0.0:80".parse().unwrap(), SynOption::Omit).await.unwrap_err();
        assert_eq!(unspecified.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn port_is_taken_by_one_listener() {
    simulated(async {
        let net = Net::new(Direct);
        let listener = net.listen();
        let again = net.server.listen(v4(2), 1, SynOption::Omit).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AddrInUse);
        drop(listener);
        net.listen();
        let any = net.server.listen("0.0.0.0:0".parse().unwrap(), 1, SynOption::Omit).unwrap();
        assert_ne!(any.local_addr().port(), 0);
    });
}

#[test]
fn many_connections_one_after_another_and_at_once() {
    simulated(async {
        let net = Net::new(Weather { loss: 2, ..Weather::fair(5) });
        let listener = net.server.listen(v4(2), 16, SynOption::Offer).unwrap();
        for _ in 0..20 {
            let mut clients = tokio::task::JoinSet::new();
            for _ in 0..8 {
                let endpoint = net.client.clone();
                clients.spawn(async move { endpoint.connect(v4(2), SynOption::Offer).await.unwrap() });
            }
            let mut servers = Vec::new();
            for _ in 0..8 {
                servers.push(listener.accept().await.unwrap());
            }
            let clients = clients.join_all().await;
            assert!(clients.iter().chain(&servers).all(StackStream::smc_signalled));
            for mut client in clients {
                client.write_all(b"x").await.unwrap();
            }
            for mut server in servers {
                assert_eq!(server.read_u8().await.unwrap(), b'x');
            }
        }
    });
}

#[test]
fn settings_that_cannot_be_are_refused() {
    simulated(async {
        let bad = [
            host(1).address([224, 0, 0, 1].into(), 24),
            host(1).address([10, 0, 0, 3].into(), 33),
            host(1).mac([1, 0, 0, 0, 0, 1]),
            (0..8).fold(host(1), |config, i| config.address([10, 0, 1, i].into(), 24)),
        ];
        for config in bad {
            let (one, _) = smcd::tcp_fallback::stack::memory::pair_of(Medium::Ethernet, Direct);
            let error = Endpoint::new(one, &config).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn end_of_the_runtime_ends_all_connections() {
    let runtime = |paused| {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(paused).build().unwrap()
    };
    let first = runtime(true);
    let (mut client, _server) = first.block_on(async { pair(&Net::new(Direct), v4(2)).await });
    drop(first);
    let error = runtime(false).block_on(client.read_u8()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

/// What a connection that failed has left behind does not show on the next one of the same addresses.
#[test]
fn connection_without_the_option_has_none_whatever_was_before() {
    simulated(async {
        let net = Net::new(Direct);
        let mut ports = std::collections::HashSet::new();
        // Ports come again after 16384 connections.
        for _ in 0..16500 {
            let refused = net.client.connect(v4(2), SynOption::Offer).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
        let listener = net.listen();
        for _ in 0..300 {
            let (client, server) =
                tokio::join!(net.client.connect(v4(2), SynOption::Omit), listener.accept());
            assert!(!client.as_ref().unwrap().smc_signalled() && !server.unwrap().smc_signalled());
            assert!(ports.insert(client.unwrap().local_addr().port()));
        }
    });
}

const MINUTE: Duration = Duration::from_secs(60);

/// A peer that vanishes after it was connected, and what cuts it off.
fn vanishing() -> (Net, Arc<AtomicBool>) {
    let is_cut = Arc::new(AtomicBool::new(false));
    let cut = is_cut.clone();
    let path = move |_, frame| match cut.load(Ordering::Relaxed) {
        true => Vec::new(),
        false => vec![(Duration::from_millis(1), frame)],
    };
    (Net::new(path), is_cut)
}

#[test]
fn who_has_written_to_a_peer_that_has_vanished_is_told() {
    // The limit counts from the write, however long nothing was said before.
    for idle in [Duration::ZERO, 20 * MINUTE] {
        simulated(async {
            let (net, is_cut) = vanishing();
            let (mut client, mut server) = pair(&net, v4(2)).await;
            client.write_all(b"x").await.unwrap();
            assert_eq!(server.read_u8().await.unwrap(), b'x');
            sleep(idle).await;
            is_cut.store(true, Ordering::Relaxed);
            client.write_all(b"unheard").await.unwrap();
            let start = Instant::now();
            assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
            let took = start.elapsed();
            assert!(took >= 14 * MINUTE && took < 17 * MINUTE, "{took:?}");
            assert_eq!(client.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        });
    }
}

#[test]
fn silence_ends_no_connection() {
    simulated(async {
        let (net, is_cut) = vanishing();
        let (mut client, mut server) = pair(&net, v4(2)).await;
        sleep(20 * MINUTE).await;
        // Less than the limit.
        is_cut.store(true, Ordering::Relaxed);
        client.write_all(b"late").await.unwrap();
        sleep(8 * MINUTE).await;
        is_cut.store(false, Ordering::Relaxed);
        let mut got = [0; 4];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"late");
        // A peer without room says so for as long as it likes.
        let bytes = vec![7; 500_000];
        let write = async {
            client.write_all(&bytes).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let read = async {
            sleep(20 * MINUTE).await;
            server.read_to_end(&mut got).await.unwrap();
        };
        tokio::join!(write, read);
        assert!(got == bytes);
    });
}

/// Frames made by strangers: noise, and what real frames become when bits are turned.
#[test]
fn hostile_frames_do_no_harm() {
    for (seed, medium) in (0..6).flat_map(|seed| [(seed, Medium::Ip), (seed, Medium::Ethernet)]) {
        simulated(async {
            let mut random = Random::new(seed);
            let path = move |_, frame: Vec<u8>| {
                let mut arrivals = vec![(Duration::from_millis(1), frame.clone())];
                for _ in 0..20 {
                    let mut bad = frame.clone();
                    for _ in 0..=random.next() % 4 {
                        let at = random.next() as usize % bad.len();
                        bad[at] = random.next() as u8;
                    }
                    bad.truncate(1 + random.next() as usize % (2 * frame.len()));
                    arrivals.push((Duration::from_millis(random.next() % 3), bad));
                }
                arrivals
            };
            let net = Net::of(medium, path);
            let (client, server) = pair(&net, v6(2)).await;
            exchange(client, server, 20_000).await;
        });
    }
}
