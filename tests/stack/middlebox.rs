//! What lies between two hosts takes the option away, invents it, or loses the segment that had it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use smcd::{
    FallbackReason, SmcStackStream,
    tcp_fallback::stack::{
        SynOption,
        memory::{Arrival, Way},
        syn::{Syn, with_option, without_option},
    },
};
use smoltcp::phy::Medium;

use crate::{
    harness::{Net, exchange, is_smcd, is_tcp, reason, simulated, v4, v6},
    settings::config,
};

const HOP: Duration = Duration::from_millis(5);
const NOT_SMC: FallbackReason = FallbackReason::PeerNotSmc;

fn pass(frame: Vec<u8>) -> Vec<Arrival> {
    vec![(HOP, frame)]
}

fn syn_of(frame: &[u8]) -> Option<Syn> {
    Syn::read(frame, Medium::Ip)
}

fn stripped(frame: Vec<u8>) -> Vec<u8> {
    without_option(&frame, Medium::Ip).unwrap_or(frame)
}

fn marked(frame: Vec<u8>) -> Vec<u8> {
    with_option(&frame, Medium::Ip, 1500).unwrap_or(frame)
}

/// Takes the option out of segments that go this way.
fn strips(stripped_way: Way) -> impl FnMut(Way, Vec<u8>) -> Vec<Arrival> + Send + 'static {
    move |way, frame| pass(if way == stripped_way { stripped(frame) } else { frame })
}

#[test]
fn option_stripped_from_the_syn_leaves_both_tcp_at_once() {
    simulated(async {
        let net = Net::new(strips(Way::There));
        let start = tokio::time::Instant::now();
        is_tcp(net.connect(&config(), &config()).await, NOT_SMC, NOT_SMC).await;
        assert!(start.elapsed() < Duration::from_secs(1), "nobody waited for CLC");
    });
}

/// The server believes that both have it. The client's first bytes are its application's.
#[test]
fn option_stripped_from_the_syn_ack_leaves_both_tcp() {
    simulated(async {
        let net = Net::new(strips(Way::Back));
        let listener = net.listen();
        let (client_config, server_config) = (config(), config());
        let client = async {
            let stream = SmcStackStream::connect(&net.client, v4(2), &client_config).await.unwrap();
            assert_eq!(reason(&stream), Some(NOT_SMC));
            crate::harness::talk(stream, 1, 2, 100_000).await;
        };
        let server = async {
            let tcp = listener.accept().await.unwrap();
            assert!(tcp.smc_signalled());
            let stream = SmcStackStream::accept(tcp, &server_config).await.unwrap();
            assert_eq!(reason(&stream), Some(NOT_SMC));
            crate::harness::talk(stream, 2, 1, 100_000).await;
        };
        let start = tokio::time::Instant::now();
        tokio::join!(client, server);
        assert!(start.elapsed() < Duration::from_secs(2), "data decides at once");
    });
}

/// As above, but the client waits for the server to speak first. Linux closes the connection after six seconds.
#[test]
fn option_stripped_from_the_syn_ack_costs_a_silent_client_six_seconds() {
    simulated(async {
        let net = Net::new(strips(Way::Back));
        let start = tokio::time::Instant::now();
        let pair = net.connect(&config(), &config()).await;
        let waited = start.elapsed();
        assert!(waited > Duration::from_secs(6) && waited < Duration::from_secs(7), "{waited:?}");
        is_tcp(pair, NOT_SMC, NOT_SMC).await;
    });
}

/// A server under attack answers with a cookie and forgets what the SYN said.
#[test]
fn syn_cookie_leaves_both_tcp() {
    simulated(async {
        let net = Net::new(|_, frame| pass(frame));
        let listener = net.listen_with(SynOption::Omit);
        let client_config = config();
        let (client, server) =
            tokio::join!(SmcStackStream::connect(&net.client, v4(2), &client_config), async {
                SmcStackStream::accept(listener.accept().await.unwrap(), &config()).await
            });
        let (client, server) = (client.unwrap(), server.unwrap());
        assert_eq!((reason(&client), reason(&server)), (Some(NOT_SMC), Some(NOT_SMC)));
        exchange(client, server, 100_000).await;
    });
}

/// Hands SYNs and SYN-ACKs to `judge` with how many of their kind there were before.
fn judging(
    mut judge: impl FnMut(bool, usize, Vec<u8>) -> Vec<Arrival> + Send + 'static,
) -> impl FnMut(Way, Vec<u8>) -> Vec<Arrival> + Send + 'static {
    let mut seen = [0, 0];
    move |_, frame| match syn_of(&frame) {
        None => pass(frame),
        Some(syn) => {
            let is_answer = syn.ack.is_some();
            let count = &mut seen[usize::from(is_answer)];
            *count += 1;
            judge(is_answer, *count - 1, frame)
        }
    }
}

