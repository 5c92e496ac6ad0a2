//! Both SYN and SYN-ACK had the option: what each side then owes, and what hosts cost that do not pay.

use std::time::Duration;

use smcd::{
    FallbackReason, SmcConfig, SmcStackStream, Stack,
    clc::{
        DeclineCode,
        wire::{Assembler, Message},
    },
    dibs::loopback::DmbLimits,
    tcp_fallback::stack::{StackListener, StackStream, SynOption, memory::Direct},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use crate::{
    harness::{Net, is_tcp, reason, simulated, talk, v4},
    settings::{config, in_band},
};

const NOT_SMC: FallbackReason = FallbackReason::PeerNotSmc;
const SIX: Duration = Duration::from_secs(6);

/// One CLC message, and not a byte more.
pub(crate) async fn message(tcp: &mut StackStream) -> Message {
    let mut assembler = Assembler::new();
    loop {
        let mut byte = [0];
        tcp.read_exact(&mut byte).await.unwrap();
        if let Some(message) = assembler.push(&byte).unwrap() {
            return message;
        }
    }
}

/// A listener that knows nothing of SMC and whose host echoes the option. It treats each connection so.
async fn echo_only<F: AsyncFnMut(StackStream)>(listener: StackListener, mut serve: F) -> StackStream {
    let first = listener.accept().await.unwrap();
    assert!(first.smc_signalled());
    let (_, second) = tokio::join!(serve(first), listener.accept());
    let second = second.unwrap();
    assert!(!second.smc_signalled(), "the second is made without the option");
    second
}

/// Connects to a host that only echoes; checks how long that takes, and that not a byte is lost.
async fn costs(least: Duration, most: Duration, serve: impl AsyncFnMut(StackStream)) {
    let net = Net::new(Direct);
    let server = echo_only(net.listen(), serve);
    let client_config = config();
    let start = Instant::now();
    let client = async {
        let stream = SmcStackStream::connect(&net.client, v4(2), &client_config).await.unwrap();
        let took = start.elapsed();
        assert!(least <= took && took <= most, "{took:?}");
        assert_eq!(reason(&stream), Some(FallbackReason::OptionEchoed));
        talk(stream, 1, 2, 100_000).await;
    };
    tokio::join!(client, async { talk(server.await, 2, 1, 100_000).await });
}

#[test]
fn silent_host_that_echoes_costs_six_seconds() {
    simulated(costs(SIX, SIX + Duration::from_secs(1), async |mut tcp| {
        // It reads what it is sent, as an application that waits for the end of a request.
        let mut got = Vec::new();
        tcp.read_to_end(&mut got).await.unwrap();
        assert!(matches!(Message::parse(&got), Ok(Message::Proposal(_))), "no byte but the Proposal");
    }));
}

#[test]
fn host_that_answers_with_something_else_costs_next_to_nothing() {
    simulated(costs(Duration::ZERO, Duration::from_secs(1), async |mut tcp| {
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    }));
}

#[test]
fn host_that_sends_back_what_it_gets_costs_next_to_nothing() {
    simulated(costs(Duration::ZERO, Duration::from_secs(1), async |mut tcp| {
        let mut got = [0; 1024];
        let n = tcp.read(&mut got).await.unwrap();
        tcp.write_all(&got[..n]).await.unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    }));
}

#[test]
fn host_that_hangs_up_costs_next_to_nothing() {
    simulated(costs(Duration::ZERO, Duration::from_secs(1), async |tcp| drop(tcp)));
}

#[test]
fn host_that_speaks_first_costs_next_to_nothing() {
    simulated(costs(Duration::ZERO, Duration::from_secs(1), async |mut tcp| {
        tcp.write_all(b"220 mail.example ESMTP ready\r\n").await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }));
}

#[test]
fn host_that_says_too_little_costs_six_seconds() {
    simulated(costs(SIX, SIX + Duration::from_secs(1), async |mut tcp| {
        tcp.write_all(b"ok\r\n").await.unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    }));
}

/// The message with which a client begins: at once.
async fn first_message(config: SmcConfig) -> Message {
    let net = Net::new(Direct);
    let listener = net.listen();
    let client = SmcStackStream::connect(&net.client, v4(2), &config);
    let server = async {
        let mut tcp = listener.accept().await.unwrap();
        assert!(tcp.smc_signalled());
        timeout(Duration::from_millis(10), message(&mut tcp)).await.expect("promptly")
    };
    tokio::select! {
        message = server => message,
        stream = client => panic!("done before anything was read: {stream:?}"),
    }
}

#[test]
fn client_that_got_the_option_begins_with_a_proposal() {
    simulated(async {
        assert!(matches!(first_message(config()).await, Message::Proposal(_)));
    });
}

#[test]
fn client_without_devices_does_not_ask() {
    simulated(async {
        let config = in_band().stack(Stack::new(Vec::new()));
        let net = Net::new(Direct);
        let listener = net.listen();
        // To a host that echoes, the first bytes are data.
        let server = async {
            let tcp = listener.accept().await.unwrap();
            assert!(!tcp.smc_signalled());
            talk(tcp, 2, 1, 10_000).await;
        };
        let client = async {
            let stream = SmcStackStream::connect(&net.client, v4(2), &config).await.unwrap();
            assert_eq!(reason(&stream), Some(FallbackReason::Declined(DeclineCode::NO_DEVICE)));
            talk(stream, 1, 2, 10_000).await;
        };
        tokio::join!(server, client);
    });
}

/// A raw client that signals SMC, and a server of the library. Gives the server's answer to these bytes.
async fn answered(net: &Net, server: &SmcConfig, bytes: &[u8]) -> (StackStream, SmcStackStream, Message) {
    let listener = net.listen();
    let accepted = async { SmcStackStream::accept(listener.accept().await.unwrap(), server).await.unwrap() };
    let client = async {
        let mut tcp = net.client.connect(v4(2), SynOption::Offer).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        let answer = timeout(Duration::from_millis(50), message(&mut tcp)).await.expect("promptly");
        (tcp, answer)
    };
    let ((tcp, answer), stream) = tokio::join!(client, accepted);
    (tcp, stream, answer)
}

#[test]
fn server_that_got_a_proposal_answers_with_a_decline_if_it_cannot_accept() {
    simulated(async {
        let net = Net::new(Direct);
        let Message::Proposal(proposal) = first_message(config()).await else { panic!("no Proposal") };
        let bytes = Message::from(proposal).to_bytes();
        let (client, server, answer) = answered(&net, &config(), &bytes).await;
        let Message::Decline(decline) = answer else { panic!("{answer:?}") };
        // The device of the Proposal has gone with its settings.
        assert_eq!(decline.diagnosis, DeclineCode::NO_SMCD_V2_DEVICE);
        assert_eq!(reason(&server), Some(FallbackReason::Declined(DeclineCode::NO_SMCD_V2_DEVICE)));
        tokio::join!(talk(client, 1, 2, 10_000), talk(server, 2, 1, 10_000));
    });
}

#[test]
fn server_without_memory_answers_with_a_decline() {
    simulated(async {
        let none = crate::settings::limited(DmbLimits { dmbs: 0, ..DmbLimits::default() });
        let net = Net::new(Direct);
        let pair = net.connect(&config(), &none).await;
        let code = DeclineCode::NO_FREE_DMB;
        is_tcp(pair, FallbackReason::PeerDeclined(code), FallbackReason::Declined(code)).await;
    });
}

/// The client's Proposal comes after the server has given up waiting: no data is taken for something else.
#[test]
fn proposal_that_comes_too_late_is_an_error_and_no_data() {
    simulated(async {
        let net = Net::new(Direct);
        let listener = net.listen();
        let server_config = config();
        let server =
            async { SmcStackStream::accept(listener.accept().await.unwrap(), &server_config).await.unwrap() };
        let client = async {
            let mut tcp = net.client.connect(v4(2), SynOption::Offer).await.unwrap();
            sleep(Duration::from_secs(7)).await;
            tcp.write_all(&[0xe2, 0xd4, 0xc3, 0xd9, 1, 0, 0xe0, 0x26]).await.unwrap();
            tcp
        };
        let (_client, mut server) = tokio::join!(client, server);
        assert_eq!(reason(&server), Some(NOT_SMC));
        let error = server.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    });
}

/// The server spoke first; what the late client then sends is data.
#[test]
fn silent_client_is_served_after_six_seconds() {
    simulated(async {
        let net = Net::new(Direct);
        let listener = net.listen();
        let server_config = config();
        let server = async {
            let tcp = listener.accept().await.unwrap();
            let mut stream = SmcStackStream::accept(tcp, &server_config).await.unwrap();
            stream.write_all(b"220 ready\r\n").await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "HELO\r\n");
        };
        let client = async {
            let mut tcp = net.client.connect(v4(2), SynOption::Offer).await.unwrap();
            let mut banner = [0; 11];
            tcp.read_exact(&mut banner).await.unwrap();
            assert_eq!(&banner, b"220 ready\r\n");
            tcp.write_all(b"HELO\r\n").await.unwrap();
        };
        tokio::join!(server, client);
    });
}