#[test]
fn lost_syn_is_sent_again_with_the_option() {
    simulated(async {
        let net = Net::new(judging(
            |is_answer, before, frame| {
                if !is_answer && before < 2 { Vec::new() } else { pass(frame) }
            },
        ));
        is_smcd(net.connect(&config(), &config()).await).await;
    });
}

#[test]
fn lost_syn_ack_is_sent_again_with_the_option() {
    simulated(async {
        let net = Net::new(judging(
            |is_answer, before, frame| {
                if is_answer && before < 2 { Vec::new() } else { pass(frame) }
            },
        ));
        is_smcd(net.connect(&config(), &config()).await).await;
    });
}

/// Some paths drop SYNs with options they do not know, or strip them from the second try on.
#[test]
fn retransmitted_syn_without_the_option_makes_plain_tcp() {
    simulated(async {
        let net = Net::new(judging(|is_answer, before, frame| match (is_answer, before) {
            (false, 0) => Vec::new(),
            (false, _) => pass(stripped(frame)),
            _ => pass(frame),
        }));
        is_tcp(net.connect(&config(), &config()).await, NOT_SMC, NOT_SMC).await;
    });
}

/// The first SYN got through and was answered; its copy was stripped. What was answered counts.
#[test]
fn stripped_copy_of_a_syn_changes_nothing() {
    simulated(async {
        let net = Net::new(judging(|is_answer, _, frame| {
            let mut arrivals = pass(frame.clone());
            if !is_answer {
                arrivals.push((HOP * 2, stripped(frame)));
            }
            arrivals
        }));
        is_smcd(net.connect(&config(), &config()).await).await;
    });
}

/// The stripped copy came first: it is the one that was answered.
#[test]
fn stripped_copy_of_a_syn_that_comes_first_counts() {
    simulated(async {
        let net = Net::new(judging(|is_answer, _, frame| {
            let mut arrivals = pass(frame.clone());
            if !is_answer {
                arrivals.insert(0, (HOP / 2, stripped(frame)));
            }
            arrivals
        }));
        is_tcp(net.connect(&config(), &config()).await, NOT_SMC, NOT_SMC).await;
    });
}

/// A second SYN-ACK without the option, behind the one that the client took.
#[test]
fn stripped_copy_of_a_syn_ack_changes_nothing() {
    simulated(async {
        let net = Net::new(judging(|is_answer, _, frame| {
            let mut arrivals = pass(frame.clone());
            if is_answer {
                arrivals.push((HOP * 2, stripped(frame)));
            }
            arrivals
        }));
        is_smcd(net.connect(&config(), &config()).await).await;
    });
}

/// A middlebox that answers for a server adds the option that the client has sent, while the server knows of none.
#[test]
fn option_invented_on_the_way_back_costs_one_more_connection() {
    simulated(async {
        let net = Net::new(|way, frame| pass(if way == Way::Back { marked(frame) } else { frame }));
        let listener = net.listen_with(SynOption::Omit);
        let accepted = Arc::new(AtomicUsize::new(0));
        let server_config = config();
        let server = async {
            let mut last = None;
            // The first connection begins with a Proposal and is reset or closed; the second is as it should be.
            while accepted.fetch_add(1, Ordering::Relaxed) < 2 {
                let tcp = listener.accept().await.unwrap();
                assert!(!tcp.smc_signalled());
                let previous = last.replace(SmcStackStream::accept(tcp, &server_config).await.unwrap());
                drop(previous);
            }
            last.unwrap()
        };
        let client_config = config();
        let (client, server) =
            tokio::join!(SmcStackStream::connect(&net.client, v4(2), &client_config), server);
        let client = client.unwrap();
        assert_eq!((reason(&client), reason(&server)), (Some(FallbackReason::OptionEchoed), Some(NOT_SMC)));
        exchange(client, server, 50_000).await;
    });
}

/// The option is there in SYN and SYN-ACK, the one time there may be room for it, and in nothing else.
#[test]
fn option_is_in_syn_segments_only() {
    for remote in [v4(2), v6(2)] {
        simulated(async {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let log = seen.clone();
            let net = Net::new(move |way, frame: Vec<u8>| {
                let magic = frame.windows(6).any(|six| six == [0xfe, 6, 0xe2, 0xd4, 0xc3, 0xd9]);
                log.lock().unwrap().push((way, syn_of(&frame).is_some(), magic));
                pass(frame)
            });
            let listener = net.listen();
            let (client, server) =
                tokio::join!(net.client.connect(remote, SynOption::Offer), listener.accept());
            exchange(client.unwrap(), server.unwrap(), 10_000).await;
            let seen = seen.lock().unwrap();
            assert!(seen.iter().all(|(_, is_syn, magic)| is_syn == magic));
            for way in [Way::There, Way::Back] {
                assert_eq!(seen.iter().filter(|(w, is_syn, _)| *w == way && *is_syn).count(), 1);
            }
        });
    }
}
